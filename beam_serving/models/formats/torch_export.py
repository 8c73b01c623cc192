"""Programs of torch.export, what `torch.export.save` writes."""

import functools
import importlib.util
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import EngineModel, Facts, ModelOptions, TensorSpec, describe
from beam_serving.models.detect import ModelFiles
from beam_serving.models.engines.torch import TorchModel, prepare, shaped, with_outputs
from beam_serving.models.formats.torch_export_archive import checked_copy, sample_inputs
from beam_serving.models.formats.torch_facts import program_random_operators, program_state
from beam_serving.models.formats.torch_values import (
    TORCH_ERRORS,
    Argument,
    Value,
    argument,
    free_or_fixed,
    leaf_spec,
    named_leaves,
    torch_reason,
)

_SYMBOLS = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}
_CHECK = "_check_input_constraints_pre_hook"


def load_converted(files: ModelFiles, options: ModelOptions) -> EngineModel:
    """Load a program into OpenVINO; its inputs are described in the file."""
    from beam_serving.models.formats.torch_conversion import convert

    program = _read(files.model)
    described = _described(program, files.model, replace(options, output_names=()), "cpu")
    return convert(program, described, options, files.model)


def load_native(files: ModelFiles, options: ModelOptions) -> EngineModel:
    """Load a program into torch."""
    device = prepare(options, files.model)
    return _described(_read(files.model), files.model, options, device)


def _read(path: Path) -> torch.export.ExportedProgram:
    if "tensorflow" in sys.modules and "triton" not in sys.modules and importlib.util.find_spec("triton"):
        # Found with tensorflow 2.21 and triton 3.9: the LLVM inside each registers the same options.
        remedy = "load the program before TensorFlow, or in another process"
        raise ModelLoadError(f"{path}: TensorFlow is loaded already, and torch.export would abort; {remedy}")
    try:
        archive = checked_copy(path)
    except ValueError as err:
        raise ModelLoadError(f"{path}: {err}") from err
    samples = sample_inputs(archive)
    try:
        if samples:
            # torch.export.load tries the same and, whatever goes wrong, falls back to a full unpickling.
            torch.load(io.BytesIO(samples), weights_only=True)
    except Exception as err:
        remedy = "export the model with plain tensors as its inputs"
        raise ModelLoadError(f"{path}: its sample inputs are a pickle of more than tensors; {remedy}") from err
    archive.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(archive)
    except TORCH_ERRORS as err:
        raise ModelLoadError(f"{path}: torch cannot read it: {torch_reason(err)}") from err
    # Python source that would be executed; our own checks of shapes do without it.
    program._guards_code = []
    return program


def _described(program: torch.export.ExportedProgram, path: Path, options: ModelOptions, device: str) -> TorchModel:
    places, arguments = _arguments(program, path, options)
    module = program.module(check_guards=False)
    # These refuse any other batch than that of the file; what depends on the batch shows where rows are compared.
    for key, hook in list(module._forward_pre_hooks.items()):
        if getattr(hook, "__name__", "") == _CHECK:
            del module._forward_pre_hooks[key]
    module = module.to(device)
    operators, tensors = program_state(module)
    facts = Facts(random=program_random_operators(module), state=operators)
    call = _Program(program, module, places, tensors)
    return with_outputs(TorchModel(call, arguments, (), facts, device), _outputs(program), options, path)


