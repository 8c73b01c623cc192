"""The OpenVINO engine: whatever has become an `openvino.Model` is compiled and run here, for every format."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from itertools import filterfalse
from pathlib import Path

import numpy as np
import openvino
from openvino import frontend
from openvino import opset13 as opset
from openvino.preprocess import PrePostProcessor

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import (
    STRING,
    EngineModel,
    Facts,
    ModelOptions,
    TensorSpec,
    engine_threads,
    ensure_writable,
    failed_on,
    numbered,
    whole_shapes,
)
from beam_serving.models.engines.openvino_int8 import compress_weights
from beam_serving.models.engines.openvino_rules import facts_of, table_sizes

OPENVINO_ERRORS = (
    RuntimeError,
    *(IndexError, OverflowError, MemoryError, ValueError),
    frontend.GeneralFailure,
    frontend.InitializationFailure,
    frontend.NotImplementedFailure,
    frontend.OpConversionFailure,
    frontend.OpValidationFailure,
)
"""What OpenVINO raises when it refuses a model; the classes have no other common base than Exception."""

_PRECISION_HINTS = {"f32": "f32", "bf16": "bf16", "int8": "f32"}
_KNOWN_SHAPES = 10_000
_WIDENED_BYTES = 64 << 20
_OF_SOURCE = re.compile(r"^(Caught exception: )?Exception from|(^|\s)Check '.*' failed at \S+$|^FrontEnd API failed")
_NO_REASONS = ("While validating", "Model wasn't fully converted", "Loading input model")
_OF_OPERATOR = re.compile(r"-- (\S+)-\d+ with a message:")
"""Names the operator, and the version of its operator set, that the next lines are about."""
_OWN_NAME = re.compile(r"(Parameter|Result)_\d+")
_32_BITS = 2**31
_TYPE = openvino.Type
_PLAIN_TYPES = {
    **dict.fromkeys((_TYPE.bf16, _TYPE.f8e4m3, _TYPE.f8e5m2, _TYPE.f8e8m0, _TYPE.nf4, _TYPE.f4e2m1), _TYPE.f32),
    **dict.fromkeys((_TYPE.u1, _TYPE.u2, _TYPE.u3, _TYPE.u4, _TYPE.u6), _TYPE.u8),
    _TYPE.i4: _TYPE.i8,
}
"""What leaves and enters a model in place of a type that NumPy lacks: the smallest that holds each of its values."""


class OpenVinoModel:
    """A model in OpenVINO, compiled when it is first needed, and its one inference request: for one thread at a time.

    It is compiled anew after a failure: after an input whose free sizes do not fit, the CPU plugin (2026.4) goes on to
    fail for inputs that do. Models without such sizes do not get there, so theirs is not kept beside the compiled one;
    and only they have a second form for batches of `full_batch` rows, which saves about a tenth of the time and costs
    a second copy of the weights.
    """

    engine = "openvino"

    def __init__(
        self,
        model: openvino.Model,
        options: ModelOptions,
        source: Path,
        names: tuple[list[str], list[str]],
        tables: Mapping[int, int],
    ) -> None:
        self._tables = tables
        self.inputs = tuple(
            _bounded(_spec(port, name), tables.get(place))
            for place, (port, name) in enumerate(zip(model.inputs, names[0], strict=True))
        )
        self.outputs = tuple(_spec(port, name) for port, name in zip(model.outputs, names[1], strict=True))
        self.facts = Facts()
        self._names = names
        self._source = source
        self._options = options
        self._model = model
        self._has_free_sizes = any(spec.shape is None or None in spec.shape[1:] for spec in self.inputs)
        self._known_shapes: set[tuple[tuple[int, ...], ...]] = set()
        self._request: openvino.InferRequest | None = None
        self._full_request: openvino.InferRequest | None = None

    def compile(self) -> None:
        """See `EngineModel.compile`."""
        self._compiled_request()

    def _compiled_request(self) -> openvino.InferRequest:
        if self._request is None:
            try:
                self._request = self._compiled(self._model)
                full = None if self._has_free_sizes else _of_batch(self._model, self._options.full_batch)
                self._full_request = self._compiled(full) if full else None
            except OPENVINO_ERRORS as err:
                raise ModelLoadError(f"{self._source}: OpenVINO cannot compile it: {first_reason(err)}") from err
        return self._request

    def settle(self) -> None:
        """See `EngineModel.settle`."""
        if not self._has_free_sizes:
            self._model = None

    def freed(self) -> EngineModel | None:
        """See `EngineModel.freed`."""
        freed = _freed(self._model) if self._model is not None else None
        if freed is None:
            return None
        model = OpenVinoModel(freed, self._options, self._source, self._names, self._tables)
        model.facts = self.facts
        return model

    def widened(self, threads: int) -> EngineModel | None:
        """See `Widening.widened`: of models with fixed sizes, whose second copy of the weights is small."""
        if self._model is None or self._has_free_sizes or self._options.device.lower() != "cpu":
            return None
        one = _of_batch(self._model, 1) if _constant_bytes(self._model) <= _WIDENED_BYTES else None
        if one is None:
            return None
        options = dataclasses.replace(self._options, threads=threads, full_batch=None)
        widened = OpenVinoModel(one, options, self._source, self._names, self._tables)
        widened.facts = self.facts
        return widened

    def infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """See `EngineModel.infer`."""
        any_batch = self._compiled_request()
        self._check_shapes(arrays)
        rows = len(arrays[0]) if arrays and arrays[0].ndim else 0
        request = self._full_request if self._full_request and rows == self._options.full_batch else any_batch
        try:
            # The request does not keep what it reads in place: without `held`, a copy of read-only input would be gone.
            held = [array.astype(str) if array.dtype == STRING else ensure_writable(array) for array in arrays]
            for position, array in enumerate(held):
                request.set_input_tensor(position, _tensor(array))
            if self.facts.state:
                request.reset_state()
            # Not infer(): on one thread it swallows what the plugin throws (2026.4) and leaves the outputs of the
            # batch before, someone else's. This is faster, too.
            request.start_async(share_inputs=True)
            request.wait()
            return [_owned(request.get_output_tensor(position)) for position in range(len(self.outputs))]
        except OPENVINO_ERRORS as err:
            if self._has_free_sizes:
                self._request = None
            raise failed_on(arrays, first_reason(err)) from err

    def _check_shapes(self, arrays: list[np.ndarray]) -> None:
        """Refuse sizes that do not fit the graph: the CPU plugin (2026.4) reads behind a matrix that is too narrow.

        Raises:
            ModelError: they do not fit.
        """
        shapes = tuple(array.shape for array in arrays)
        if self._model is None or not self._has_free_sizes or shapes in self._known_shapes:
            return
        changed = self._model.clone()
        try:
            changed.reshape(dict(zip(changed.inputs, map(openvino.PartialShape, map(list, shapes)), strict=True)))
        except RuntimeError as err:
            raise failed_on(arrays, first_reason(err)) from err
        if len(self._known_shapes) < _KNOWN_SHAPES:
            self._known_shapes.add(shapes)

    def _compiled(self, model: openvino.Model) -> openvino.InferRequest:
        core = openvino.Core()
        return core.compile_model(
            model, self._options.device.upper(), _properties(self._options)
        ).create_infer_request()


def _spec(port: openvino.Output, name: str) -> TensorSpec:
    kind = port.get_element_type()
    shape = port.get_partial_shape()
    sizes = None if shape.rank.is_dynamic else tuple(None if size.is_dynamic else size.get_length() for size in shape)
    is_long = kind in (openvino.Type.i64, openvino.Type.u64, openvino.Type.u32)
    below = _32_BITS if is_long and port.get_node().get_type_name() == "Parameter" else None
    return TensorSpec(name, sizes, STRING if kind == openvino.Type.string else np.dtype(kind.to_dtype()), below)


def _bounded(spec: TensorSpec, table_size: int | None) -> TensorSpec:
    """Bound the integers that are looked up in a table to those that it has a row for."""
    if table_size is None or spec.dtype.kind not in "iu":
        return spec
    return spec._replace(below=min(table_size, spec.below or table_size))


def _tensor(array: np.ndarray) -> openvino.Tensor:
    # Text is always copied.
    return openvino.Tensor(array) if array.dtype.kind == "U" else openvino.Tensor(array, shared_memory=True)


def _owned(tensor: openvino.Tensor) -> np.ndarray:
    if tensor.element_type == openvino.Type.string:
        texts: np.ndarray = tensor.str_data.astype(STRING)
        return texts
    return np.array(tensor.data)


def read_model(model: Path, weights: Path | None = None) -> openvino.Model:
    """Read a file of a format that OpenVINO reads by itself.

    Raises:
        ModelLoadError: OpenVINO cannot read it; the message has its reason.
    """
    try:
        return openvino.Core().read_model(model, weights or "")
    except OPENVINO_ERRORS as err:
        raise ModelLoadError(f"{model}: OpenVINO cannot read it: {first_reason(err)}") from err


def compile_model(model: openvino.Model, options: ModelOptions, source: Path) -> OpenVinoModel:
    """Make a model ready to be compiled for serving, with one stream and no CPU pinning.

    `source` is the file that messages name.

    Raises:
        ModelLoadError: the options do not fit the model, or it leaves open how many axes an input has.
    """
    _properties(options)
    try:
        model = _with_outputs(model, options.output_names, source)
        names = names_of(model.inputs, "input"), names_of(model.outputs, "output")
        _set_shapes(model, names[0], options, source)
        _refuse_unknown_ranks(model, names[0], source)
        facts, tables = facts_of(model), table_sizes(model)
        model = _with_plain_types(model)
        if options.precision == "int8":
            compress_weights(model, source)
        compiled = OpenVinoModel(model, options, source, names, tables)
    except OPENVINO_ERRORS as err:
        raise ModelLoadError(f"{source}: OpenVINO cannot compile it: {first_reason(err)}") from err
    compiled.facts = facts
    return compiled


def first_reason(err: BaseException) -> str:
    """Take the telling line of an OpenVINO error, which starts with positions in OpenVINO's own source."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    unknown = [line.removeprefix("-- ") for line in lines if line.startswith("-- No conversion rule")]
    telling = [line for line in lines if not _OF_SOURCE.search(line)]
    reasons = [line for line in telling if not line.startswith(_NO_REASONS)]
    operator = _OF_OPERATOR.fullmatch(reasons[0]) if len(reasons) > 1 else None
    if operator:
        reasons = [f"{operator[1]}: {reasons[1]}"]
    return (unknown or reasons or telling or lines or [type(err).__name__])[0][:300]


