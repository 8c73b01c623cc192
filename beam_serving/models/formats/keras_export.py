"""Turns a Keras file into a SavedModel, in a process of its own:

    python -P -m beam_serving.models.formats.keras_export model.keras DIRECTORY

Workers start it and never import Keras: TensorFlow takes seconds and 400 MB, and the SavedModel runs in OpenVINO.
In DIRECTORY it leaves the SavedModel `model/`, and `trial.npz` with what Keras itself computes on some noise, or
`no_trial.txt` with why there is none; or, with the exit code 3, `refusal.txt`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from beam_serving.models.base import STRING, TensorSpec
from beam_serving.models.formats.checked_zip import ArchiveError
from beam_serving.models.formats.keras_config import reason_to_refuse
from beam_serving.models.formats.keras_file import WeightsOnlyError, checked_copy, description
from beam_serving.models.trial.samples import invented_shapes, records

EXIT_REFUSED = 3
_WEIGHTS_ONLY = "holds weights without an architecture; save the whole model with model.save('model.keras')"
_DAMAGED = "is no whole Keras file: it is damaged, incomplete or something else; save it again"
_TRIAL_RECORDS = 2
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NUMPY = {"bfloat16": "float32"}
# What h5py, zipfile and Keras raise over damaged files and foreign layers: a refusal that says so, never a traceback.
_ERRORS = (
    *(OSError, ValueError, TypeError, RuntimeError, LookupError, AttributeError, ImportError, zipfile.BadZipFile),
    *(EOFError, AssertionError),
)


def main(path: Path, directory: Path) -> int:
    """Export; return the exit code."""
    try:
        path = _checked(path, directory)
        reason = reason_to_refuse(description(path))
    except ArchiveError as err:
        reason = str(err)
    except _ERRORS:
        reason = _DAMAGED
    except WeightsOnlyError:
        reason = _WEIGHTS_ONLY
    if reason is None:
        try:
            _export(path, directory)
        except _ERRORS as err:
            reason = f"Keras cannot load it: {_said(err)}"
    if reason is not None:
        (directory / "refusal.txt").write_text(reason, encoding="utf-8")
        return EXIT_REFUSED
    return 0


def _checked(path: Path, directory: Path) -> Path:
    """Return the file to load: of an archive, one with what was looked at."""
    if path.suffix.lower() != ".keras":
        return path
    copy = directory / "checked.keras"
    with checked_copy(path) as checked, copy.open("wb") as file:
        shutil.copyfileobj(checked, file)
    return copy


def _export(path: Path, directory: Path) -> None:
    os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    import keras

    model = keras.models.load_model(path, compile=False, safe_mode=True)
    (directory / "checked.keras").unlink(missing_ok=True)
    model.export(directory / "model", verbose=False)
    trial, reason = _trial(model)
    if reason:
        (directory / "no_trial.txt").write_text(reason, encoding="utf-8")
    else:
        np.savez(directory / "trial.npz", **trial)  # type: ignore[arg-type]


def _trial(model: Any) -> tuple[dict[str, np.ndarray], str]:
    """Return invented inputs that the model takes with what it gives for them, or why there are none."""
    import tensorflow as tf

    rows = next((tensor.shape[0] for tensor in model.inputs if len(tensor.shape) and tensor.shape[0]), _TRIAL_RECORDS)
    reason = ""
    for inputs in _invented(model.inputs, rows):
        tensors = list(inputs.values())
        try:
            given = model(tensors if len(tensors) > 1 else tensors[0], training=False)
            trial = {f"input:{name}": array for name, array in inputs.items()}
            return trial | {f"output:{name}": np.array(one) for name, one in _named(given).items()}, ""
        # What a layer says to invented data is no fault of the model.
        except (*_ERRORS, tf.errors.OpError) as err:
            reason = reason or _said(err)
    return {}, reason or "its inputs are of a type that is not invented"


def _invented(tensors: Any, rows: int) -> Iterator[dict[str, np.ndarray]]:
    specs = []
    for tensor in tensors:
        if tensor.dtype != "string" and not re.fullmatch(r"bool|u?int\d+|b?float\d+", tensor.dtype):
            return
        dtype = STRING if tensor.dtype == "string" else np.dtype(_NUMPY.get(tensor.dtype, tensor.dtype))
        specs.append(TensorSpec(tensor.name, tuple(tensor.shape)[1:], dtype))
    for shapes in invented_shapes(specs):
        (some, *_) = records(specs, shapes, rows)
        yield {
            spec.name: np.stack([one[spec.name] for one in some]) if len(tensor.shape) else some[0][spec.name]
            for spec, tensor in zip(specs, tensors, strict=True)
        }


def _said(err: BaseException) -> str:
    """Return what Keras says in one line, without its colours."""
    return " ".join(_COLOUR.sub("", str(err)).split())[:300] or type(err).__name__


def _named(given: object) -> dict[str, Any]:
    """Name outputs as the SavedModel does."""
    if isinstance(given, dict):
        return given
    tensors = given if isinstance(given, list | tuple) else [given]
    return {f"output_{place}": tensor for place, tensor in enumerate(tensors)}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
