"""TorchScript archives, what `torch.jit.save` writes."""

import copy
import io
import itertools
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import EngineModel, Facts, ModelOptions, TensorSpec, numbered
from beam_serving.models.detect import ModelFiles
from beam_serving.models.engines.torch import TorchModel, observed, prepare, shaped, with_outputs
from beam_serving.models.formats.checked_zip import name_of
from beam_serving.models.formats.torch_archive import checked_copy, was_traced
from beam_serving.models.formats.torch_facts import random_operators, state_operators, trains_statistics
from beam_serving.models.formats.torch_operators import reason_to_refuse
from beam_serving.models.formats.torch_values import (
    TORCH_ERRORS,
    Argument,
    Kind,
    Value,
    argument,
    leaf_spec,
    torch_reason,
)

Run = Callable[[Mapping[str, Value]], object]
"""Runs a module on its inputs by name, from its initial state."""

_LOG = logging.getLogger(__name__)
_SCALARS = {"IntType": int, "FloatType": float, "BoolType": bool, "StringType": str}
_KINDS = (torch.float32, torch.int64, torch.bool)
"""What an input may be whose type the file does not say, the likeliest first."""
_MOST_TRIALS = 27
_OF_TYPES = re.compile(r"type|long|int|bool|float", re.IGNORECASE)
"""What torch says where a tensor has the wrong type, and hardly where it has the wrong shape."""
_REMEDY = "export a module whose forward takes each tensor by itself"


def load_converted(files: ModelFiles, options: ModelOptions) -> EngineModel:
    """Load a module into OpenVINO."""
    from beam_serving.models.formats.torch_conversion import convert

    module = _read(files.model)

    def call(given: Mapping[str, Value]) -> object:
        # Of a copy: what is converted must be in its initial state.
        return copy.deepcopy(module)(**given)

    # What OpenVINO compiles is announced as torch has it, all outputs before the choice of some.
    described = _described(module, call, Facts(), files.model, replace(options, output_names=()), "cpu")
    return convert(module, described, options, files.model)


def load_native(files: ModelFiles, options: ModelOptions) -> EngineModel:
    """Load a module into torch.

    The file says the shapes and types of its inputs where it was traced. Else any shape is taken, or those of
    `input_shape`, and the type of a tensor is the first of float32, int64 and bool that a trial succeeds with.
    """
    device = prepare(options, files.model)
    module = _read(files.model, device)
    call, facts = _runner(module, device)
    return _described(module, call, facts, files.model, options, device)


def _read(path: Path, device: str = "cpu", *, restore_shapes: bool = False) -> torch.jit.ScriptModule:
    try:
        archive = checked_copy(path)
    except ValueError as err:
        raise ModelLoadError(f"{path}: {err}") from err
    try:
        with archive, warnings.catch_warnings():
            if reason := reason_to_refuse(archive):
                raise ModelLoadError(f"{path}: {reason}")
            archive.seek(0)
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(name_of(archive), map_location=device, _restore_shapes=restore_shapes).eval()
    except TORCH_ERRORS as err:
        raise ModelLoadError(f"{path}: torch cannot read it: {torch_reason(err)}") from err


def _described(
    module: torch.jit.ScriptModule, run: Run, facts: Facts, path: Path, options: ModelOptions, device: str
) -> TorchModel:
    """Describe a module by its file and, for what that does not say, by a trial."""
    arguments, unknown = _arguments(module, path, options)
    names = [one.spec.name for one in arguments]

    def call(values: list[Value]) -> object:
        return run(dict(zip(names, values, strict=True)))

    model, leaves, error = TorchModel(call, arguments, (), facts, device), None, ""
    for kinds in _kinds(len(unknown)):
        tried = TorchModel(call, _with_kinds(arguments, unknown, kinds, path), (), facts, device)
        leaves, reported = observed(tried, options)
        error = error or reported
        if leaves is not None:
            model = tried
            break
        if not _OF_TYPES.search(error.partition(": ")[2]):
            break
    if leaves is not None and any(kind != _KINDS[0] for kind in kinds):
        taken = ", ".join(f"{one.spec.name} {one.spec.dtype}" for one in model.arguments)
        _LOG.info("%s: its file does not say the types of its inputs; a trial succeeded with %s", path, taken)
    if leaves is None:
        leaves = _announced(module.forward.schema.returns)
    if leaves is None:
        remedy = "set model: sample to a file that it takes, or data: shape to the shape of a record"
        raise ModelLoadError(f"{path}: names its outputs only when it runs, and a trial failed: {error}; {remedy}")
    return with_outputs(model, leaves, options, path)


