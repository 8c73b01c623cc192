"""Writes the benchmark's network in every model format: one module per framework, imported when its turn comes."""

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from benchmarks.mobilenet import Network

Write = Callable[[Network, Path], None]


class Writer(NamedTuple):
    """What writes a format, as `module:function`; what that and the plain loop need, and what installs this.

    `framework` is what its plain loop runs in, and `engine` the engine of ours that uses the same, "" for none.
    """

    function: str
    framework: str
    engine: str
    needs: tuple[str, ...] = ()
    remedy: str = ""

    @property
    def installed(self) -> bool:
        """Whether all is there; nothing is imported for that."""
        return all(find_spec(name) for name in self.needs)


_ONNX = (("onnx", "onnxruntime"), "pip install onnx onnxruntime")
_TENSORFLOW = (("tensorflow",), "pip install 'beam-serving[tensorflow]'")
_TORCH = (("torch",), "pip install 'beam-serving[torch]'")

WRITERS = {
    "openvino": Writer("openvino_ir:write", "OpenVINO", ""),
    "onnx": Writer("onnx_graph:write", "onnxruntime", "onnxruntime", *_ONNX),
    "tensorflow_frozen": Writer("keras_layers:write_frozen", "TensorFlow function", "tensorflow", *_TENSORFLOW),
    "tensorflow_saved_model": Writer(
        "keras_layers:write_saved_model", "TensorFlow signature", "tensorflow", *_TENSORFLOW
    ),
    "tflite": Writer("keras_layers:write_tflite", "TensorFlow Lite interpreter", "tensorflow", *_TENSORFLOW),
    "keras": Writer("keras_layers:write_keras", "Keras model", "tensorflow", *_TENSORFLOW),
    "torchscript": Writer("torch_module:write_torchscript", "torch.jit module", "torch", *_TORCH),
    "torch_export": Writer("torch_module:write_program", "torch.export module", "torch", *_TORCH),
    "caffe": Writer("caffe_net:write", "OpenCV net", "opencv"),
    "bigdl": Writer("bigdl_module:write", "OpenVINO, the same network", ""),
}
"""By the name of the format, see `models.formats`."""


def write(network: Network, form: str, folder: Path) -> None:
    """Write the network in a format into a folder of its own."""
    module_name, _, function_name = WRITERS[form].function.partition(":")
    function: Write = getattr(importlib.import_module(f"{__name__}.{module_name}"), function_name)
    function(network, folder)
