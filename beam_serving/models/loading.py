"""From the files of a model to a model ready to predict."""

import importlib
import logging
from collections.abc import Callable
from dataclasses import replace

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.detect import ModelFiles
from beam_serving.models.formats import NOOP, format_of

Loader = Callable[[ModelFiles, ModelOptions], LoadedModel]

_LOG = logging.getLogger(__name__)

# What is missing, and what installs it.
_REMEDIES = {
    "torch": "pip install 'beam-serving[torch]'",
    "tensorflow": "pip install 'beam-serving[tensorflow]'",
    "onnxruntime": "pip install 'beam-serving[onnx]'",
    "openvino": "pip install openvino",
    "cv2": "pip install 'opencv-python-headless>=4.14,<5'",
}


def load(files: ModelFiles, options: ModelOptions | None = None) -> LoadedModel:
    """Loads a model that `find_model` found, by the first engine that can run it; the log says why another could not.

    Raises:
        ModelLoadError: the files are damaged, a framework is missing, or the options do not fit the model.
    """
    options = options or ModelOptions()
    refusals: list[ModelLoadError] = []
    for engine in _engines(files, options):
        try:
            model = _load(files, options, engine)
        except ModelLoadError as err:
            refusals.append(err)
            continue
        if refusals:
            reason = str(refusals[0]).removeprefix(f"{files.model}: ")
            _LOG.info("%s: runs in %s; %s", files.model, model.engine, reason)
        return model
    said = list(dict.fromkeys(str(refusal) for refusal in refusals))
    said[1:] = [text.removeprefix(f"{files.model}: ") for text in said[1:]]
    raise ModelLoadError("; ".join(said)) from refusals[0]


def _engines(files: ModelFiles, options: ModelOptions) -> tuple[str, ...]:
    """Gives the engines to try, the best first."""
    known = format_of(files.format)
    on_cuda = options.device == "cuda"
    if on_cuda and ("torch" not in known.loaders or options.engine not in ("auto", "torch")):
        able = "wanted is a model of torch.jit or torch.export and engine auto or torch"
        raise ModelLoadError(f"{files.model}: device is 'cuda', which torch alone serves; {able}")
    if on_cuda or (options.device == "auto" and "torch" in known.loaders and _has_cuda()):
        return ("torch",) if options.engine in ("auto", "torch") else (options.engine,)
    return tuple(known.loaders) if options.engine == "auto" or files.format == NOOP else (options.engine,)


def _has_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def _load(files: ModelFiles, options: ModelOptions, engine: str) -> LoadedModel:
    module_name, _, function_name = format_of(files.format).loaders[engine].partition(":")
    if options.device == "auto" and engine != "torch":
        options = replace(options, device="cpu")
    try:
        loader: Loader = getattr(importlib.import_module(f"beam_serving.models.{module_name}"), function_name)
        return loader(files, options)
    except ModuleNotFoundError as err:
        missing = (err.name or "").partition(".")[0]
        if missing not in _REMEDIES:
            raise
        raise ModelLoadError(f"{files.model}: needs {missing}, which is missing: {_REMEDIES[missing]}") from err
