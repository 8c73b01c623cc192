"""The torch engine: runs a module as it is, on a GPU or where OpenVINO cannot take it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import (
    EngineModel,
    Facts,
    ModelOptions,
    TensorSpec,
    engine_threads,
    failed_on,
    select_outputs,
    whole_shapes,
)
from beam_serving.models.formats.torch_values import (
    TORCH_ERRORS,
    Argument,
    Value,
    leaf_spec,
    named_leaves,
    to_array,
    torch_reason,
)
from beam_serving.models.trial.batch_axis import Axis, axis_of, record_spec, stack
from beam_serving.models.trial.probing import constant_arrays, try_out
from beam_serving.models.trial.samples import Record, invented_shapes, records

Call = Callable[[list[Value]], object]
"""Runs a module on its inputs in order, from its initial state."""
_NO_FACTS = Facts()


class TorchModel:
    """A module on `device`, called with its arguments in order; see `EngineModel`.

    Without `outputs` it runs and gives nothing, which shows what it takes. `seen` is what its last run returned.
    """

    engine = "torch"

    def __init__(
        self,
        call: Call,
        arguments: Sequence[Argument],
        outputs: tuple[TensorSpec, ...] = (),
        facts: Facts = _NO_FACTS,
        device: str = "cpu",
    ) -> None:
        self.arguments = tuple(arguments)
        self.inputs = tuple(one.spec for one in arguments)
        self.outputs = outputs
        self.facts = facts
        self.device = device
        self.seen: dict[str, Any] = {}
        self.call = call

    def infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """See `EngineModel.infer`."""
        try:
            with torch.inference_mode():
                values = [one.value(array, self.device) for one, array in zip(self.arguments, arrays, strict=True)]
                self.seen = dict(named_leaves(self.call(values)))
                return [self._output(spec.name) for spec in self.outputs]
        except TORCH_ERRORS as err:
            raise failed_on(arrays, torch_reason(err)) from err

    def freed(self) -> EngineModel | None:
        """See `EngineModel.freed`."""
        sizes = {one.spec.shape[0] for one in self.arguments if one.spec.shape} - {None}
        if not sizes:
            return None
        arguments = [one._replace(spec=_free(one.spec, sizes)) for one in self.arguments]
        outputs = tuple(_free(spec, sizes) for spec in self.outputs)
        return TorchModel(self.call, arguments, outputs, self.facts, self.device)

    def compile(self) -> None:
        """See `EngineModel.compile`: there is nothing to do before the first inference."""

    def settle(self) -> None:
        """See `EngineModel.settle`."""

    def _output(self, name: str) -> np.ndarray:
        if name not in self.seen:
            given = ", ".join(self.seen) or "nothing"
            raise TypeError(f"the module gave {given} this time, wanted is {name!r} each time")
        try:
            return to_array(self.seen[name])
        except TypeError as err:
            raise TypeError(f"output {name!r} {err}") from err


def _free(spec: TensorSpec, sizes: set[int | None]) -> TensorSpec:
    return spec._replace(shape=(None, *spec.shape[1:])) if spec.shape and spec.shape[0] in sizes else spec


def prepare(options: ModelOptions, path: Path) -> str:
    """Set torch up for a worker process, and give the device that the options mean on this machine.

    Raises:
        ModelLoadError: the options ask for what torch or this machine does not have.
    """
    if options.precision != "f32":
        raise ModelLoadError(f"{path}: {options.precision} is asked for, torch runs this model in f32 only")
    device = options.device.lower()
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        found = f"torch {torch.__version__} finds no CUDA device"
        raise ModelLoadError(f"{path}: device cuda is asked for and {found}; set device to cpu or auto")
    if device not in ("auto", "cpu", "cuda"):
        raise ModelLoadError(f"{path}: device is {options.device!r}, torch runs models on cpu or cuda")
    if threads := engine_threads(options):
        torch.set_num_threads(threads)
    return "cuda" if has_cuda and device != "cpu" else "cpu"


def shaped(arguments: Sequence[Argument], options: ModelOptions, path: Path) -> list[Argument]:
    """Return the inputs with the shapes that the options want; single values have none to be wanted.

    Raises:
        ModelLoadError: the shapes are for other inputs than these.
    """
    places = [place for place, one in enumerate(arguments) if one.spec.shape != ()]
    if len(options.input_names) == len(arguments):
        options = replace(options, input_names=tuple(options.input_names[place] for place in places))
    shapes = whole_shapes([arguments[place].spec for place in places], options, path)
    changed = list(arguments)
    for place, shape in zip(places, shapes, strict=True):
        changed[place] = changed[place]._replace(spec=changed[place].spec._replace(shape=shape))
    return changed


def with_outputs(
    model: TorchModel, leaves: Sequence[tuple[str, TensorSpec | str]], options: ModelOptions, path: Path
) -> TorchModel:
    """Return the model with the outputs that the options choose out of these: descriptions, or why there is none.

    Raises:
        ModelLoadError: one that is chosen does not exist, or requests cannot be given it.
    """
    known = dict(leaves)
    outputs = []
    for name in select_outputs(list(known), options, path):
        spec = known[name]
        if isinstance(spec, str):
            able = [other for other, one in leaves if isinstance(one, TensorSpec)]
            remedy = f"choose with model: outputs out of {', '.join(able)}" if able else "export it with tensors"
            raise ModelLoadError(f"{path}: output {name!r} {spec}; {remedy}")
        outputs.append(spec)
    return TorchModel(model.call, model.arguments, tuple(outputs), model.facts, model.device)


def observed(model: TorchModel, options: ModelOptions) -> tuple[list[tuple[str, TensorSpec | str]] | None, str]:
    """Describe what a module returns by running it, on the operator's sample or invented ones.

    Returns:
        The outputs by name, sizes that differ from run to run free; or None, and why it did not run.
    """
    names = [one.spec.name for one in model.arguments]
    if options.input_names and len(options.input_names) == len(names):
        renamed = [
            one._replace(spec=one.spec._replace(name=name))
            for one, name in zip(model.arguments, options.input_names, strict=True)
        ]
        model = TorchModel(model.call, renamed, (), model.facts, model.device)
        options = replace(options, input_names=())
    found = axis_of([spec for spec in model.inputs if spec.name not in options.constants], options.batch_axis)
    trial = try_out(model, found, options)
    if trial.shapes is None:
        return None, trial.error
    several: list[list[tuple[str, TensorSpec | str]]] = []
    for arrays in _trials(model, found, trial.sets[0], trial.specs, trial.shapes, options):
        try:
            model.infer(arrays)
        except ModelError as err:
            if not several:
                return None, str(err)
            continue
        several.append([(name, leaf_spec(name, leaf)) for name, leaf in model.seen.items()])
    merged = _merged(several)
    if any(spec.shape is None for spec in model.inputs):
        # Other sizes than those that were tried may come.
        merged = [(name, one._replace(shape=None) if isinstance(one, TensorSpec) else one) for name, one in merged]
    return merged, ""


def _trials(
    model: TorchModel,
    found: Axis,
    some: list[Record],
    specs: Sequence[TensorSpec],
    shapes: dict[str, tuple[int, ...]],
    options: ModelOptions,
) -> Iterator[list[np.ndarray]]:
    """Yield inputs of one record, of two, and of another size where sizes are free."""
    constants = constant_arrays(model.inputs, options)

    def tensors(rows: list[Record]) -> list[np.ndarray]:
        given = iter(stack(rows, specs, found.axis))
        return [constants[spec.name] if spec.name in constants else next(given) for spec in model.inputs]

    count = found.size or 1
    yield tensors(some[:1] * count)
    if found.axis is not None and found.size is None and not found.mixed:
        yield tensors(some[:1] * 2)
    of_records = [record_spec(spec, found.axis) for spec in specs]
    for others in [others for others in invented_shapes(of_records) if others != shapes][:2]:
        yield tensors(next(records(of_records, others, 1)) * count)


def _merged(several: list[list[tuple[str, TensorSpec | str]]]) -> list[tuple[str, TensorSpec | str]]:
    merged = dict(several[0])
    for others in several[1:]:
        for name, other in others:
            one = merged.get(name)
            if isinstance(one, TensorSpec) and isinstance(other, TensorSpec) and one.shape is not None:
                merged[name] = one._replace(shape=_common(one.shape, other.shape))
    return list(merged.items())


def _common(one: tuple[int | None, ...], other: tuple[int | None, ...] | None) -> tuple[int | None, ...] | None:
    if other is None or len(one) != len(other):
        return None
    return tuple(size if size == another else None for size, another in zip(one, other, strict=True))
