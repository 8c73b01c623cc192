"""TensorFlow Lite models, run by the interpreter inside TensorFlow."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import (
    STRING,
    EngineModel,
    Facts,
    ModelOptions,
    TensorSpec,
    describe,
    engine_threads,
    failed_on,
    only_f32_on_cpu,
    select_outputs,
    whole_shapes,
)
from beam_serving.models.detect import ModelFiles
from beam_serving.models.engines.openvino import read_model
from beam_serving.models.engines.tensorflow import plain, served_type, telling_line
from beam_serving.models.formats.tflite_file import Described, describe_file

_LOG = logging.getLogger(__name__)
_ERRORS = (ValueError, RuntimeError, TypeError)
_SIGNATURE = "serving_default"
Shape = tuple[int | None, ...] | None
Details = Mapping[str, Any]


class _Graph:
    """One interpreter with the graph that is served: the first of the file, or that of its default signature.

    Setting it up is slow, so it is done where the shapes change only.
    """

    def __init__(self, make: Callable[[], tf.lite.Interpreter], signature: str | None) -> None:
        self._interpreter = make()
        self._runner = self._interpreter.get_signature_runner(signature) if signature else None
        self._shapes: list[tuple[int, ...]] | None = None
        self._indices = [[one["index"] for one in some] for some in (self.inputs(), self.outputs())]

    def inputs(self) -> list[Details]:
        """Return what the interpreter says of the inputs."""
        runner = self._runner
        return list(runner.get_input_details().values() if runner else self._interpreter.get_input_details())

    def outputs(self) -> list[Details]:
        """Return what the interpreter says of the outputs; sizes may be another once it is set up."""
        runner = self._runner
        return list(runner.get_output_details().values() if runner else self._interpreter.get_output_details())

    def set_up(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Make room for inputs of these shapes."""
        if self._shapes == list(shapes) or self._runner:
            return
        self._shapes = None
        for index, shape in zip(self._indices[0], shapes, strict=True):
            self._interpreter.resize_tensor_input(index, shape)
        self._interpreter.allocate_tensors()
        self._shapes = list(shapes)

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Infer; the arrays given are copies."""
        if self._runner:
            names = list(self._runner.get_input_details())
            given = self._runner(**dict(zip(names, arrays, strict=True)))
            return [given[name] for name in self._runner.get_output_details()]
        self.set_up([array.shape for array in arrays])
        self._interpreter.reset_all_variables()
        for index, array in zip(self._indices[0], arrays, strict=True):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._indices[1]]


class _Form(NamedTuple):
    """A form of the model: what it takes and gives, and what is left of the outputs of the file."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    places: tuple[int, ...]
    facts: Facts


class TfliteModel:
    """A model and its interpreter, for one thread at a time.

    `anew` makes a graph for each inference, where the state of one lives as long as its interpreter.
    """

    engine = "tensorflow"

    def __init__(
        self,
        graph: _Graph,
        form: _Form,
        freed: Callable[[], EngineModel | None] = lambda: None,
        anew: Callable[[], _Graph] | None = None,
    ) -> None:
        self.inputs = form.inputs
        self.outputs = form.outputs
        self.facts = form.facts
        self._graph = graph
        self._dtypes = [np.dtype(one["dtype"]) for one in graph.inputs()]
        self._places = form.places
        self._freed = freed
        self._anew = anew

    def infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """See `EngineModel.infer`."""
        try:
            graph = self._anew() if self._anew else self._graph
            given = graph.run([_as(array, dtype) for array, dtype in zip(arrays, self._dtypes, strict=True)])
            return [plain(given[place]) for place in self._places]
        except _ERRORS as err:
            raise failed_on(arrays, telling_line(err)) from err

    def freed(self) -> EngineModel | None:
        """See `EngineModel.freed`."""
        return self._freed()

    def compile(self) -> None:
        """See `EngineModel.compile`; the interpreter is set up for the shapes that come."""

    def settle(self) -> None:
        """See `EngineModel.settle`."""


