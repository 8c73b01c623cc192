"""What model a directory holds, told by its files alone: imports no framework and reads at most a few kilobytes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from beam_serving.errors import ModelLoadError
from beam_serving.models.formats import torch_archive, torch_export_archive
from beam_serving.models.formats.registry import NOOP, Format, engines, format_of, formats


class ModelFiles(NamedTuple):
    """The files of one model.

    Attributes:
        format: the name of a format in `beam_serving.models.formats.registry`: "openvino", "onnx", "torchscript", ...
        model: the file with its graph, or all of it; of a SavedModel its directory.
        weights: the second file of a format with two; None of others.
    """

    format: str
    model: Path
    weights: Path | None = None


_TORCH_NAMES = (".pth", ".jit", ".torchscript", ".pkl", ".pickle", ".ckpt", ".joblib")
_SAVED_MODEL = "saved_model.pb"
_SAVED_MODEL_PARTS = (_SAVED_MODEL, "fingerprint.pb", "keras_metadata.pb")

# What must not be loaded though its name says so: each gives the end of a sentence about the file, or None.
_REFUSALS: Mapping[str, Callable[[Path], str | None]] = {
    "torchscript": torch_archive.reason_to_refuse,
    "torch_export": torch_export_archive.reason_to_refuse,
}


def find_model(directory: Path | str, engine: str = "auto") -> ModelFiles:
    """Find the one model in a directory by its files alone: at most a few kilobytes are read, nothing is loaded.

    Args:
        directory: that of the model; "noop" is the model that computes nothing. A SavedModel may be the directory
            itself or the only one inside it, as with the version directories of other servers. Files whose names start
            with a dot, and what is no model, do not count.
        engine: the one that shall run it; "auto" for any, "noop" for the model that computes nothing.

    Returns:
        The files of the model.

    Raises:
        ModelLoadError: there is no model, more than one, half of one, one that must not or cannot be loaded, or one
            that the engine cannot run.
    """
    if engine not in engines():
        raise ModelLoadError(f"engine is {engine!r}, wanted is one of {', '.join(engines())}")
    directory = Path(directory)
    if NOOP in (engine, str(directory)):
        return ModelFiles(NOOP, directory)
    files = _visible_files(directory)
    found = [*_saved_models(files, directory), *_single_models(files, directory)]
    if len(found) > 1:
        names = " and ".join(_names(model, directory) for model in found)
        raise ModelLoadError(f"{directory}: holds {len(found)} models, {names}; wanted is a directory with one model")
    if not found:
        raise ModelLoadError(_why_there_is_none(directory, files))
    _check_engine(found[0], engine)
    refuse = _REFUSALS.get(found[0].format)
    if refuse and (reason := refuse(found[0].model)):
        raise ModelLoadError(f"{found[0].model}: {reason}")
    return found[0]


def _visible_files(directory: Path) -> list[Path]:
    try:
        files = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    except FileNotFoundError as err:
        raise ModelLoadError(f"{directory}: there is no such directory; wanted is a model directory") from err
    except NotADirectoryError as err:
        raise ModelLoadError(f"{directory}: is a file; wanted is the directory that holds the model") from err
    except OSError as err:
        raise ModelLoadError(f"{directory}: cannot be read ({err.strerror}); wanted is a model directory") from err
    if not files:
        raise ModelLoadError(f"{directory}: is empty; wanted is one model: {_wanted()}")
    return files


def _saved_models(files: Sequence[Path], directory: Path) -> list[ModelFiles]:
    """Find the directory itself, or directories in it, that hold a `saved_model.pb`."""
    places = [directory, *(path for path in files if path.is_dir())]
    return [ModelFiles("tensorflow_saved_model", place) for place in places if (place / _SAVED_MODEL).is_file()]


def _single_models(files: Sequence[Path], directory: Path) -> list[ModelFiles]:
    files = [path for path in files if path.is_file() and path.name not in _SAVED_MODEL_PARTS]
    found = [model for known in formats() if known.name != "bigdl" for model in _models_of(known, files, directory)]
    taken = {path for model in found for path in (model.model, model.weights)}
    # A .bin beside a .model belongs to BigDL, but to OpenVINO where that has a .xml for it.
    models, weights = _with_suffix(files, ".model"), [path for path in _with_suffix(files, ".bin") if path not in taken]
    for model in models:
        same_name = model.with_suffix(".bin")
        split = same_name if same_name in weights else weights[0] if len(models) == len(weights) == 1 else None
        found.append(ModelFiles("bigdl", model, split))
    return found


def _models_of(known: Format, files: Sequence[Path], directory: Path) -> list[ModelFiles]:
    graphs = [path for suffix in known.suffixes for path in _with_suffix(files, suffix)]
    if not known.weights_suffix:
        return [ModelFiles(known.name, path) for path in graphs]
    weights = _with_suffix(files, known.weights_suffix)
    if len(graphs) == 1 and len(weights) == 1:
        return [ModelFiles(known.name, graphs[0], weights[0])]
    pairs = [ModelFiles(known.name, path, path.with_suffix(known.weights_suffix)) for path in graphs]
    paired = [pair for pair in pairs if pair.weights in weights]
    left = [path for path in graphs if path not in {pair.model for pair in paired}]
    left += [path for path in weights if path not in {pair.weights for pair in paired}]
    if left and (graphs or known.weights_suffix == ".caffemodel"):
        names = ", ".join(path.name for path in left)
        raise ModelLoadError(f"{directory}: holds {names} without its other half; {known.title} is {known.pattern}")
    return paired


def _with_suffix(files: Sequence[Path], suffix: str) -> list[Path]:
    return [path for path in files if path.suffix.lower() == suffix]


def _names(model: ModelFiles, directory: Path) -> str:
    if model.format == "tensorflow_saved_model":
        return str((model.model / _SAVED_MODEL).relative_to(directory))
    return f"{model.model.name} + {model.weights.name}" if model.weights else model.model.name


def _why_there_is_none(directory: Path, files: Sequence[Path]) -> str:
    for path in files:
        if path.suffix.lower() == ".safetensors":
            return (
                f"{path}: holds weights without an architecture; export the whole model, for example with"
                " torch.jit.trace(model, example).save('model.pt')"
            )
        if path.suffix.lower() in _TORCH_NAMES:
            reason = torch_archive.reason_to_refuse(path)
            return f"{path}: {reason or 'is a TorchScript module under another name; rename it to *.pt'}"
    names = {path.name for path in files}
    if names & {"variables", "fingerprint.pb", "keras_metadata.pb"}:
        return f"{directory}: holds parts of a SavedModel without its {_SAVED_MODEL}; copy the whole directory"
    if any(path.suffix.lower() == ".bin" for path in files):
        openvino = format_of("openvino")
        return f"{directory}: holds a .bin without its .xml; {openvino.title} is {openvino.pattern}"
    listed = ", ".join(path.name + "/" * path.is_dir() for path in files[:8]) + ", ..." * (len(files) > 8)
    return f"{directory}: holds no model, only {listed}; wanted is one model: {_wanted()}"


def _check_engine(model: ModelFiles, engine: str) -> None:
    known = format_of(model.format)
    if engine not in ("auto", *known.loaders):
        able = " or ".join(("auto", *known.loaders))
        raise ModelLoadError(f"{model.model}: is {known.title}, which engine {engine!r} cannot run; wanted is {able}")


def _wanted() -> str:
    return ", ".join(f"{known.pattern} ({known.title})" for known in formats())