def names_of(ports: Sequence[openvino.Output], fallback: str) -> list[str]:
    """Name inputs or outputs as the file names the tensors, without the `:0` of TensorFlow; else by position.

    OpenVINO's own names for what has none carry a counter of the process, and count as none.
    """
    names = []
    for port, unnamed in zip(ports, numbered(fallback, len(ports)), strict=True):
        known = sorted(filterfalse(_OWN_NAME.fullmatch, port.get_names()), key=lambda name: (len(name), name))
        friendly = port.get_node().get_friendly_name()
        chosen = friendly if friendly in known else next(iter(known), unnamed)
        names.append(chosen.removesuffix(":0"))
    return names if len(set(names)) == len(names) else numbered(fallback, len(ports))


def _with_outputs(model: openvino.Model, wanted: tuple[str, ...], source: Path) -> openvino.Model:
    """Return the model with these outputs only: its own, or tensors inside it by the names that the file gives them."""
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
    return openvino.Model(results, model.get_sinks(), model.get_parameters(), model.get_friendly_name())


def _set_shapes(model: openvino.Model, names: list[str], options: ModelOptions, source: Path) -> None:
    specs = [_spec(port, name) for port, name in zip(model.inputs, names, strict=True)]
    wanted = whole_shapes(specs, options, source)
    changed = {
        port: openvino.PartialShape(
            [openvino.Dimension() if size is None else openvino.Dimension(size) for size in shape]
        )
        for port, spec, shape in zip(model.inputs, specs, wanted, strict=True)
        if shape is not None and shape != spec.shape
    }
    if not changed:
        return
    try:
        model.reshape(changed)
    except RuntimeError as err:
        sizes = "; ".join(f"{name} {list(shape or ())}" for name, shape in zip(names, wanted, strict=True))
        raise ModelLoadError(
            f"{source}: data: shape does not fit the model, whose inputs would be {sizes}: {first_reason(err)}"
        ) from err


