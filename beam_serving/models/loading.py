"""From the files of a model to a model ready to predict."""

import importlib
from collections.abc import Callable

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.detect import NOOP, ModelFiles

Loader = Callable[[ModelFiles, ModelOptions], LoadedModel]

# Names, not functions: a loader's module imports its framework, which only the worker that serves the model pays for.
_LOADERS = {
    "openvino": ("beam_serving.models.openvino_ir", "load_openvino_ir"),
    "tensorflow_frozen": ("beam_serving.models.tensorflow_frozen", "load_frozen_graph"),
    "torchscript": ("beam_serving.models.torchscript", "load_torchscript"),
    "caffe": ("beam_serving.models.caffe", "load_caffe"),
    NOOP: ("beam_serving.models.noop", "load_noop"),
}


# What is missing, and what installs it.
_REMEDIES = {
    "torch": "pip install 'beam-serving[torch]'",
    "openvino": "pip install openvino",
    "cv2": "pip install 'opencv-python-headless>=4.14,<5'",
}


def load(files: ModelFiles, options: ModelOptions | None = None) -> LoadedModel:
    """Loads a model that `find_model` found.

    Raises:
        ModelLoadError: the files are damaged, a framework is missing, or the options do not fit the model.
    """
    module_name, function_name = _LOADERS[files.format]
    try:
        loader: Loader = getattr(importlib.import_module(module_name), function_name)
        return loader(files, options or ModelOptions())
    except ModuleNotFoundError as err:
        missing = (err.name or "").partition(".")[0]
        if missing not in _REMEDIES:
            raise
        raise ModelLoadError(f"{files.model}: needs {missing}, which is missing: {_REMEDIES[missing]}") from err
