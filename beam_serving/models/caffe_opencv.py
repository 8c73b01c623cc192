"""Caffe's `.prototxt` + `.caffemodel`, run by OpenCV."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions, TensorSpec, describe, engine_threads
from beam_serving.models.detect import ModelFiles
from beam_serving.models.fixed_batch import agree, infer_rows
from beam_serving.models.prototxt import NetInput, net_inputs, parse

_FLOAT32 = np.dtype(np.float32)


class CaffeModel:
    """A Caffe net in OpenCV. Two threads in one net abort the process: one instance, one thread."""

    engine = "opencv"

    def __init__(self, net: Any, inputs: tuple[TensorSpec, ...], output_names: tuple[str, ...], batch: int) -> None:
        self._net = net
        self.inputs = inputs
        self._output_names = output_names
        # OpenCV finds missing weights only when it runs, so the trial is also the check of the files.
        trial = self._infer([np.zeros((batch, *(size or 1 for size in spec.shape)), spec.dtype) for spec in inputs])
        self._fixed_batch = None if agree(self._infer, self._infer, inputs, batch) else batch
        self.outputs = tuple(
            TensorSpec(name, rows.shape[1:], rows.dtype) for name, rows in zip(output_names, trial, strict=True)
        )

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `LoadedModel.predict`."""
        arrays = [batch[spec.name] for spec in self.inputs]
        rows = infer_rows(self._infer, arrays, self._fixed_batch)
        return dict(zip(self._output_names, rows, strict=True))

    def _infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        try:
            for spec, array in zip(self.inputs, arrays, strict=True):
                self._net.setInput(array, spec.name)
            return list(self._net.forward(self._output_names))
        except cv2.error as err:
            shapes = ", ".join(describe(array.dtype, array.shape) for array in arrays)
            raise ModelError(f"the model failed on a batch of {shapes}") from err


def load_caffe(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads a Caffe net; its inputs and their shapes are those of the `.prototxt`."""
    path = files.model
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise ModelLoadError(f"{path}: OpenCV 5 reads no Caffe: pip install 'opencv-python-headless>=4.14,<5'")
    if options.precision != "f32" or options.device.lower() != "cpu":
        asked = f"{options.precision} on {options.device}"
        raise ModelLoadError(f"{path}: {asked} is asked for, Caffe models run in f32 on cpu only")
    inputs = _inputs(path, options)
    try:
        net = cv2.dnn.readNetFromCaffe(str(path), str(files.weights))
        output_names = tuple(net.getUnconnectedOutLayersNames())
        _check_outputs(path, options.output_names, net.getLayerNames())
        if threads := engine_threads(options):
            cv2.setNumThreads(threads)
        specs = tuple(TensorSpec(one.name, (one.shape or ())[1:], _FLOAT32) for one in inputs)
        batch = max(1, (inputs[0].shape or (1,))[0])
        return CaffeModel(net, specs, options.output_names or output_names, batch)
    except (cv2.error, ModelError) as err:
        reason = _first_reason(err.__cause__ or err)
        raise ModelLoadError(f"{path}: OpenCV cannot run it with {files.weights}: {reason}") from err


def _inputs(path: Path, options: ModelOptions) -> list[NetInput]:
    try:
        inputs = net_inputs(parse(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as err:
        raise ModelLoadError(f"{path}: is no readable prototxt: {err}") from err
    if not inputs:
        raise ModelLoadError(f"{path}: has no input; wanted is a layer of the type Input (a deploy.prototxt)")
    if options.input_shape and len(inputs) == 1:
        batch = (inputs[0].shape or (1,))[0]
        inputs = [NetInput(inputs[0].name, (batch, *options.input_shape))]
    if without := [one.name for one in inputs if not one.shape]:
        raise ModelLoadError(f"{path}: input {without[0]!r} has no shape in the file; set input_shape")
    return inputs


def _check_outputs(path: Path, wanted: tuple[str, ...], known: Sequence[str]) -> None:
    if unknown := [name for name in wanted if name not in known]:
        raise ModelLoadError(f"{path}: has no layer {unknown[0]!r}, its layers are {', '.join(known)}")


def _first_reason(err: BaseException) -> str:
    """Takes OpenCV's reason without the version and the source position in front of it."""
    text = " ".join(str(err).split())
    return text.split("error: ", 1)[-1]
