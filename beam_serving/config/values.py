"""How values may be written in config.yaml: lists with commas, numbers or a word, blank for unset.

A value of the environment or of --set is a text, and read as one in quotes is.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from beam_serving.config.yaml_file import flow, number_of
from beam_serving.text_files import Expanded

SHAPES_WANTED = "wants whole numbers from 1: 3,224,224, or for several inputs [[3,224,224],[3]] or {name: [3,224,224]}"
LONGEST_S = 10.0 * 365 * 86_400
"""Ten years, which stand for no limit at all."""
MOST = 1_000_000_000
"""What is counted is no more than that."""
_LARGEST_SIZE = 2**31 - 1
_MOST_WORKERS = 256
_LARGEST_BATCH = 4096
_MOST_THREADS = 1024
_LAST_AXIS = 31
_DIGITS = 19
_WORKERS_WANTED = f"wants a number from 1 to {_MOST_WORKERS} or 'auto'"
_BATCH_WANTED = f"wants a number from 1 to {_LARGEST_BATCH} or 'auto'"
_THREADS_WANTED = f"wants a number from 0 to {_MOST_THREADS} or 'auto'"
_TOP_N_WANTED = "wants 'auto' or a number: how many classes, 0 for the whole output"
_AXIS_WANTED = "wants auto, none or the number of an axis, from 0"
_CONSTANTS_WANTED = "wants values by input name, such as {keep_prob: 1.0, sr: 16000}"


def whole_number(value: object, least: int, most: int) -> int | None:
    """Return a number or the digits of one as a number, None for anything else and one out of these limits."""
    if isinstance(value, str):
        text = value.strip()
        value = int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else None
    return value if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most else None


def _numbers(value: object) -> object:
    """Read `3,224,224` (the form of Cluster Serving) and `[3, 224, 224]` alike."""
    if isinstance(value, str):
        value = flow(value)
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if value == []:
        raise ValueError("wants at least one number")
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def _names(value: object) -> object:
    """Read `a, b` and `[a, b]` alike."""
    if isinstance(value, str) and not _is_tagged(value):
        value = flow(value)
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _is_tagged(text: str) -> bool:
    """Return whether a text begins with a name in braces, as the streams of a cluster have it, and is no mapping."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        found = flow(text)
    except ValueError:
        return True
    return isinstance(found, dict) and not any(value is not None for value in found.values())


def _worker_count(value: object) -> object:
    return _number_or(value, "auto", 1, _MOST_WORKERS, _WORKERS_WANTED)


def _batch_size(value: object) -> object:
    return _number_or(value, "auto", 1, _LARGEST_BATCH, _BATCH_WANTED)


def _threads(value: object) -> object:
    return _number_or(value, "auto", 0, _MOST_THREADS, _THREADS_WANTED)


def _top_n(value: object) -> object:
    return _number_or(value, "auto", 0, MOST, _TOP_N_WANTED)


def _number_or(value: object, word: str, least: int, most: int, wanted: str) -> object:
    if value == word:
        return word
    number = whole_number(value, least, most)
    if number is None:
        raise ValueError(wanted)
    return number


def _shapes(value: object) -> object:
    """Read the shape of one input, those of several in the model's order, or by name; a list of one is the first."""
    if isinstance(value, str):
        value = _shapes_of(value)
    if value is None or value == "":
        return None
    if isinstance(value, dict):
        if not value or not all(isinstance(name, str) and name for name in value):
            raise ValueError(SHAPES_WANTED)
        return {name: _shape(shape) for name, shape in value.items()}
    if isinstance(value, list | tuple) and any(map(_is_shape, value)):
        shapes = tuple(map(_shape, value))
        if len(shapes) > 1:
            return shapes
        value = shapes[0]
    if not (shape := _shape(value)):
        raise ValueError("wants at least one number")
    return shape


