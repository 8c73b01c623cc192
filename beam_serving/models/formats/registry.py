"""The table of model formats: how each looks on disk, what loads it, and which engine comes first.

Loaders are named, not imported: a loader's module imports its framework, which only the worker that serves the model
pays for. A format that somebody else's package brings is an entry point of the group `beam_serving.formats`, which
names a `Format`; only what the operator installed is looked at.
"""

import functools
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from importlib.util import resolve_name
from typing import NamedTuple

from beam_serving.errors import ConfigError, printable

NOOP = "noop"
"""Stands for a model directory: the model that computes nothing, to measure everything around it."""


class Format(NamedTuple):
    """One format: a file with one of `suffixes` (or of this name), and one with `weights_suffix` if it is not empty.

    `loaders` names, by engine, the function that loads it, as `module:function`; the first engine is tried first. The
    function takes a `ModelFiles` and `ModelOptions`, and returns an `EngineModel` or raises ModelLoadError. `own` is
    the engine whose results are the right ones: the framework that the format belongs to.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    loaders: Mapping[str, str]
    weights_suffix: str = ""
    own: str = "openvino"

    @property
    def pattern(self) -> str:
        """What to look for, as messages show it: `*.xml + *.bin`."""
        graph = " or ".join("*" * suffix.startswith(".") + suffix for suffix in self.suffixes)
        return f"{graph} + *{self.weights_suffix}" if self.weights_suffix else graph


_BUILT_IN = (
    Format("openvino", "an OpenVINO model", (".xml",), {"openvino": ".formats.openvino:load_file"}, ".bin"),
    Format(
        "onnx",
        "an ONNX model",
        (".onnx",),
        {"openvino": ".formats.openvino:load_file", "onnxruntime": ".engines.onnxruntime:load_onnx"},
        own="onnxruntime",
    ),
    Format(
        "tensorflow_frozen",
        "a TensorFlow frozen graph",
        (".pb",),
        {"openvino": ".formats.openvino:load_file", "tensorflow": ".formats.tensorflow:load_frozen_graph"},
        own="tensorflow",
    ),
    Format(
        "tensorflow_saved_model",
        "a TensorFlow SavedModel",
        ("saved_model.pb",),
        {"openvino": ".formats.openvino:load_file", "tensorflow": ".formats.tensorflow:load_saved_model"},
        own="tensorflow",
    ),
    Format(
        "tflite",
        "a TensorFlow Lite model",
        (".tflite",),
        {"openvino": ".formats.openvino:load_file", "tensorflow": ".engines.tflite:load_tflite"},
        own="tensorflow",
    ),
    Format(
        "keras",
        "a Keras model",
        (".keras", ".h5", ".hdf5"),
        {"openvino": ".formats.keras_model:load_converted", "tensorflow": ".formats.keras_model:load_native"},
        own="tensorflow",
    ),
    Format(
        "torchscript",
        "a TorchScript module",
        (".pt",),
        {"openvino": ".formats.torchscript:load_converted", "torch": ".formats.torchscript:load_native"},
        own="torch",
    ),
    Format(
        "torch_export",
        "a program of torch.export",
        (".pt2",),
        {"openvino": ".formats.torch_export:load_converted", "torch": ".formats.torch_export:load_native"},
        own="torch",
    ),
    Format(
        "caffe",
        "a Caffe model",
        (".prototxt",),
        {"openvino": ".formats.openvino:load_caffe", "opencv": ".engines.opencv:load_caffe"},
        ".caffemodel",
    ),
    Format("bigdl", "a BigDL model", (".model",), {"openvino": ".formats.openvino:load_bigdl"}),
)
NO_MODEL = Format(NOOP, "the no-op model", (), {NOOP: ".engines.noop:load_noop"})


def _installed() -> Iterator[Format]:
    """Yield the formats of other packages.

    Raises:
        ConfigError: one cannot be imported, is no `Format`, or has the name of another.
    """
    names = {known.name for known in _BUILT_IN} | {NOOP}
    for found in sorted(entry_points(group="beam_serving.formats"), key=lambda one: one.name):
        package = f" of the package {found.dist.name}" if found.dist else ""
        what = f"the model format {found.name!r} ({found.value}){package}"
        try:
            known = found.load()
        except (Exception, SystemExit) as err:  # whatever another package's code raises
            raise ConfigError(f"{what} cannot be imported: {type(err).__name__}: {printable(str(err))}") from err
        if not _is_format(known) or known.name in names:
            wanted = "a beam_serving.models.formats.registry.Format whose name no other has"
            raise ConfigError(f"{what} is {_shown(known)}; wanted is {wanted}")
        names.add(known.name)
        yield known


def _is_format(known: object) -> bool:
    """Return whether an object is a `Format` with fields of the types that are written there."""
    if not isinstance(known, Format) or not isinstance(known.suffixes, tuple) or not isinstance(known.loaders, Mapping):
        return False
    texts = (known.name, known.title, known.weights_suffix, known.own, *known.suffixes)
    return all(isinstance(text, str) for text in (*texts, *known.loaders, *known.loaders.values()))


def _shown(found: object) -> str:
    try:
        return printable(f"{found!r:.200}")
    except Exception:  # noqa: BLE001 - whatever another package's code raises
        return f"an object of type {type(found).__name__}"


@functools.cache
def formats() -> tuple[Format, ...]:
    """Return all formats, ours first.

    Raises:
        ConfigError: that of another package is none.
    """
    return (*_BUILT_IN, *_installed())


@functools.cache
def engines() -> tuple[str, ...]:
    """Return what `model: engine` may be."""
    return ("auto", *sorted({engine for known in formats() for engine in known.loaders}), NOOP)


def format_of(name: str) -> Format:
    """Return a format by its name, "noop" included."""
    return next(known for known in (*formats(), NO_MODEL) if known.name == name)


def loader_of(name: str, engine: str) -> tuple[str, str]:
    """Return the module, and the function in it, that load a format for an engine."""
    module, _, function = format_of(name).loaders[engine].partition(":")
    return resolve_name(module, "beam_serving.models"), function