def _refuse_unknown_ranks(model: openvino.Model, names: list[str], source: Path) -> None:
    for port, name in zip(model.inputs, names, strict=True):
        if port.get_partial_shape().rank.is_dynamic:
            raise ModelLoadError(
                f"{source}: input {name!r} has no shape in the file, and OpenVINO needs its number of axes; "
                "set data: shape"
            )


def _with_plain_types(model: openvino.Model) -> openvino.Model:
    """Convert inputs and outputs whose types NumPy lacks, inside the model."""
    odd_inputs = [(place, port) for place, port in enumerate(model.inputs) if port.get_element_type() in _PLAIN_TYPES]
    odd_outputs = [(place, port) for place, port in enumerate(model.outputs) if port.get_element_type() in _PLAIN_TYPES]
    if not odd_inputs and not odd_outputs:
        return model
    steps = PrePostProcessor(model)
    for place, port in odd_inputs:
        steps.input(place).tensor().set_element_type(_PLAIN_TYPES[port.get_element_type()])
    for place, port in odd_outputs:
        steps.output(place).tensor().set_element_type(_PLAIN_TYPES[port.get_element_type()])
    return steps.build()


def _of_batch(model: openvino.Model, size: int | None) -> openvino.Model | None:
    """Return the model with this batch size; None where its graph does not allow it."""
    changed = model.clone()
    shapes = {port: port.get_partial_shape() for port in changed.inputs}
    if not size or any(shape.rank.is_dynamic or not len(shape) for shape in shapes.values()):
        return None
    for port in shapes:
        shapes[port][0] = openvino.Dimension(size)
    try:
        changed.reshape(shapes)
    except RuntimeError:
        return None
    return changed


def _constant_bytes(model: openvino.Model) -> int:
    return sum(op.get_byte_size() for op in model.get_ops() if op.get_type_name() == "Constant")


def _freed(model: openvino.Model) -> openvino.Model | None:
    """Return the model with a free batch axis, None where OpenVINO sees that it depends on its batch."""
    changed = model.clone()
    shapes = {port: port.get_partial_shape() for port in changed.inputs}
    if any(shape.rank.is_dynamic or not len(shape) for shape in shapes.values()):
        return None
    for port in shapes:
        shapes[port][0] = openvino.Dimension()
    try:
        changed.reshape(shapes)
    except RuntimeError:
        return None
    outputs = [port.get_partial_shape() for port in changed.outputs]
    return changed if all(shape.rank.is_static and len(shape) and shape[0].is_dynamic for shape in outputs) else None


def _properties(options: ModelOptions) -> dict[str, str | int]:
    if options.precision not in _PRECISION_HINTS:
        raise ModelLoadError(f"precision is {options.precision!r}, wanted is one of {', '.join(_PRECISION_HINTS)}")
    # Left to itself, OpenVINO takes bf16 where the CPU has it and is 7.5e-4 off.
    properties: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": _PRECISION_HINTS[options.precision]}
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
