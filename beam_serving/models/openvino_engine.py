"""The OpenVINO engine: whatever has become an `openvino.Model` is compiled and run here, for every format."""

import logging
import re
from collections.abc import Mapping, Sequence
from itertools import filterfalse
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino import frontend
from openvino import opset13 as opset

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import (
    STRING,
    ModelOptions,
    TensorSpec,
    describe,
    engine_threads,
    numbered,
    readable,
)
from beam_serving.models.fixed_batch import Infer, agree, infer_rows
from beam_serving.models.openvino_int8 import compress_weights

_LOG = logging.getLogger(__name__)

OPENVINO_ERRORS = (
    RuntimeError,
    frontend.GeneralFailure,
    frontend.InitializationFailure,
    frontend.NotImplementedFailure,
    frontend.OpConversionFailure,
    frontend.OpValidationFailure,
)
"""What OpenVINO raises when it refuses a model; the classes have no other common base than Exception."""

_PRECISION_HINTS = {"f32": "f32", "bf16": "bf16", "int8": "f32"}
_OWN_NAME = re.compile(r"(Parameter|Result)_\d+")


class OpenVinoModel:
    """A compiled model and its one inference request: for one thread at a time.

    With a `fixed_batch` it sees the rows in portions of that size.
    """

    engine = "openvino"

    def __init__(
        self, infer: Infer, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], fixed_batch: int | None
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._infer = infer
        self._fixed_batch = fixed_batch

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `LoadedModel.predict`."""
        rows = infer_rows(self._infer, [batch[spec.name] for spec in self.inputs], self._fixed_batch)
        return {spec.name: column for spec, column in zip(self.outputs, rows, strict=True)}


class _Engine:
    """A compiled model that is compiled anew after a failure, and a second one for full batches.

    After an input whose free sizes do not fit, the CPU plugin (2026.4) goes on to fail for inputs that do. Models
    without such sizes do not get there, so theirs is not kept beside the compiled one; and only they have a form for
    batches of `full_batch` rows, which saves about a tenth of the time and costs a second copy of the weights.
    """

    def __init__(
        self, model: openvino.Model, device: str, properties: Mapping[str, Any], full_batch: int | None = None
    ) -> None:
        self._device = device
        self._properties = properties
        self._outputs = range(len(model.outputs))
        has_free_sizes = any(None in _sizes(port.get_partial_shape()) for port in model.inputs)
        self._model = model if has_free_sizes else None
        self._request = self._compiled(model)
        full = _of_batch(model, full_batch) if full_batch and not has_free_sizes else None
        self._full_batch = full_batch
        self._full_request = self._compiled(full) if full else None

    def infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """See `fixed_batch.Infer`."""
        try:
            if self._request is None:
                self._request = self._compiled(self._model)
            is_full = self._full_request is not None and len(arrays[0]) == self._full_batch
            request: Any = self._full_request if is_full else self._request
            # The request does not keep what it reads in place: without `held`, a copy of read-only input would be gone.
            held = [array.astype(str) if array.dtype == STRING else readable(array) for array in arrays]
            for position, array in enumerate(held):
                request.set_input_tensor(position, _tensor(array))
            # Not infer(): on one thread it swallows what the plugin throws (2026.4) and leaves the outputs of the
            # batch before, someone else's. This is faster, too.
            request.start_async(share_inputs=True)
            request.wait()
            return [_owned(request.get_output_tensor(position)) for position in self._outputs]
        except RuntimeError as err:
            if self._model is not None:
                self._request = None
            shapes = ", ".join(describe(array.dtype, array.shape) for array in arrays)
            raise ModelError(f"the model failed on a batch of {shapes}") from err

    def _compiled(self, model: openvino.Model) -> Any:
        return openvino.Core().compile_model(model, self._device, self._properties).create_infer_request()


def _tensor(array: np.ndarray) -> openvino.Tensor:
    # Text is always copied.
    return openvino.Tensor(array) if array.dtype.kind == "U" else openvino.Tensor(array, shared_memory=True)


def _owned(tensor: openvino.Tensor) -> np.ndarray:
    if tensor.element_type == openvino.Type.string:
        texts: np.ndarray = tensor.str_data.astype(STRING)
        return texts
    return np.array(tensor.data)


def read_model(model: Path, weights: Path | None = None) -> openvino.Model:
    """Reads a file of a format that OpenVINO reads by itself.

    Raises:
        ModelLoadError: OpenVINO cannot read it; the message has its reason.
    """
    try:
        return openvino.Core().read_model(model, weights or "")
    except OPENVINO_ERRORS as err:
        raise ModelLoadError(f"{model}: OpenVINO cannot read it: {first_reason(err)}") from err


def compile_model(model: openvino.Model, options: ModelOptions, source: Path) -> OpenVinoModel:
    """Compiles a model for serving: with a free batch where possible, one stream and no CPU pinning.

    `source` is the file that messages name.

    Raises:
        ModelLoadError: the options do not fit the model, or OpenVINO cannot compile it.
    """
    try:
        model = _with_outputs(model, options.output_names, source)
        _set_input_shape(model, options, source)
        inputs = _input_specs(model, options.input_names, source)
        batch = _fixed_batch(model, source)
        if batch is not None:
            freed = _freed(model)
            if freed and agree(_trial(freed), _trial(model), inputs, batch):
                model, batch = freed, None
            else:
                _LOG.warning("%s: computes batches of %d only; larger ones are cut into portions", source, batch)
        outputs = _output_specs(model, source)
        if options.precision == "int8":
            compress_weights(model, source)
        full_batch = options.full_batch if batch is None else None
        engine = _Engine(model, options.device.upper(), _properties(options), full_batch)
        return OpenVinoModel(engine.infer, inputs, outputs, batch)
    except OPENVINO_ERRORS as err:
        raise ModelLoadError(f"{source}: OpenVINO cannot compile it: {first_reason(err)}") from err


def first_reason(err: BaseException) -> str:
    """Takes the telling line of an OpenVINO error, which starts with positions in OpenVINO's own source."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    unknown = [line.removeprefix("-- ") for line in lines if line.startswith("-- No conversion rule")]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '", "FrontEnd API failed"))]
    return (unknown or telling or lines or [type(err).__name__])[0]


