"""What model a directory holds, told by its files alone: imports no framework and reads at most a few kilobytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from beam_serving.errors import ModelLoadError
from beam_serving.models.torch_archive import reason_to_refuse

NOOP = "noop"
"""Stands for a model directory: the model that computes nothing, to measure everything around it."""


class ModelFiles(NamedTuple):
    """The files of one model: `model` is its graph (or all of it), `weights` the second file of formats with two."""

    format: str
    model: Path
    weights: Path | None = None


class _Format(NamedTuple):
    """How a format looks on disk: one file with `suffix`, and one with `weights_suffix` where it is not empty."""

    name: str
    title: str
    suffix: str
    weights_suffix: str
    engines: tuple[str, ...]

    @property
    def pattern(self) -> str:
        return f"*{self.suffix} + *{self.weights_suffix}" if self.weights_suffix else f"*{self.suffix}"


FORMATS = (
    _Format("openvino", "an OpenVINO model", ".xml", ".bin", ("openvino",)),
    _Format("tensorflow_frozen", "a TensorFlow frozen graph", ".pb", "", ("openvino",)),
    _Format("torchscript", "a TorchScript module", ".pt", "", ("openvino", "torch")),
    _Format("caffe", "a Caffe model", ".prototxt", ".caffemodel", ("opencv",)),
)

ENGINES = ("auto", *sorted({engine for known in FORMATS for engine in known.engines}), NOOP)

_PICKLES = (".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
_SAVED_MODEL_PARTS = ("saved_model.pb", "fingerprint.pb", "keras_metadata.pb")


def find_model(directory: Path | str, engine: str = "auto") -> ModelFiles:
    """Finds the one model in a directory; files whose names start with a dot, and what is no model, do not count.

    The directory "noop", or the engine "noop", is the model that computes nothing.

    Raises:
        ModelLoadError: there is no model, more than one, half of one, or one that must not or cannot be loaded.
    """
    if engine not in ENGINES:
        raise ModelLoadError(f"engine is {engine!r}, wanted is one of {', '.join(ENGINES)}")
    directory = Path(directory)
    if NOOP in (engine, str(directory)):
        return ModelFiles(NOOP, directory)
    files = _visible_files(directory)
    found = [model for known in FORMATS for model in _models_of(known, files, directory)]
    if len(found) > 1:
        names = " and ".join(_names(model) for model in found)
        raise ModelLoadError(f"{directory}: holds {len(found)} models, {names}; wanted is a directory with one model")
    if not found:
        raise ModelLoadError(_why_there_is_none(directory, files))
    _check_engine(found[0], engine)
    if found[0].format == "torchscript" and (reason := reason_to_refuse(found[0].model)):
        raise ModelLoadError(f"{found[0].model}: {reason}")
    return found[0]


def title_of(model_format: str) -> str:
    """Names a format in a sentence: "a Caffe model"."""
    return next((known.title for known in FORMATS if known.name == model_format), f"a {model_format} model")


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


def _models_of(known: _Format, files: Sequence[Path], directory: Path) -> list[ModelFiles]:
    graphs = _with_suffix(files, known.suffix)
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
    return [path for path in files if path.suffix.lower() == suffix and path.name not in _SAVED_MODEL_PARTS]


def _names(model: ModelFiles) -> str:
    return f"{model.model.name} + {model.weights.name}" if model.weights else model.model.name


def _why_there_is_none(directory: Path, files: Sequence[Path]) -> str:
    for path in files:
        if path.suffix.lower() == ".safetensors":
            return (
                f"{path}: holds weights without an architecture; export the whole model, for example with"
                " torch.jit.trace(model, example).save('model.pt')"
            )
        if path.suffix.lower() in _PICKLES:
            reason = reason_to_refuse(path)
            return f"{path}: {reason or 'is a TorchScript module under another name; rename it to *.pt'}"
    if any(path.suffix.lower() == ".bin" for path in files):
        return f"{directory}: holds a .bin without its .xml; {FORMATS[0].title} is {FORMATS[0].pattern}"
    listed = ", ".join(path.name + "/" * path.is_dir() for path in files[:8]) + ", ..." * (len(files) > 8)
    return f"{directory}: holds no model, only {listed}; wanted is one model: {_wanted()}"


def _check_engine(model: ModelFiles, engine: str) -> None:
    known = next(known for known in FORMATS if known.name == model.format)
    if engine not in ("auto", *known.engines):
        able = " or ".join(("auto", *known.engines))
        raise ModelLoadError(f"{model.model}: is {known.title}, which engine {engine!r} cannot run; wanted is {able}")


def _wanted() -> str:
    return ", ".join(f"{known.pattern} ({known.title})" for known in FORMATS)
