"""Models: what a directory holds, how it is loaded, and how it predicts.

    directory --find_model--> ModelFiles --load--> LoadedModel --predict_batch--> rows by output name

`handler_for` puts the same behind Beam's `ModelHandler`. The names are imported on first use, so that neither Beam
nor an engine is paid for before it is needed.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beam_serving.models.base import LoadedModel, ModelOptions, TensorSpec
    from beam_serving.models.batches import check_rows, predict_batch, warm_up
    from beam_serving.models.detect import ModelFiles, find_model
    from beam_serving.models.handler import DirectoryModelHandler, handler_for
    from beam_serving.models.loading import load

__all__ = [
    "DirectoryModelHandler",
    "LoadedModel",
    "ModelFiles",
    "ModelOptions",
    "TensorSpec",
    "check_rows",
    "find_model",
    "handler_for",
    "load",
    "predict_batch",
    "warm_up",
]

# OpenVINO would tell its makers of each import, over the network and from a thread; it works without that package.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

_MODULES = {
    "base": ("LoadedModel", "ModelOptions", "TensorSpec"),
    "batches": ("check_rows", "predict_batch", "warm_up"),
    "detect": ("ModelFiles", "find_model"),
    "handler": ("DirectoryModelHandler", "handler_for"),
    "loading": ("load",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