def names_of(ports: Sequence[Any], fallback: str) -> list[str]:
    """Names inputs or outputs as the file names the tensors, without the `:0` of TensorFlow; else by position.

    OpenVINO's own names for what has none carry a counter of the process, and count as none.
    """
    names = []
    for port, unnamed in zip(ports, numbered(fallback, len(ports)), strict=True):
        known = sorted(filterfalse(_OWN_NAME.fullmatch, port.get_names()), key=lambda name: (len(name), name))
        friendly = port.get_node().get_friendly_name()
        chosen = friendly if friendly in known else next(iter(known), unnamed)
        names.append(chosen.removesuffix(":0"))
    return names if len(set(names)) == len(names) else numbered(fallback, len(ports))


def _trial(model: openvino.Model) -> Infer:
    return _Engine(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).infer


def _input_specs(model: openvino.Model, given: tuple[str, ...], source: Path) -> tuple[TensorSpec, ...]:
    ports = model.inputs
    if given and len(given) != len(ports):
        raise ModelLoadError(f"{source}: input_names are {list(given)}, the model has {len(ports)} inputs")
    specs = []
    for name, port in zip(given or names_of(ports, "input"), ports, strict=True):
        shape = port.get_partial_shape()
        if shape.rank.is_dynamic:
            raise ModelLoadError(f"{source}: input {name!r} has no shape in the file; set input_shape")
        if not len(shape):
            raise ModelLoadError(f"{source}: input {name!r} is a single value, without a batch axis")
        specs.append(TensorSpec(name, _sizes(shape), _dtype(port)))
    return tuple(specs)


def _output_specs(model: openvino.Model, source: Path) -> tuple[TensorSpec, ...]:
    specs = []
    for name, port in zip(names_of(model.outputs, "output"), model.outputs, strict=True):
        shape = port.get_partial_shape()
        if shape.rank.is_static and not len(shape):
            raise ModelLoadError(f"{source}: output {name!r} is a single value, without a batch axis")
        sizes = _sizes(shape) if shape.rank.is_static else ()
        specs.append(TensorSpec(name, sizes, _dtype(port)))
    return tuple(specs)


