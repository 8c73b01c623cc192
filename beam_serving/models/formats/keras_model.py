"""Keras files: exported to a SavedModel by another process, then served by OpenVINO or by TensorFlow."""

import importlib.util
import logging
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import EngineModel, ModelOptions
from beam_serving.models.detect import ModelFiles
from beam_serving.models.formats.keras_export import EXIT_REFUSED
from beam_serving.models.store import derived_folder
from beam_serving.models.trial import sandbox
from beam_serving.models.trial.compare import equal
from beam_serving.owner import tied

_LOG = logging.getLogger(__name__)
_EXPORT_S = 300


def load_converted(files: ModelFiles, options: ModelOptions) -> EngineModel:
    """Load a model into OpenVINO and make sure that it computes there what it computes in Keras.

    Raises:
        ModelLoadError: Keras or OpenVINO cannot load it, or their results differ.
    """
    from beam_serving.models.engines.openvino import compile_model, read_model

    def load(saved_model: Path, options: ModelOptions) -> EngineModel:
        return compile_model(read_model(saved_model), options, files.model)

    return _load(files.model, options, load)


def load_native(files: ModelFiles, options: ModelOptions) -> EngineModel:
    """Load a model into TensorFlow and make sure that it computes there what it computes in Keras.

    Raises:
        ModelLoadError: Keras or TensorFlow cannot load it, or their results differ.
    """

    def load(saved_model: Path, options: ModelOptions) -> EngineModel:
        from beam_serving.models.formats.tensorflow import load_saved_model

        return load_saved_model(ModelFiles("tensorflow_saved_model", saved_model), options)

    return _load(files.model, options, load)


def _load(path: Path, options: ModelOptions, load: Callable[[Path, ModelOptions], EngineModel]) -> EngineModel:
    with _exported(path, options.sandbox) as folder:
        saved_model, trial, no_trial = (Path(folder, name) for name in ("model", "trial.npz", "no_trial.txt"))
        plain = replace(options, precision="f32", output_names=(), input_shape=None)
        try:
            model = load(saved_model, options)
            if trial.exists():
                _check(model if plain == options else load(saved_model, plain), trial, path)
        except ModelLoadError as err:
            raise ModelLoadError(str(err).replace(str(saved_model), str(path))) from err
        if no_trial.exists():
            reason = no_trial.read_text(encoding="utf-8")
            _LOG.warning("%s: was not compared with Keras, which did not take invented data: %s", path, reason)
    return model


@contextmanager
def _exported(path: Path, mode: str) -> Iterator[Path]:
    """Yield the folder of an export: of a private copy it is made once and kept with it, else gone afterwards."""
    derived = derived_folder(path)
    kept = derived / "keras" if derived else None
    if kept is not None and kept.is_dir():
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="beam-serving-keras-", dir=derived) as folder:
        export = Path(folder, "keras")
        export.mkdir()
        _export(path, export, mode)
        if kept is None:
            yield export
            return
        with suppress(OSError):  # another process was faster
            export.rename(kept)
        yield kept


def _export(path: Path, directory: Path, mode: str) -> None:
    for framework in ("tensorflow", "keras"):
        if importlib.util.find_spec(framework) is None:
            raise ModuleNotFoundError(name="tensorflow")
    module, environment = "beam_serving.models.formats.keras_export", sandbox.without_secrets(os.environ)
    command = sandbox.command(mode, [directory.parent], module, str(path), str(directory))
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_EXPORT_S,
            env=environment,
            preexec_fn=tied(),
        )
    except subprocess.TimeoutExpired as err:
        raise ModelLoadError(f"{path}: Keras did not load it within {_EXPORT_S} s") from err
    if done.returncode == EXIT_REFUSED:
        raise ModelLoadError(f"{path}: {(directory / 'refusal.txt').read_text(encoding='utf-8')}")
    if done.returncode:
        reported = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise ModelLoadError(f"{path}: Keras failed on it with exit code {done.returncode}: {reported[:300]}")


def _check(model: EngineModel, trial: Path, path: Path) -> None:
    """Compare a model with what Keras itself gave.

    Raises:
        ModelLoadError: they differ.
    """
    with np.load(trial) as arrays:
        inputs = {name.removeprefix("input:"): arrays[name] for name in arrays if name.startswith("input:")}
        outputs = {name.removeprefix("output:"): arrays[name] for name in arrays if name.startswith("output:")}
    names = [spec.name for spec in model.inputs]
    if sorted(names) != sorted(inputs) or {spec.name for spec in model.outputs} != {*outputs}:
        _LOG.warning("%s: was not compared with Keras, where inputs and outputs have other names", path)
        return
    if model.facts.random:
        return
    try:
        given = model.infer([np.asarray(inputs[spec.name], spec.dtype) for spec in model.inputs])
    except ModelError as err:
        raise ModelLoadError(f"{path}: a trial inference in {model.engine} failed where Keras answers: {err}") from err
    for spec, rows in zip(model.outputs, given, strict=True):
        wanted = np.asarray(outputs[spec.name], spec.dtype)
        if not equal(rows, wanted):
            raise ModelLoadError(f"{path}: its output {spec.name!r} in {model.engine} is not that in Keras")