def load_tflite(files: ModelFiles, options: ModelOptions) -> EngineModel:
    """Load a `.tflite` file: its signature `serving_default`, else its first graph.

    Quantised inputs and outputs are its own integers.

    Raises:
        ModelLoadError: the file is damaged, has operators that the interpreter has not or that do more than compute,
            or the options do not fit it.
    """
    path = files.model
    only_f32_on_cpu(options, path, "TensorFlow Lite")
    _refuse_damaged(path)
    try:
        described = describe_file(path.read_bytes())
    except (OSError, ValueError) as err:
        raise ModelLoadError(f"{path}: TensorFlow Lite cannot load it: {err}") from err
    if described.refused:
        raise ModelLoadError(f"{path}: {described.refused}; export it without")
    signature = _SIGNATURE if described.signatures.get(_SIGNATURE, 0) else None
    make = _maker(path, options, keep=bool(described.lasting))
    try:
        graph = _Graph(make, signature)
        specs = _specs(graph.inputs(), "input", path)
        _set_up_if_known(graph)
    except _ERRORS as err:
        raise ModelLoadError(f"{path}: TensorFlow Lite cannot load it: {_reason(err)}") from err
    wanted = whole_shapes(specs, options, path)
    return _model(graph, specs, wanted, described, _Source(path, options, signature, make))


class _Source(NamedTuple):
    path: Path
    options: ModelOptions
    signature: str | None
    make: Callable[[], tf.lite.Interpreter]


def _model(
    graph: _Graph, specs: Sequence[TensorSpec], wanted: Sequence[Shape], described: Described, source: _Source
) -> TfliteModel:
    path, options, signature, make = source
    given = [spec._replace(shape=shape) for spec, shape in zip(specs, wanted, strict=True)]
    if any(spec != other for spec, other in zip(given, specs, strict=True)):
        try:
            if signature:
                raise ValueError("the signature of this file is not its first graph, whose sizes stay")
            graph.set_up([tuple(1 if size is None else size for size in shape or ()) for shape in wanted])
        except _ERRORS as err:
            asked = ", ".join(describe(spec.dtype, spec.shape) for spec in given)
            raise ModelLoadError(
                f"{path}: its operators do not take {asked}: {_reason(err)}; change data: shape"
            ) from err
    names = _unique([_plain_name(one["name"]) for one in graph.outputs()])
    places = tuple(names.index(name) for name in select_outputs(names, options, path))
    details = graph.outputs()
    outputs = _specs([details[place] for place in places], "output", path, described.unranked)
    taken = tuple(spec._replace(name=names[place]) for spec, place in zip(outputs, places, strict=True))
    form = _Form(tuple(given), taken, places, described.facts)
    anew = (lambda: _Graph(make, signature)) if described.lasting else None
    return TfliteModel(graph, form, lambda: None if signature else _freed(form, source, anew is not None), anew)


def _freed(form: _Form, source: _Source, is_anew: bool) -> EngineModel | None:
    """Return the model in an interpreter of its own whose inputs have twice and three times their first size."""
    sizes = {spec.shape[0] for spec in form.inputs if spec.shape}
    if len(sizes) != 1 or None in sizes:
        return None
    shapes: list[list[tuple[int, ...]]] = []
    try:
        graph = _Graph(source.make, None)
        for times in (2, 3):
            graph.set_up([_times(spec.shape, times) for spec in form.inputs])
            shapes.append([tuple(int(size) for size in one["shape"]) for one in graph.outputs()])
    except _ERRORS as err:
        _LOG.debug("%s with a free first axis: %s", source.path, _reason(err))
        return None
    inputs = tuple(spec._replace(shape=(None, *spec.shape[1:]) if spec.shape else spec.shape) for spec in form.inputs)
    outputs = tuple(
        spec._replace(shape=None if spec.shape is None else _common(shapes[0][place], shapes[1][place]))
        for spec, place in zip(form.outputs, form.places, strict=True)
    )
    anew = (lambda: _Graph(source.make, None)) if is_anew else None
    return TfliteModel(graph, form._replace(inputs=inputs, outputs=outputs), anew=anew)