def _arguments(module: torch.jit.ScriptModule, path: Path, options: ModelOptions) -> tuple[list[Argument], list[int]]:
    """Return the inputs, and which of them are tensors whose type the file does not say."""
    asked = set(options.constants) | (set(options.input_shape) if isinstance(options.input_shape, Mapping) else set())
    traced = _traced_types(path)
    arguments: list[Argument] = []
    unknown: list[int] = []
    for one in module.forward.schema.arguments[1:]:
        if one.has_default_value() and one.name not in asked:
            continue
        kind, shape = _kind_of(one.type), None
        if kind is torch.Tensor:
            kind, shape = traced.get(one.name, (None, None))
        elif kind is not None:
            shape = ()
        if kind is None and _kind_of(one.type) is torch.Tensor:
            unknown.append(len(arguments))
            kind = _KINDS[0]
        if kind is None:
            raise ModelLoadError(f"{path}: input {one.name!r} is {one.type}, which requests cannot send; {_REMEDY}")
        arguments.append(argument(one.name, shape, kind, path))
    return shaped(arguments, options, path), unknown


def _kind_of(declared: torch.Type) -> Kind | None:
    """Return `torch.Tensor`, int, float, bool or str for the declared type of an argument; None for any other."""
    if declared.kind() == "OptionalType":
        declared = declared.getElementType()
    return torch.Tensor if declared.kind() == "TensorType" else _SCALARS.get(declared.kind())


def _traced_types(path: Path) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Return type and shape of the tensors that a module was traced with, as torch restores them into its graph."""
    if not was_traced(path):
        return {}
    module = _read(path, restore_shapes=True)
    names = [one.name for one in module.forward.schema.arguments[1:]]
    kinds = [value.type() for value in list(module.graph.inputs())[1:]]
    return {
        name: (kind.dtype(), tuple(kind.sizes()))
        for name, kind in zip(names, kinds, strict=True)
        if kind.kind() == "TensorType" and kind.sizes() is not None and kind.dtype() is not None
    }


def _kinds(count: int) -> Iterator[tuple[torch.dtype, ...]]:
    """Return the types to try for tensors whose types are unknown: all alike first."""
    alike = [(kind,) * count for kind in _KINDS]
    mixed = (kinds for kinds in itertools.product(_KINDS, repeat=count) if kinds not in alike)
    return itertools.islice(itertools.chain(alike, mixed) if count else iter([()]), _MOST_TRIALS)


def _with_kinds(
    arguments: Sequence[Argument], places: Sequence[int], kinds: Sequence[torch.dtype], path: Path
) -> list[Argument]:
    changed = list(arguments)
    for place, kind in zip(places, kinds, strict=True):
        changed[place] = argument(changed[place].spec.name, changed[place].spec.shape, kind, path)
    return changed


def _announced(returns: Sequence[torch.Argument]) -> list[tuple[str, TensorSpec | str]] | None:
    """Describe outputs by their declared types; None where these do not say how many there are, or their names."""
    (declared,) = returns
    kinds = [declared.type]
    if declared.type.kind() == "TupleType":
        # The fields of a named tuple are not told.
        kinds = declared.type.elements() if declared.type.annotation_str.startswith("Tuple[") else []
    dtypes: list[TensorSpec | str] = []
    for name, kind in zip(numbered("output", len(kinds)), kinds, strict=True):
        if kind.kind() == "TensorType":
            dtypes.append(TensorSpec(name, None, np.dtype(np.float32)))
        elif kind.kind() in _SCALARS:
            dtypes.append(leaf_spec(name, _SCALARS[kind.kind()]()))
        else:
            return None
    return list(zip(numbered("output", len(kinds)), dtypes, strict=True)) if kinds else None


def _runner(module: torch.jit.ScriptModule, device: str) -> tuple[Run, Facts]:
    """Return a function that calls a module from its initial state, and what its operators say of it.

    A module that writes its attributes is copied before each call. A frozen one has its weights in its code, so that
    nothing is copied but what it writes; freezing also folds the weights in, which is up to 1.5 times faster.
    """
    frozen = _frozen(module, device)
    graph = module.inlined_graph if frozen is None else frozen.graph
    facts = Facts(random=random_operators(graph), state=state_operators(graph))
    runs = module if frozen is None or trains_statistics(graph) else frozen

    def call(given: Mapping[str, Value]) -> object:
        return (copy.deepcopy(runs) if facts.state else runs)(**given)

    return call, facts


def _frozen(module: torch.jit.ScriptModule, device: str) -> torch.jit.ScriptModule | None:
    """Fold the weights of a module into its graph; None where it cannot be frozen."""
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.freeze(module), buffer)
            buffer.seek(0)
            # Freezing frees functions that the graph still points to, and an error in one of them ends the process
            # (torch 2.15). A graph that was written and read again points to none.
            return torch.jit.load(buffer, map_location=device)
    except RuntimeError as err:
        _LOG.debug("is not frozen: %s", torch_reason(err))
        return None