class _Program:
    """A program as a function of the tensors that requests send; it starts with the tensors it keeps as they were."""

    def __init__(
        self, program: torch.export.ExportedProgram, module: torch.fx.GraphModule, places: Sequence[int], kept: set[str]
    ) -> None:
        self._module = module
        self._places = places
        self._form = program.call_spec.in_spec
        self._values = list(program.graph_signature.user_inputs)
        self._sizes = [list(_symbols(value.shape)) for value in _values(program) if isinstance(value, torch.Tensor)]
        self._ranges = program.range_constraints
        tensors = module.state_dict(keep_vars=True) if "" in kept else {name: _attribute(module, name) for name in kept}
        self._kept = [(tensor, tensor.detach().clone()) for tensor in tensors.values()]

    def __call__(self, values: list[Value]) -> object:
        self._check([value for value in values if isinstance(value, torch.Tensor)])
        for tensor, initial in self._kept:
            tensor.copy_(initial)
        leaves = list(self._values)
        for place, value in zip(self._places, values, strict=True):
            leaves[place] = value
        plain, named = pytree.tree_unflatten(leaves, self._form)
        return self._module(*plain, **named)

    def _check(self, tensors: Sequence[torch.Tensor]) -> None:
        """Refuse sizes that the program was not exported for; the batch is free.

        Raises:
            ValueError: there is one.
        """
        known: dict[object, int] = {}
        for symbols, tensor in zip(self._sizes, tensors, strict=True):
            for axis, symbol in symbols:
                size, allowed = int(tensor.shape[axis]), self._ranges.get(symbol)
                if known.setdefault(symbol, size) != size:
                    raise ValueError(f"sizes {known[symbol]} and {size} are one and the same in the program")
                # Exporting takes 0 and 1 for constants, so that 2 is no bound.
                if axis and allowed and (size > allowed.upper or 2 < allowed.lower > size):
                    raise ValueError(f"size {size} of axis {axis} is not in {allowed.lower} to {allowed.upper}")


def _attribute(module: torch.nn.Module, name: str) -> torch.Tensor:
    return functools.reduce(getattr, name.split("."), module)


def _symbols(shape: torch.Size) -> Iterator[tuple[int, object]]:
    """Yield the axes whose size is a symbol of its own, and the symbol."""
    for axis, size in enumerate(shape):
        if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
            yield axis, size.node.expr


def _values(program: torch.export.ExportedProgram) -> list[Any]:
    """Return what the file says of each input: a tensor without values, a symbol, or the constant that it must be."""
    known = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    return [known.get(name, name) if isinstance(name, str) else name for name in program.graph_signature.user_inputs]


def _arguments(
    program: torch.export.ExportedProgram, path: Path, options: ModelOptions
) -> tuple[list[int], list[Argument]]:
    """Return the inputs that requests send, and their places among all that the program takes."""
    places, arguments = [], []
    for place, (name, value) in enumerate(zip(program.graph_signature.user_inputs, _values(program), strict=True)):
        kind = value.dtype if isinstance(value, torch.Tensor) else _SYMBOLS.get(type(value))
        if kind is None:
            # A number, or None, that the program was exported with.
            continue
        shape = tuple(map(free_or_fixed, value.shape)) if isinstance(value, torch.Tensor) else ()
        arguments.append(argument(name, shape, kind, path))
        places.append(place)
    return places, _fixed(arguments, options, path)


def _fixed(arguments: Sequence[Argument], options: ModelOptions, path: Path) -> list[Argument]:
    """Give the inputs the sizes that the options want where the program leaves them free.

    Raises:
        ModelLoadError: the program has another size for good.
    """
    wanted = shaped(arguments, options, path)
    for one, other in zip(arguments, wanted, strict=True):
        sizes, asked = one.spec.shape or (), other.spec.shape or ()
        if any(size is not None and size != want for size, want in zip(sizes, asked, strict=True)):
            taken, given = describe(one.spec.dtype, sizes), list(asked[1:])
            raise ModelLoadError(
                f"{path}: data: shape of input {one.spec.name!r} is {given}, the program takes {taken} with its batch "
                "axis; export it with dynamic_shapes"
            )
    return wanted


def _outputs(program: torch.export.ExportedProgram) -> list[tuple[str, TensorSpec | str]]:
    (given,) = next(node for node in program.graph.nodes if node.op == "output").args
    values = [
        one.meta["val"] if isinstance(one, torch.fx.Node) else one
        for one, spec in zip(given, program.graph_signature.output_specs, strict=True)
        if spec.kind is OutputKind.USER_OUTPUT
    ]
    leaves = named_leaves(pytree.tree_unflatten(values, program.call_spec.out_spec))
    return [(name, leaf_spec(name, leaf)) for name, leaf in leaves]