def _times(shape: Shape, times: int) -> tuple[int, ...]:
    known = [1 if size is None else size for size in shape or ()]
    return (known[0] * times, *known[1:]) if known else ()


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> Shape:
    if len(one) != len(other):
        return None
    return tuple(left if left == right else None for left, right in zip(one, other, strict=True))


def _maker(path: Path, options: ModelOptions, keep: bool) -> Callable[[], tf.lite.Interpreter]:
    """Return what makes an interpreter; it maps the file, or has its bytes in order to `keep` being able to."""
    given: dict[str, object] = {"model_content": path.read_bytes()} if keep else {"model_path": str(path)}

    def make() -> tf.lite.Interpreter:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tf.lite.Interpreter(**given, num_threads=engine_threads(options) or None)

    return make


def _set_up_if_known(graph: _Graph) -> None:
    """Set the interpreter up with the sizes of the file, which stand for free ones, too, and may not fit then."""
    shapes = [tuple(int(size) for size in one["shape"]) for one in graph.inputs()]
    try:
        graph.set_up(shapes)
    except _ERRORS as err:
        is_free = any(size < 0 for one in graph.inputs() for size in one["shape_signature"])
        if not is_free or _is_missing_operator(err):
            raise
        _LOG.debug("set up with %s: %s", shapes, _reason(err))


def _is_missing_operator(err: BaseException) -> bool:
    return "unresolved" in str(err).lower() or "Select TensorFlow op" in str(err)


def _reason(err: BaseException) -> str:
    reported = telling_line(err)
    return f"{reported.rstrip('.')}; it is not one of TensorFlow's own" if _is_missing_operator(err) else reported


def _refuse_damaged(path: Path) -> None:
    """Have OpenVINO verify the file: the interpreter (2.21) does not, and one that is cut off ends the process."""
    try:
        read_model(path)
    except ModelLoadError as err:
        if "corrupted or malformed" in str(err):
            raise


def _specs(
    details: Sequence[Details], what: str, path: Path, unranked: frozenset[str] = frozenset()
) -> tuple[TensorSpec, ...]:
    names = _unique([_plain_name(one["name"]) for one in details])
    specs = []
    for name, one in zip(names, details, strict=True):
        dtype = np.dtype(one["dtype"])
        served = STRING if dtype.kind == "S" else served_type(dtype.name)
        if served is None:
            remedy = "name other outputs in model: outputs, or export it without"
            raise ModelLoadError(f"{path}: {what} {name!r} is {dtype.name}, which cannot be sent; {remedy}")
        is_free = not len(one["shape"]) and one["name"] in unranked
        specs.append(TensorSpec(name, None if is_free else _shape(one), served))
    return tuple(specs)


def _shape(one: Details) -> tuple[int | None, ...]:
    """Return the sizes that the interpreter is set up with, None where the file leaves them free."""
    sizes, signature = [int(size) for size in one["shape"]], [int(size) for size in one["shape_signature"]]
    if len(sizes) != len(signature):
        return tuple(sizes)
    return tuple(None if free < 0 else size for size, free in zip(sizes, signature, strict=True))


def _as(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return array if array.dtype == STRING or array.dtype == dtype else array.astype(dtype)


def _plain_name(name: str) -> str:
    return name.removesuffix(":0")


def _unique(names: Sequence[str]) -> list[str]:
    """Tell names that occur more than once apart by a number."""
    given: list[str] = []
    for name in names:
        count = sum(1 for one in names[: len(given)] if one == name)
        new = f"{name}_{count}" if count else name
        while new in given:
            new += "_"
        given.append(new)
    return given
