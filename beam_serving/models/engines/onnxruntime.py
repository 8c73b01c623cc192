"""The onnxruntime engine: ONNX models in the framework whose results are the right ones."""

import mmap
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto
from onnxruntime.capi import onnxruntime_pybind11_state as state

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import (
    STRING,
    Facts,
    ModelOptions,
    TensorSpec,
    engine_threads,
    failed_on,
    only_f32_on_cpu,
)
from beam_serving.models.detect import ModelFiles
from beam_serving.models.formats.onnx_changes import Changed, Port, border_of, changed
from beam_serving.models.formats.onnx_graph import external_files, in_memory, random_operators, read_graph, read_whole

_ERRORS = (
    RuntimeError,
    ValueError,
    MemoryError,
    *(state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoModel, state.NoSuchFile),
    *(state.NotImplemented, state.RuntimeException, state.EPFail),
)
"""What onnxruntime raises; its own classes have no other common base than Exception."""

_DTYPES = {
    "tensor(string)": STRING,
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bool)": np.dtype(np.bool_),
    **{f"tensor({kind}{bits})": np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}
_UNKNOWN_OPERATOR = re.compile(r"(?:Fatal error: )?(\S*):(\w+)\(-?\d+\) is not a registered function/op")
_POSITION = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |/?[\w/.-]+\.(?:cc|h|cpp):\d+ "
    r"(?:[^()]*\([^()]*\)(?: const)?(?:::<lambda\(\)>)?(?: \[with [^\]]*\])? )?"
)
_REASON_CHARACTERS = 300


# It would write an id of the machine into the user's cache.
onnxruntime.disable_telemetry_events()


class OnnxRuntimeModel:
    """A session of onnxruntime, an `EngineModel`; several threads may share it."""

    engine = "onnxruntime"

    def __init__(
        self, session: onnxruntime.InferenceSession, graph: Changed, facts: Facts, path: Path, options: ModelOptions
    ) -> None:
        given = {value.name: value for value in (*session.get_inputs(), *session.get_outputs())}
        self.inputs = tuple(_spec(port, given[port.tensor], "input", path) for port in graph.inputs)
        self.outputs = tuple(_spec(port, given[port.tensor], "output", path) for port in graph.outputs)
        self.facts = facts
        self._session = session
        self._feeds = [port.tensor for port in graph.inputs]
        self._fetches = [port.tensor for port in graph.outputs]
        self._path, self._options = path, options

    def infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """See `EngineModel.infer`."""
        try:
            given = [_as_text(array) if array.dtype == STRING else array for array in arrays]
            return list(self._session.run(self._fetches, dict(zip(self._feeds, given, strict=True))))
        except _ERRORS as err:
            raise failed_on(arrays, first_reason(err)) from err

    def freed(self) -> "OnnxRuntimeModel | None":
        """See `EngineModel.freed`."""
        if not any(spec.shape and spec.shape[0] is not None for spec in self.inputs):
            return None
        try:
            return _load(self._path, self._options, free=True)
        except ModelLoadError:
            return None

    def compile(self) -> None:
        """See `EngineModel.compile`; a session is ready when it is made."""

    def settle(self) -> None:
        """See `EngineModel.settle`."""


def load_onnx(files: ModelFiles, options: ModelOptions) -> OnnxRuntimeModel:
    """Load an ONNX model, and with it the files of weights that it names beside it.

    Raises:
        ModelLoadError: it is damaged, has something that onnxruntime or NumPy lacks, or not what the options ask for.
    """
    only_f32_on_cpu(options, files.model, "onnxruntime")
    try:
        return _load(files.model, options)
    except UnicodeDecodeError as err:
        # Protobuf reads names as they are needed.
        raise ModelLoadError(f"{files.model}: is damaged: a name in it is no UTF-8 text ({err.reason})") from err


def _load(
    path: Path, options: ModelOptions, free: bool = False, types: Mapping[str, int] | None = None
) -> OnnxRuntimeModel:
    graph = changed(read_graph(path), options, path, free, types)
    files = external_files(graph.model, path)
    facts = Facts(random=random_operators(graph.model), class_names=graph.class_names)
    whole = changed(read_whole(path), options, path, free, types).model if graph.is_changed else None
    session = _session(path, whole.SerializeToString() if whole is not None else None, files, options)
    found = _types_without_numpy(session, graph)
    if found and not types:
        return _load(path, options, free, found)
    return OnnxRuntimeModel(session, graph, facts, path, options)


def _session(
    path: Path, content: bytes | None, files: Mapping[str, Path], options: ModelOptions
) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = engine_threads(options)
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    if files and content is not None:
        settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    # onnxruntime (1.32) finds no real path of a file in memory.
    hidden = {name: _mapped(file) for name, file in files.items() if in_memory(file, path)}
    if hidden:
        settings.add_external_initializers_from_files_in_memory(
            list(hidden), list(hidden.values()), [len(view) for view in hidden.values()]
        )
    try:
        source: str | bytes = str(path) if content is None else content
        # Its fallback would try the same again, and print what it does.
        return onnxruntime.InferenceSession(source, settings, providers=["CPUExecutionProvider"], enable_fallback=0)
    except _ERRORS as err:
        raise ModelLoadError(f"{path}: onnxruntime cannot load it: {first_reason(err)}") from err


def _mapped(file: Path) -> memoryview:
    if not file.stat().st_size:
        return memoryview(b"")
    with file.open("rb") as opened:
        return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))


def _types_without_numpy(session: onnxruntime.InferenceSession, graph: Changed) -> dict[str, int]:
    """Return the types, by output, that must be cast but of which the file said nothing."""
    kinds = {f"tensor({name.lower()})": number for name, number in TensorProto.DataType.items()}
    types = {given.name: kinds.get(given.type, 0) for given in session.get_outputs()}
    return {port.name: types[port.tensor] for port in graph.outputs if border_of(types[port.tensor])}


def _spec(port: Port, given: onnxruntime.NodeArg, what: str, path: Path) -> TensorSpec:
    if given.type not in _DTYPES:
        remedy = "choose others with model: outputs" if what == "output" else "export the model with plain tensors"
        raise ModelLoadError(
            f"{path}: {what} {port.name!r} is {given.type}; wanted are tensors of numbers or text, {remedy}"
        )
    sizes = tuple(size if isinstance(size, int) else None for size in given.shape)
    # onnxruntime says the same of a single value and of an unknown shape.
    return TensorSpec(port.name, sizes or port.shape, _DTYPES[given.type], port.below)


def _as_text(array: np.ndarray) -> np.ndarray:
    """Return text as `str`: onnxruntime would take the notation of a Python value for anything else."""
    texts = np.empty(array.shape, STRING)
    for place, value in np.ndenumerate(array):
        texts[place] = value.decode() if isinstance(value, bytes) else value
        if not isinstance(texts[place], str):
            raise ValueError(f"{value!r} is no text")
    return texts


def first_reason(err: BaseException) -> str:
    """Take the telling part of an error of onnxruntime, without the positions in its own source."""
    text = " ".join(str(err).split())
    if unknown := _UNKNOWN_OPERATOR.search(text):
        domain, operator = unknown.groups()
        return f"it has no operator {operator!r} of the domain {domain!r}; export the model with operators of ONNX"
    return (_POSITION.sub("", text) or type(err).__name__)[:_REASON_CHARACTERS]
