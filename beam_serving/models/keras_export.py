"""Turns a Keras file into a SavedModel, in a process of its own:

    python -m beam_serving.models.keras_export model.keras DIRECTORY

Workers start it and never import Keras: TensorFlow takes seconds and 400 MB, and the SavedModel runs in OpenVINO.
In DIRECTORY it leaves the SavedModel `model/`, `trial.npz` with what Keras itself computes on some noise, or, with the
exit code 3, `refusal.txt`.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from beam_serving.models.keras_config import reason_to_refuse

EXIT_REFUSED = 3
_WEIGHTS_ONLY = "holds weights without an architecture; save the whole model with model.save('model.keras')"
_DAMAGED = "is no whole Keras file: it is damaged, incomplete or something else; save it again"
_TRIAL_BATCH = 2
# What h5py, zipfile and Keras raise over damaged files and foreign layers: a refusal that says so, never a traceback.
_ERRORS = (
    *(OSError, ValueError, TypeError, RuntimeError, LookupError, AttributeError, ImportError, zipfile.BadZipFile),
    *(EOFError, NotImplementedError, AssertionError),
)


def main(path: Path, directory: Path) -> int:
    """Exports; gives the exit code."""
    try:
        reason = reason_to_refuse(_config(path))
    except _ERRORS:
        reason = _DAMAGED
    except _WeightsOnlyError:
        reason = _WEIGHTS_ONLY
    if reason is None:
        try:
            _export(path, directory)
        except _ERRORS as err:
            reason = f"Keras cannot load it: {' '.join(str(err).split())[:300]}"
    if reason is not None:
        (directory / "refusal.txt").write_text(reason, encoding="utf-8")
        return EXIT_REFUSED
    return 0


class _WeightsOnlyError(Exception):
    pass


def _config(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    import h5py

    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise _WeightsOnlyError
        return json.loads(file.attrs["model_config"])


def _export(path: Path, directory: Path) -> None:
    os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    import keras

    model = keras.models.load_model(path, compile=False, safe_mode=True)
    model.export(directory / "model", verbose=False)
    noise = np.random.default_rng(0)
    inputs = {}
    for tensor in model.inputs:
        if tensor.dtype == "string":
            return
        values = noise.random((_TRIAL_BATCH, *(size or 1 for size in tensor.shape[1:]))) * 2
        inputs[tensor.name] = values.astype(tensor.dtype)
    given = model(list(inputs.values()) if len(inputs) > 1 else next(iter(inputs.values())))
    if not isinstance(given, dict):
        tensors = given if isinstance(given, list | tuple) else [given]
        given = {f"output_{place}": tensor for place, tensor in enumerate(tensors)}
    trial = {f"input:{name}": array for name, array in inputs.items()}
    trial |= {f"output:{name}": np.array(tensor) for name, tensor in given.items()}
    np.savez(directory / "trial.npz", **trial)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
