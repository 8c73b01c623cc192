"""Keras files: exported to a SavedModel by another process, then served by OpenVINO or by TensorFlow."""

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.detect import ModelFiles
from beam_serving.models.fixed_batch import close
from beam_serving.models.keras_export import EXIT_REFUSED

_EXPORT_S = 300


def load_converted(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads a model into OpenVINO and makes sure that it computes there what it computes in Keras."""
    from beam_serving.models.openvino_engine import compile_model, read_model

    def load(saved_model: Path, options: ModelOptions) -> LoadedModel:
        return compile_model(read_model(saved_model), options, files.model)

    return _load(files.model, options, load)


def load_native(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads a model into TensorFlow."""

    def load(saved_model: Path, options: ModelOptions) -> LoadedModel:
        from beam_serving.models.tensorflow_formats import load_saved_model

        return load_saved_model(ModelFiles("tensorflow_saved_model", saved_model), options)

    return _load(files.model, options, load)


def _load(path: Path, options: ModelOptions, load: Callable[[Path, ModelOptions], LoadedModel]) -> LoadedModel:
    with tempfile.TemporaryDirectory(prefix="beam-serving-keras-") as folder:
        _export(path, Path(folder))
        saved_model, trial = Path(folder, "model"), Path(folder, "trial.npz")
        try:
            if trial.exists():
                plain = replace(options, precision="f32", input_names=(), output_names=(), input_shape=None)
                _check(load(saved_model, plain), trial, path)
            return load(saved_model, options)
        except ModelLoadError as err:
            raise ModelLoadError(str(err).replace(str(saved_model), str(path))) from err


def _export(path: Path, directory: Path) -> None:
    for framework in ("tensorflow", "keras"):
        if importlib.util.find_spec(framework) is None:
            raise ModuleNotFoundError(name="tensorflow")
    command = [sys.executable, "-m", "beam_serving.models.keras_export", str(path), str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_EXPORT_S)
    except subprocess.TimeoutExpired as err:
        raise ModelLoadError(f"{path}: Keras did not load it within {_EXPORT_S} s") from err
    if done.returncode == EXIT_REFUSED:
        raise ModelLoadError(f"{path}: {(directory / 'refusal.txt').read_text(encoding='utf-8')}")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise ModelLoadError(f"{path}: Keras failed on it with exit code {done.returncode}: {said[:300]}")


def _check(model: LoadedModel, trial: Path, path: Path) -> None:
    with np.load(trial) as arrays:
        inputs = {name.removeprefix("input:"): arrays[name] for name in arrays if name.startswith("input:")}
        outputs = {name.removeprefix("output:"): arrays[name] for name in arrays if name.startswith("output:")}
    try:
        given = model.predict({spec.name: inputs[spec.name] for spec in model.inputs})
    except (ModelError, KeyError) as err:
        raise ModelLoadError(f"{path}: a trial inference in {model.engine} failed: {err}") from err
    if not all(name in given and close(given[name], rows) for name, rows in outputs.items()):
        raise ModelLoadError(f"{path}: its results in {model.engine} are not those in Keras")