def _dtype(port: Any) -> np.dtype:
    kind = port.get_element_type()
    return STRING if kind == openvino.Type.string else np.dtype(kind.to_dtype())


def _sizes(shape: openvino.PartialShape) -> tuple[int | None, ...]:
    return tuple(None if size.is_dynamic else size.get_length() for size in list(shape)[1:])


def _with_outputs(model: openvino.Model, wanted: tuple[str, ...], source: Path) -> openvino.Model:
    """Gives the model with these outputs only: its own, or tensors inside it by the names that the file gives them."""
    if not wanted:
        return model
    known = dict(zip(names_of(model.outputs, "output"), model.outputs, strict=True))
    inner = {name: port for op in model.get_ordered_ops() for port in op.outputs() for name in port.get_names()}
    unknown = [name for name in wanted if name not in known and name not in inner]
    if unknown:
        raise ModelLoadError(f"{source}: has no output {unknown[0]!r}, its outputs are {', '.join(known)}")
    results = [known[name].get_node() if name in known else opset.result(inner[name]) for name in wanted]
    for name, result in zip(wanted, results, strict=True):
        result.output(0).set_names({name})
    return openvino.Model(results, model.get_parameters(), model.get_friendly_name())


def _set_input_shape(model: openvino.Model, options: ModelOptions, source: Path) -> None:
    if options.input_shape is None:
        return
    if len(model.inputs) != 1:
        raise ModelLoadError(f"{source}: input_shape is for models with one input, this one has {len(model.inputs)}")
    known = model.inputs[0].get_partial_shape()
    batch = known[0] if known.rank.is_static and len(known) else openvino.Dimension()
    wanted = openvino.PartialShape([batch, *map(openvino.Dimension, options.input_shape)])
    if not known.compatible(wanted):
        shape = list(options.input_shape)
        raise ModelLoadError(f"{source}: input_shape is {shape}, the model takes {known} (batch axis first)")
    model.reshape(wanted)


def _fixed_batch(model: openvino.Model, source: Path) -> int | None:
    first = [port.get_partial_shape()[0] for port in model.inputs]
    fixed = {size.get_length() for size in first if size.is_static}
    if len(fixed) > 1:
        raise ModelLoadError(f"{source}: its inputs have different batch sizes, {sorted(fixed)}")
    return fixed.pop() if fixed else None


def _of_batch(model: openvino.Model, size: int | None) -> openvino.Model | None:
    """Gives the model with this batch size, a free one for None; None where its graph does not allow it."""
    changed = model.clone()
    shapes = {port: port.get_partial_shape() for port in changed.inputs}
    for port in shapes:
        shapes[port][0] = openvino.Dimension() if size is None else openvino.Dimension(size)
    try:
        changed.reshape(shapes)
    except RuntimeError:
        return None
    return changed


def _freed(model: openvino.Model) -> openvino.Model | None:
    """Gives the model with a free batch axis, None where OpenVINO sees that it depends on its batch."""
    freed = _of_batch(model, None)
    if freed is None:
        return None
    outputs = [port.get_partial_shape() for port in freed.outputs]
    return freed if all(shape.rank.is_static and len(shape) and shape[0].is_dynamic for shape in outputs) else None


def _properties(options: ModelOptions) -> dict[str, Any]:
    if options.precision not in _PRECISION_HINTS:
        raise ModelLoadError(f"precision is {options.precision!r}, wanted is one of {', '.join(_PRECISION_HINTS)}")
    # Left to itself, OpenVINO takes bf16 where the CPU has it and is 7.5e-4 off.
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _PRECISION_HINTS[options.precision]}
    if options.device.lower() != "cpu":
        return properties
    # Pinned, the worker processes of one thread each would all take the same first core.
    properties |= {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False, "NUM_STREAMS": 1}
    if threads := engine_threads(options):
        properties["INFERENCE_NUM_THREADS"] = threads
    if threads == 1:
        # No stream: the engine computes on the thread that calls it.
        properties["NUM_STREAMS"] = 0
    return properties
