"""TensorFlow Lite models, run by the interpreter inside TensorFlow where OpenVINO cannot take them."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import (
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
from beam_serving.models.fixed_batch import agree, infer_rows
from beam_serving.models.openvino_engine import read_model

_ERRORS = (ValueError, RuntimeError, TypeError)


class TfliteModel:
    """An interpreter, which is for one thread at a time; it is set up anew where the shapes change."""

    engine = "tensorflow"

    def __init__(self, interpreter: Any, inputs: tuple[TensorSpec, ...], output_names: list[str], batch: int) -> None:
        self.inputs = inputs
        self._interpreter = interpreter
        self._shapes: list[tuple[int, ...]] = []
        details = {_plain(one["name"]): one for one in interpreter.get_output_details()}
        self._outputs = [details[name]["index"] for name in output_names]
        self.outputs = tuple(
            TensorSpec(name, tuple(_sizes(details[name])), np.dtype(details[name]["dtype"])) for name in output_names
        )
        self._fixed_batch = None if agree(self._infer, self._infer, inputs, batch) else batch

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `LoadedModel.predict`."""
        rows = infer_rows(self._infer, [batch[spec.name] for spec in self.inputs], self._fixed_batch)
        return {spec.name: column for spec, column in zip(self.outputs, rows, strict=True)}

    def _infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        indices = [one["index"] for one in self._interpreter.get_input_details()]
        try:
            if self._shapes != [array.shape for array in arrays]:
                self._shapes = []
                for index, array in zip(indices, arrays, strict=True):
                    self._interpreter.resize_tensor_input(index, array.shape)
                self._interpreter.allocate_tensors()
                self._shapes = [array.shape for array in arrays]
            for index, array in zip(indices, arrays, strict=True):
                self._interpreter.set_tensor(index, array)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._outputs]
        except _ERRORS as err:
            shapes = ", ".join(describe(array.dtype, array.shape) for array in arrays)
            raise ModelError(f"the model failed on a batch of {shapes}") from err


def load_tflite(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads a `.tflite` file; quantised inputs and outputs are its own integers."""
    path = files.model
    only_f32_on_cpu(options, path, "TensorFlow Lite")
    _refuse_damaged(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            interpreter = tf.lite.Interpreter(str(path), num_threads=engine_threads(options) or None)
        interpreter.allocate_tensors()
    except _ERRORS as err:
        raise ModelLoadError(f"{path}: TensorFlow Lite cannot load it: {str(err).splitlines()[0][:300]}") from err
    details = interpreter.get_input_details()
    if without := [_plain(one["name"]) for one in details if not len(one["shape_signature"])]:
        raise ModelLoadError(f"{path}: input {without[0]!r} is a single value, without a batch axis")
    specs = [TensorSpec(_plain(one["name"]), tuple(_sizes(one)), np.dtype(one["dtype"])) for one in details]
    names = chosen([_plain(one["name"]) for one in interpreter.get_output_details()], options, path)
    return TfliteModel(interpreter, fitted(specs, options, path), names, int(details[0]["shape"][0]))


def _refuse_damaged(path: Path) -> None:
    """Has OpenVINO verify the file: the interpreter (2.21) does not, and one that is cut off ends the process."""
    try:
        read_model(path)
    except ModelLoadError as err:
        if "corrupted or malformed" in str(err):
            raise


def _plain(name: str) -> str:
    return name.removesuffix(":0")


def _sizes(detail: Any) -> list[int | None]:
    return [None if size < 0 else int(size) for size in detail["shape_signature"][1:]]
