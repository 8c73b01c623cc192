"""The onnxruntime engine: runs ONNX models that OpenVINO cannot take."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import (
    STRING,
    LoadedModel,
    ModelOptions,
    TensorSpec,
    chosen,
    describe,
    engine_threads,
    fitted,
    only_f32_on_cpu,
)
from beam_serving.models.detect import ModelFiles
from beam_serving.models.fixed_batch import infer_rows

_ERRORS = (
    RuntimeError,
    ValueError,
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


class OnnxRuntimeModel:
    """A session of onnxruntime; several threads may share it."""

    engine = "onnxruntime"

    def __init__(
        self, session: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], fixed_batch: int | None
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._session = session
        self._fixed_batch = fixed_batch
        self._names = [given.name for given in session.get_inputs()]

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `LoadedModel.predict`."""
        rows = infer_rows(self._infer, [batch[spec.name] for spec in self.inputs], self._fixed_batch)
        return {spec.name: column for spec, column in zip(self.outputs, rows, strict=True)}

    def _infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        try:
            wanted = [spec.name for spec in self.outputs]
            return list(self._session.run(wanted, dict(zip(self._names, arrays, strict=True))))
        except _ERRORS as err:
            shapes = ", ".join(describe(array.dtype, array.shape) for array in arrays)
            raise ModelError(f"the model failed on a batch of {shapes}") from err


def load_onnx(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads an ONNX model, and with it the files of weights that it names beside it."""
    path = files.model
    only_f32_on_cpu(options, path, "onnxruntime")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = engine_threads(options)
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except _ERRORS as err:
        raise ModelLoadError(f"{path}: onnxruntime cannot load it: {' '.join(str(err).split())[:300]}") from err
    specs = [_spec(given, "input", path) for given in session.get_inputs()]
    batches = {given.shape[0] for given in session.get_inputs() if isinstance(given.shape[0], int)}
    if len(batches) > 1:
        raise ModelLoadError(f"{path}: its inputs have different batch sizes, {sorted(batches)}")
    outputs = {given.name: _spec(given, "output", path) for given in session.get_outputs()}
    wanted = tuple(outputs[name] for name in chosen(list(outputs), options, path))
    return OnnxRuntimeModel(session, fitted(specs, options, path), wanted, batches.pop() if batches else None)


def _spec(given: Any, what: str, path: Any) -> TensorSpec:
    if given.type not in _DTYPES:
        raise ModelLoadError(f"{path}: {what} {given.name!r} is {given.type}, wanted is one of {', '.join(_DTYPES)}")
    if not given.shape:
        raise ModelLoadError(f"{path}: {what} {given.name!r} is a single value, without a batch axis")
    sizes = tuple(size if isinstance(size, int) else None for size in given.shape[1:])
    return TensorSpec(given.name, sizes, _DTYPES[given.type])
