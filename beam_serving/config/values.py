"""How values may be written in config.yaml: lists with commas, numbers or a word, blank for unset."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

SHAPES_WANTED = "wants whole numbers from 1: 3,224,224, or for several inputs [[3,224,224],[3]] or {name: [3,224,224]}"


def _numbers(value: object) -> object:
    """Read `3,224,224` (the form of Cluster Serving) and `[3, 224, 224]` alike."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if value == []:
        raise ValueError("wants at least one number")
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def _worker_count(value: object) -> object:
    if value == "auto":
        return value
    if not str(value).isdecimal() or not 1 <= int(str(value)) <= 256:
        raise ValueError("wants a number from 1 to 256 or 'auto'")
    return int(str(value))


def _names(value: object) -> object:
    """Read `a, b` and `[a, b]` alike."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _batch_size(value: object) -> object:
    if value == "auto":
        return value
    if not str(value).isdecimal() or not 1 <= int(str(value)) <= 4096:
        raise ValueError("wants a number from 1 to 4096 or 'auto'")
    return int(str(value))


def _threads(value: object) -> object:
    if value == "auto":
        return value
    if not str(value).isdecimal():
        raise ValueError("wants a number from 0 or 'auto'")
    return int(str(value))


def _shapes(value: object) -> object:
    """Read the shape of one input, those of several in the model's order, or by name; a list of one is the first."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError(SHAPES_WANTED) from None
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


def _is_shape(value: object) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, str) and "," in value)


def _shape(value: object) -> tuple[int, ...]:
    """Read one shape; an empty list is that of an input with one number for each record."""
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(map(_size, parts if isinstance(parts, list | tuple) else [parts]))


def _size(value: object) -> int:
    text = value.strip() if isinstance(value, str) else repr(value)
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise ValueError(SHAPES_WANTED)
    return int(text)


Shapes = Annotated[
    tuple[int, ...] | tuple[tuple[int, ...], ...] | dict[str, tuple[int, ...]] | None, BeforeValidator(_shapes)
]
Floats = Annotated[tuple[float, ...], BeforeValidator(_numbers)]
Seconds = Annotated[float, Field(gt=0)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
WorkerCount = Annotated[int | Literal["auto"], BeforeValidator(_worker_count)]
Threads = Annotated[int | Literal["auto"], BeforeValidator(_threads)]
BatchSize = Annotated[int | Literal["auto"], BeforeValidator(_batch_size)]


def _batch_axis(value: object) -> object:
    if value in ("auto", "none") or value is None:
        return value or "none"
    if isinstance(value, bool) or not str(value).isdecimal() or int(str(value)) > 31:
        raise ValueError("wants auto, none or the number of an axis, from 0")
    return int(str(value))


def _top_n(value: object) -> object:
    if value == "auto":
        return value
    if isinstance(value, bool) or not str(value).isdecimal():
        raise ValueError("wants 'auto' or a number: how many classes, 0 for the whole output")
    return int(str(value))


def _constants(value: object) -> object:
    if value in (None, ""):
        return {}
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and _is_constant(one) for name, one in value.items()
    ):
        raise ValueError("wants values by input name, such as {keep_prob: 1.0, sr: 16000}")
    return value


def _is_constant(value: object) -> bool:
    return isinstance(value, int | float | str) or (isinstance(value, list) and all(map(_is_constant, value)))


def _sample(value: object) -> object:
    """Read the path of a file, or shapes as `data: shape` has them."""
    if value in (None, ""):
        return None
    text = str(value)
    if isinstance(value, str) and not all(part.strip().isdecimal() for part in text.split(",")):
        return value
    return _shapes(value)


BatchAxis = Annotated[int | Literal["auto", "none"], BeforeValidator(_batch_axis)]
TopN = Annotated[int | Literal["auto"], BeforeValidator(_top_n)]
Constants = Annotated[dict[str, object], BeforeValidator(_constants)]
Sample = Annotated[
    str | tuple[int, ...] | tuple[tuple[int, ...], ...] | dict[str, tuple[int, ...]] | None, BeforeValidator(_sample)
]
