"""Texts: the field `text:<name>` holds JSON, one string or nested lists of strings; the nesting is the shape.

In an array a text is a `str`, of the type object. A text that stands alone is an array without dimensions.
"""

import json
from itertools import chain
from typing import Any

import numpy as np

from beam_serving.errors import RequestError
from beam_serving.protocol.json_text import parse_json
from beam_serving.protocol.limits import Limits

_SHOWN_CHARS = 64


def is_text(array: np.ndarray) -> bool:
    """Return whether an array has texts for elements, and no numbers."""
    return array.dtype.kind in "OSU"


def starts_with_text(value: object) -> bool:
    """Return whether a value is text by its first: NumPy's own arrays of text give each the room of the longest."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, str | bytes) or getattr(getattr(value, "dtype", None), "kind", "") in ("O", "S", "U", "T")


def from_lists(value: object) -> np.ndarray:
    """Make an array of a string or of nested lists of strings.

    Raises:
        ValueError: the lists are not regular, hold something else than strings, or a string is no Unicode text.
    """
    shape: list[int] = []
    first = value
    while isinstance(first, list | tuple):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    level: list[Any] = [value]
    for size in shape:
        if not all(isinstance(items, list | tuple) and len(items) == size for items in level):
            raise ValueError("its lists differ in length or depth")
        level = list(chain.from_iterable(level))
    array = np.empty(shape, object)
    array.reshape(-1)[:] = [_checked(text) for text in level]
    return array


def from_array(array: np.ndarray) -> np.ndarray:
    """Make an array of `str` of one of `str` or of `bytes`, which are read as UTF-8.

    Raises:
        ValueError: an element is neither, or is no Unicode text.
    """
    texts = np.empty(array.shape, object)
    texts.reshape(-1)[:] = [_checked(_decoded(text)) for text in array.reshape(-1).tolist()]
    return texts


def _decoded(text: object) -> object:
    if not isinstance(text, bytes):
        return text
    try:
        return text.decode()
    except UnicodeDecodeError as err:
        raise ValueError(f"it has bytes that are no UTF-8 text, {_shown(text)}") from err


def _checked(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError(f"it has {_shown(text)}, of type {type(text).__name__}, among its texts")
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise ValueError(f"it has half of a surrogate pair, which is no text, in {_shown(text)}") from err
    return str(text)


def _shown(value: object) -> str:
    shown = ascii(value[:_SHOWN_CHARS] if isinstance(value, str | bytes) else value)
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[: _SHOWN_CHARS - 1]}..."


def text_json(texts: np.ndarray) -> bytes:
    """Write texts as JSON, in UTF-8.

    Raises:
        ValueError: see `from_array`.
    """
    return json.dumps(from_array(texts).tolist(), ensure_ascii=False, separators=(",", ":")).encode()


def text_fields(name: bytes, texts: np.ndarray) -> dict[bytes, bytes]:
    """Write texts as the field `text:<name>`, with `shape:<name>` where lists that are empty do not show the shape.

    Raises:
        ValueError: see `from_array`.
    """
    fields = {b"text:" + name: text_json(texts)}
    if texts.ndim > 1 and not texts.size:
        fields[b"shape:" + name] = b",".join([b"%d" % dim for dim in texts.shape])
    return fields


def decode_text(raw: bytes, limits: Limits) -> np.ndarray:
    """Read the field of a request.

    Raises:
        RequestError: it is not JSON of a string or of nested lists of strings, or it is above a limit.
    """
    try:
        texts = from_lists(parse_json(raw, limits, "text"))
    except ValueError as err:
        raise RequestError(f"text is no string and no regular list of strings: {err}") from err
    if not texts.size:
        raise RequestError("list of texts is empty")
    if texts.ndim > limits.max_rank:
        raise RequestError(f"text has {texts.ndim} dimensions, at most {limits.max_rank} are served")
    return texts
