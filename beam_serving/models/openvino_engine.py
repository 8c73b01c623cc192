"""The OpenVINO engine: whatever has become an `openvino.Model` is compiled and run here, for every format."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino import frontend

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import ModelOptions, TensorSpec, describe, engine_threads, numbered, readable
from beam_serving.models.fixed_batch import Infer, agree, infer_rows

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
_QUANTISED_OPERATORS = ("FakeQuantize", "FakeConvert")


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
        arrays = [batch[spec.name] for spec in self.inputs]
        rows = infer_rows(self._infer, arrays, self._fixed_batch)
        return {spec.name: column for spec, column in zip(self.outputs, rows, strict=True)}


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
    properties = _properties(model, options, source)
    device = options.device.upper()
    try:
        model = _with_outputs(model, options.output_names, source)
        _set_input_shape(model, options, source)
        inputs = _input_specs(model, options.input_names, source)
        batch = _fixed_batch(model, source)
        if batch is not None:
            freed = _freed(model)
            if freed and agree(_compiled(freed, "CPU", {}), _compiled(model, "CPU", {}), inputs, batch):
                model, batch = freed, None
            else:
                _LOG.warning("%s: computes batches of %d only; larger ones are cut into portions", source, batch)
        outputs = _output_specs(model, source)
        return OpenVinoModel(_compiled(model, device, properties), inputs, outputs, batch)
    except OPENVINO_ERRORS as err:
        raise ModelLoadError(f"{source}: OpenVINO cannot compile it: {first_reason(err)}") from err


def first_reason(err: BaseException) -> str:
    """Takes the telling line of an OpenVINO error, which starts with positions in OpenVINO's own source."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    unknown = [line.removeprefix("-- ") for line in lines if line.startswith("-- No conversion rule")]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '", "FrontEnd API failed"))]
    return (unknown or telling or lines or [type(err).__name__])[0]


def names_of(ports: Sequence[Any], fallback: str) -> list[str]:
    """Names inputs or outputs as the file names the tensors, without the `:0` of TensorFlow; else by position."""
    names = []
    for port, unnamed in zip(ports, numbered(fallback, len(ports)), strict=True):
        known = sorted(port.get_names(), key=lambda name: (len(name), name))
        friendly = port.get_node().get_friendly_name()
        chosen = friendly if friendly in known else next(iter(known), unnamed)
        names.append(chosen.removesuffix(":0"))
    return names


def _compiled(model: openvino.Model, device: str, properties: Mapping[str, Any]) -> Infer:
    compiled = openvino.Core().compile_model(model, device, {"INFERENCE_PRECISION_HINT": "f32", **properties})
    request = compiled.create_infer_request()

    outputs = range(len(model.outputs))

    def infer(arrays: list[np.ndarray]) -> list[np.ndarray]:
        try:
            for position, array in enumerate(arrays):
                request.set_input_tensor(position, openvino.Tensor(readable(array), shared_memory=True))
            # Not request.infer(): with one thread it swallows what the CPU plugin throws (2026.4) and leaves the
            # outputs of the batch before. This costs 0.01 ms more.
            request.start_async(share_inputs=True)
            request.wait()
            return [request.get_output_tensor(position).data.copy() for position in outputs]
        except RuntimeError as err:
            shapes = ", ".join(describe(array.dtype, array.shape) for array in arrays)
            raise ModelError(f"the model failed on a batch of {shapes}") from err

    return infer


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
        specs.append(TensorSpec(name, _sizes(shape), np.dtype(port.get_element_type().to_dtype())))
    return tuple(specs)


def _output_specs(model: openvino.Model, source: Path) -> tuple[TensorSpec, ...]:
    specs = []
    for name, port in zip(names_of(model.outputs, "output"), model.outputs, strict=True):
        shape = port.get_partial_shape()
        if shape.rank.is_static and not len(shape):
            raise ModelLoadError(f"{source}: output {name!r} is a single value, without a batch axis")
        sizes = _sizes(shape) if shape.rank.is_static else ()
        specs.append(TensorSpec(name, sizes, np.dtype(port.get_element_type().to_dtype())))
    return tuple(specs)


def _sizes(shape: openvino.PartialShape) -> tuple[int | None, ...]:
    return tuple(None if size.is_dynamic else size.get_length() for size in list(shape)[1:])


def _with_outputs(model: openvino.Model, wanted: tuple[str, ...], source: Path) -> openvino.Model:
    if not wanted:
        return model
    known = dict(zip(names_of(model.outputs, "output"), model.outputs, strict=True))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ModelLoadError(f"{source}: has no output {unknown[0]!r}, its outputs are {', '.join(known)}")
    results = [known[name].get_node() for name in wanted]
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


def _freed(model: openvino.Model) -> openvino.Model | None:
    """Gives the model with a free batch axis, None where OpenVINO sees that it depends on its batch."""
    freed = model.clone()
    shapes = {}
    for port in freed.inputs:
        shapes[port] = port.get_partial_shape()
        shapes[port][0] = openvino.Dimension()
    try:
        freed.reshape(shapes)
    except RuntimeError:
        return None
    outputs = [port.get_partial_shape() for port in freed.outputs]
    return freed if all(shape.rank.is_static and len(shape) and shape[0].is_dynamic for shape in outputs) else None


def _properties(model: openvino.Model, options: ModelOptions, source: Path) -> dict[str, Any]:
    if options.precision not in _PRECISION_HINTS:
        raise ModelLoadError(f"precision is {options.precision!r}, wanted is one of {', '.join(_PRECISION_HINTS)}")
    if options.precision == "int8" and not any(op.get_type_name() in _QUANTISED_OPERATORS for op in model.get_ops()):
        raise ModelLoadError(f"{source}: precision int8 needs a model that is quantised already, this one is not")
    # Left to itself, OpenVINO takes bf16 where the CPU has it and is 7.5e-4 off.
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _PRECISION_HINTS[options.precision]}
    if options.device.lower() == "cpu":
        # Pinned, the worker processes of one thread each would all take the same first core.
        properties |= {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
        if threads := engine_threads(options):
            properties["INFERENCE_NUM_THREADS"] = threads
    return properties
