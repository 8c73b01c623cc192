"""Caffe's `.prototxt` + `.caffemodel`, run by OpenCV: for nets that our own reader cannot give to OpenVINO."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import (
    EngineModel,
    Facts,
    ModelOptions,
    TensorSpec,
    engine_threads,
    failed_on,
    only_f32_on_cpu,
    whole_shapes,
)
from beam_serving.models.detect import ModelFiles
from beam_serving.models.formats.caffe.message import Message
from beam_serving.models.formats.caffe.textformat import parse_text

_FLOAT32 = np.dtype(np.float32)


class NetInput(NamedTuple):
    """One input of a net: `shape` has the batch axis first and is None where the file does not say it."""

    name: str
    shape: tuple[int, ...] | None


class CaffeModel:
    """A Caffe net in OpenCV. Two threads in one net abort the process: one instance, one thread."""

    engine = "opencv"
    facts = Facts()

    def __init__(
        self,
        net: cv2.dnn.Net,
        inputs: tuple[TensorSpec, ...],
        output_names: tuple[str, ...],
        outputs: tuple[TensorSpec, ...] = (),
    ) -> None:
        self._net = net
        self._output_names = output_names
        self.inputs = inputs
        # OpenCV finds missing weights only when it runs, so the trial is also the check of the files.
        self.outputs = outputs or tuple(
            TensorSpec(name, array.shape, array.dtype)
            for name, array in zip(output_names, self.infer([_zeros(spec) for spec in inputs]), strict=True)
        )

    def infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """See `EngineModel.infer`."""
        try:
            for spec, array in zip(self.inputs, arrays, strict=True):
                self._net.setInput(array, spec.name)
            return list(self._net.forward(self._output_names))
        except cv2.error as err:
            raise failed_on(arrays, _first_reason(err)) from err

    def freed(self) -> EngineModel:
        """See `EngineModel.freed`."""
        return CaffeModel(self._net, _free(self.inputs), self._output_names, _free(self.outputs))

    def compile(self) -> None:
        """See `EngineModel.compile`."""

    def settle(self) -> None:
        """See `EngineModel.settle`."""


def _zeros(spec: TensorSpec) -> np.ndarray:
    return np.zeros([size or 1 for size in spec.shape or ()], spec.dtype)


def _free(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple(spec._replace(shape=(None, *(spec.shape or ())[1:])) for spec in specs)


def load_caffe(files: ModelFiles, options: ModelOptions) -> EngineModel:
    """Load a Caffe net; its inputs and their shapes are those of the `.prototxt`."""
    path = files.model
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise ModelLoadError(f"{path}: OpenCV 5 reads no Caffe: pip install 'opencv-python-headless>=4.14,<5'")
    only_f32_on_cpu(options, path, "OpenCV")
    specs = [TensorSpec(one.name, one.shape, _FLOAT32) for one in _inputs(path)]
    shapes = whole_shapes(specs, options, path)
    if without := [spec.name for spec, shape in zip(specs, shapes, strict=True) if shape is None]:
        raise ModelLoadError(f"{path}: input {without[0]!r} has no shape in the file; set data: shape")
    try:
        net = cv2.dnn.readNetFromCaffe(str(path), str(files.weights))
        output_names = tuple(net.getUnconnectedOutLayersNames())
        _check_outputs(path, options.output_names, net.getLayerNames())
        if threads := engine_threads(options):
            cv2.setNumThreads(threads)
        inputs = tuple(spec._replace(shape=shape) for spec, shape in zip(specs, shapes, strict=True))
        return CaffeModel(net, inputs, options.output_names or output_names)
    except (cv2.error, ModelError) as err:
        reason = _first_reason(err.__cause__ or err)
        raise ModelLoadError(f"{path}: OpenCV cannot run it with {files.weights}: {reason}") from err


def _inputs(path: Path) -> list[NetInput]:
    try:
        inputs = net_inputs(parse_text(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as err:
        raise ModelLoadError(f"{path}: is no readable prototxt: {err}") from err
    if not inputs:
        raise ModelLoadError(f"{path}: has no input; wanted is a layer of the type Input (a deploy.prototxt)")
    return inputs


def net_inputs(net: Message) -> list[NetInput]:
    """Find the inputs of a net: layers of the type Input or Data, or the older top-level fields.

    It takes more than the reader for OpenVINO does: inputs without a shape, too, and layers that nobody knows.
    """
    dims = net.integers("input_dim")
    shapes = [_dims(shape) for shape in net.messages("input_shape")]
    shapes += [tuple(dims[start : start + 4]) for start in range(0, len(dims), 4)]
    inputs = _paired(net.texts("input"), shapes)
    for layer in (*net.messages("layer"), *net.messages("layers")):
        if not layer.has("bottom") and layer.text("type", "").lower().endswith(("input", "data")):
            tops = [top for top in layer.texts("top") if top != "label"]
            shapes = [_dims(shape) for shape in layer.message("input_param").messages("shape")]
            inputs += _paired(tops, shapes * len(tops) if len(shapes) == 1 else shapes)
    return inputs


def _dims(shape: Message) -> tuple[int, ...]:
    return tuple(shape.integers("dim"))


def _paired(names: list[str], shapes: list[tuple[int, ...]]) -> list[NetInput]:
    return [NetInput(name, shapes[place] if place < len(shapes) else None) for place, name in enumerate(names)]


def _check_outputs(path: Path, wanted: tuple[str, ...], known: Sequence[str]) -> None:
    if unknown := [name for name in wanted if name not in known]:
        raise ModelLoadError(f"{path}: has no layer {unknown[0]!r}, its layers are {', '.join(known)}")


def _first_reason(err: BaseException) -> str:
    """Take OpenCV's reason without the version and the source position in front of it."""
    text = " ".join(str(err).split())
    return text.split("error: ", 1)[-1]
