"""Turns the message of a deploy `.prototxt` into the net's inputs and the layers that run in the TEST phase.

Source: `caffe.proto` and the upgrade rules of Caffe: `layers` with enum types is the format of 2014 (V1), and inputs
were written `input` with `input_dim`, later with `input_shape`, and today as `Input` layers.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from beam_serving.models.formats.caffe.message import Message, TextError
from beam_serving.models.formats.caffe.schema import V1_TYPES

MAX_BLOB_ELEMENTS = 1 << 28
"""Elements of one example of a blob: 1 GiB of float32; larger ones are taken for a mistake in the file."""

DROPPED_TYPES = frozenset(
    [
        "Accuracy",
        "AnnotatedData",
        "ContrastiveLoss",
        "Data",
        "DetectionEvaluate",
        "EuclideanLoss",
        "HDF5Data",
        "HDF5Output",
        "HingeLoss",
        "ImageData",
        "InfogainLoss",
        "MultiBoxLoss",
        "MultinomialLogisticLoss",
        "SigmoidCrossEntropyLoss",
        "Silence",
        "SmoothL1Loss",
        "SoftmaxWithLoss",
        "WindowData",
    ]
)
"""They feed or measure training; a deploy net that still has them is served without them."""

_ROOT_FIELDS = (
    *("name", "state", "layer", "layers", "force_backward", "debug_info"),
    *("default_forward_type", "default_backward_type", "default_forward_math", "default_backward_math"),
)
"""Those of Caffe and, in the second line, the number formats that NVIDIA's Caffe computes in."""


class LayerError(ValueError):
    """One layer cannot be served; the message starts with its name and type."""

    def __init__(self, layer: "Layer", reason: str) -> None:
        super().__init__(f"{layer}: {reason}")


class Layer(NamedTuple):
    """A layer as written; `type` is today's name of it, `bottoms` and `tops` are blob names."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Message

    def __str__(self) -> str:
        return f"layer '{self.name}' ({self.type})"


class Net(NamedTuple):
    """`inputs` gives the declared shape, batch axis included, by blob; `layers` are in the order of running.

    `dropped` are the blobs made by layers of `DROPPED_TYPES` and `silenced` those that only such layers consume on
    purpose (Silence): they are not outputs.
    """

    inputs: dict[str, tuple[int, ...]]
    layers: list[Layer]
    dropped: frozenset[str]
    silenced: frozenset[str]


def read_net(root: Message) -> Net:
    """Raise TextError or LayerError for a file that is not a net that could be served."""
    inputs = _legacy_inputs(root)
    _check_root(root)
    layers: list[Layer] = []
    dropped: set[str] = set()
    silenced: set[str] = set()
    for layer in _layers(root):
        if layer.type in DROPPED_TYPES:
            dropped.update(layer.tops)
            silenced.update(layer.bottoms if layer.type == "Silence" else ())
        elif layer.type in _INPUT_SHAPES:
            inputs.update(_input_blobs(layer))
        else:
            layers.append(layer)
    if not inputs:
        raise TextError("the net has no input; a deploy prototxt with an Input layer or `input:` is wanted")
    for name, shape in inputs.items():
        check_shape(f"input '{name}'", shape)
    return Net(inputs, layers, frozenset(dropped - inputs.keys()), frozenset(silenced))


def check_shape(what: str, shape: Sequence[int]) -> None:
    """Raise TextError unless every dimension is positive and an example has at most `MAX_BLOB_ELEMENTS`."""
    if not all(0 < dim < 1 << 31 for dim in shape) or math.prod(shape[1:]) > MAX_BLOB_ELEMENTS:
        raise TextError(
            f"{what} has the shape {list(shape)}, wanted positive dimensions and at most {MAX_BLOB_ELEMENTS} elements "
            "an example"
        )


def _check_root(root: Message) -> None:
    """Refuse fields that are not of a net: a layer behind a mistyped name would silently be left out."""
    root.ignore(_ROOT_FIELDS)
    unknown = [name for name in root.unread() if "." not in name]
    if unknown:
        raise TextError(f"unknown fields {', '.join(unknown)}")


def _legacy_inputs(root: Message) -> dict[str, tuple[int, ...]]:
    names = root.texts("input")
    dims = root.integers("input_dim")
    shapes = [tuple(shape.integers("dim")) for shape in root.messages("input_shape")]
    if not shapes and len(dims) == 4 * len(names):
        shapes = [tuple(dims[start : start + 4]) for start in range(0, len(dims), 4)]
    if len(shapes) != len(names):
        raise TextError(f"{len(names)} inputs with {len(shapes)} input_shape and {len(dims)} input_dim")
    return dict(zip(names, shapes, strict=True))


def _input_blobs(layer: Layer) -> dict[str, tuple[int, ...]]:
    try:
        shapes = _INPUT_SHAPES[layer.type](layer.message)
    except TextError as err:
        raise LayerError(layer, str(err)) from err
    if len(shapes) == 1:
        shapes = shapes * len(layer.tops)
    if len(shapes) != len(layer.tops):
        raise LayerError(layer, f"{len(shapes)} shapes for {len(layer.tops)} tops")
    return dict(zip(layer.tops, shapes, strict=True))


def _input_shapes(message: Message) -> list[tuple[int, ...]]:
    return [tuple(shape.integers("dim")) for shape in message.message("input_param").messages("shape")]


def _memory_shapes(message: Message) -> list[tuple[int, ...]]:
    param = message.message("memory_data_param")
    image = tuple(param.integer(field) for field in ("batch_size", "channels", "height", "width"))
    return [image, image[:1]]


_INPUT_SHAPES: dict[str, Callable[[Message], list[tuple[int, ...]]]] = {
    "Input": _input_shapes,
    "MemoryData": _memory_shapes,
}


def _layers(root: Message) -> list[Layer]:
    current, old = root.messages("layer"), root.messages("layers")
    if current and old:
        raise TextError("both `layer` and `layers` are used, wanted one of them")
    if not current and not old:
        raise TextError("the net has no layers")
    state = root.message("state")
    made = [_layer(message, bool(old)) for message in current or old]
    return [layer for layer in made if _runs(layer, state)]


def _layer(message: Message, old: bool) -> Layer:
    if old and message.has("layer"):
        raise TextError("layers inside `layers` are the format of 2013; upgrade it with Caffe's upgrade_net_proto_text")
    name = message.text("name", "")
    kind = V1_TYPES[message.choice("type", "NONE")][1] if old else message.text("type")
    return Layer(name, kind, tuple(message.texts("bottom")), tuple(message.texts("top")), message)


def _runs(layer: Layer, state: Message) -> bool:
    """Return whether the layer's include and exclude rules keep it in the TEST phase."""
    include, exclude = layer.message.messages("include"), layer.message.messages("exclude")
    if include and exclude:
        raise LayerError(layer, "has include and exclude rules, wanted one kind of them")
    if layer.message.has("phase") and layer.message.choice("phase", "TEST") == "TRAIN":
        return False
    if include:
        return any(_meets(rule, state) for rule in include)
    return not any(_meets(rule, state) for rule in exclude)


def _meets(rule: Message, state: Message) -> bool:
    level, stages = state.integer("level", 0), set(state.texts("stage"))
    return (
        rule.choice("phase", "TEST") == "TEST"
        and rule.integer("min_level", level) <= level <= rule.integer("max_level", level)
        and stages.issuperset(rule.texts("stage"))
        and stages.isdisjoint(rule.texts("not_stage"))
    )