def _shapes_of(text: str) -> object:
    """Read `[[3,224,224],[3]]`, also as Cluster Serving's users wrote it: `[3,224,224],[3]` or `3,224,224;3`."""
    if ";" in text:
        return [part.strip(" []").split(",") for part in text.split(";")]
    try:
        return flow(text)
    except ValueError:
        pass
    try:
        return flow(f"[{text}]")
    except ValueError:
        raise ValueError(SHAPES_WANTED) from None


def _is_shape(value: object) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, str) and "," in value)


def _shape(value: object) -> tuple[int, ...]:
    """Read one shape; an empty list is that of an input with one number for each record."""
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(map(_size, parts if isinstance(parts, list | tuple) else [parts]))


def _size(value: object) -> int:
    size = whole_number(value, 1, _LARGEST_SIZE)
    if size is None:
        raise ValueError(SHAPES_WANTED)
    return size


def _batch_axis(value: object) -> object:
    if value in ("auto", "none") or value is None:
        return value or "none"
    axis = whole_number(value, 0, _LAST_AXIS)
    if axis is None:
        raise ValueError(_AXIS_WANTED)
    return axis


def _constants(value: object) -> object:
    if isinstance(value, str):
        value = flow(value)
    if value in (None, ""):
        return {}
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and _is_constant(one) for name, one in value.items()
    ):
        raise ValueError(_CONSTANTS_WANTED)
    return {name: _constant(one) for name, one in value.items()}


def _is_constant(value: object) -> bool:
    return isinstance(value, int | float | str) or (isinstance(value, list) and all(map(_is_constant, value)))


def _constant(value: object) -> object:
    """Return a constant as it is, but for one from a variable, which is the number that it reads as."""
    if isinstance(value, list):
        return [_constant(one) for one in value]
    return number_of(value) if isinstance(value, Expanded) else value


def _sample(value: object) -> object:
    """Read the path of a file, or shapes as `data: shape` has them."""
    if value in (None, ""):
        return None
    if isinstance(value, str) and not _has_shapes(value.strip()):
        return value
    return _shapes(value)


def _has_shapes(text: str) -> bool:
    in_brackets = text.startswith(("[", "{")) and text.endswith(("]", "}"))
    return in_brackets or all(part.strip().isdecimal() for part in text.split(","))


Shapes = Annotated[
    tuple[int, ...] | tuple[tuple[int, ...], ...] | dict[str, tuple[int, ...]] | None,
    BeforeValidator(_shapes),
    Field(description=SHAPES_WANTED),
]
Floats = Annotated[
    tuple[float, ...],
    BeforeValidator(_numbers),
    Field(description="wants one number, or one for each channel, as 104, 117, 123"),
]
Names = Annotated[tuple[str, ...], BeforeValidator(_names), Field(description="wants names, as a, b or [a, b]")]
Text = Annotated[str, Field(description="wants text, in quotes where it looks like a number or a date")]
Seconds = Annotated[float, Field(gt=0, le=LONGEST_S)]
Count = Annotated[int, Field(ge=1, le=MOST)]
WorkerCount = Annotated[int | Literal["auto"], BeforeValidator(_worker_count), Field(description=_WORKERS_WANTED)]
Threads = Annotated[int | Literal["auto"], BeforeValidator(_threads), Field(description=_THREADS_WANTED)]
BatchSize = Annotated[int | Literal["auto"], BeforeValidator(_batch_size), Field(description=_BATCH_WANTED)]
BatchAxis = Annotated[int | Literal["auto", "none"], BeforeValidator(_batch_axis), Field(description=_AXIS_WANTED)]
TopN = Annotated[int | Literal["auto"], BeforeValidator(_top_n), Field(description=_TOP_N_WANTED)]
Constants = Annotated[dict[str, object], BeforeValidator(_constants), Field(description=_CONSTANTS_WANTED)]
Sample = Annotated[
    str | tuple[int, ...] | tuple[tuple[int, ...], ...] | dict[str, tuple[int, ...]] | None,
    BeforeValidator(_sample),
    Field(description=f"wants the path of an .npz or an image, or shapes as data: shape {SHAPES_WANTED}"),
]
