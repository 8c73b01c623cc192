"""A tensor as three fields: raw little-endian bytes in C order, the name of the dtype, and the shape in decimals."""

import math
import re
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np

from beam_serving.errors import RequestError
from beam_serving.protocol.limits import quote

DTYPES = {
    name.encode(): np.dtype(name).newbyteorder("<")
    for name in (
        "bool",
        *("int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
}
"""Every dtype of the wire, by its name: fixed size, plain numbers, nothing that could hold an object."""

_SHAPE = re.compile(rb"\d{1,18}(,\d{1,18})*")
_MAX_SHAPE_BYTES = 640

Array = TypeVar("Array", bound=np.ndarray)


class Layout(NamedTuple):
    """The dtype and shape of a tensor, and how many bytes it takes."""

    dtype: np.dtype
    shape: tuple[int, ...]
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.dtype.name}[{','.join(map(str, self.shape))}]"


@lru_cache(maxsize=256)
def parse_layout(dtype: bytes, shape: bytes, max_rank: int, min_dim: int = 1) -> Layout:
    """Read a dtype name such as `float32` and a shape such as `3,224,224`; an empty shape is a scalar.

    Raises:
        RequestError: the dtype is not one of `DTYPES`, or the shape is not numbers of at least `min_dim`.
    """
    known = DTYPES.get(dtype)
    if known is None:
        raise RequestError(f"dtype is {quote(dtype)}, wanted is one of {b', '.join(DTYPES).decode()}")
    if not shape:
        return Layout(known, (), known.itemsize)
    if len(shape) > _MAX_SHAPE_BYTES or not _SHAPE.fullmatch(shape):
        raise RequestError(f"shape is {quote(shape)}, wanted are whole numbers from {min_dim} joined by commas")
    dims = tuple(map(int, shape.split(b",")))
    if min(dims) < min_dim:
        raise RequestError(f"shape is {quote(shape)}, every dimension must be at least {min_dim}")
    if len(dims) > max_rank:
        raise RequestError(f"shape has {len(dims)} dimensions, at most {max_rank} are served")
    return Layout(known, dims, math.prod(dims) * known.itemsize)


def view(raw: bytes, layout: Layout, kind: type[Array] = np.ndarray) -> Array:  # type: ignore[assignment]
    """Return a read-only array on the bytes themselves (of booleans, a copy in which every byte above 0 is true).

    Raises:
        RequestError: the bytes are more or fewer than the layout needs.
    """
    if len(raw) != layout.size_bytes:
        raise RequestError(f"payload is {len(raw)} bytes, {layout} needs {layout.size_bytes}")
    if layout.dtype.kind == "b":
        return kind(layout.shape, np.uint8, raw).astype(np.bool_)  # type: ignore[return-value]
    return kind(layout.shape, layout.dtype, raw)


def tensor_fields(name: bytes, array: np.ndarray) -> dict[bytes, bytes]:
    """Return the fields `tensor:<name>`, `dtype:<name>` and `shape:<name>` of an array.

    Raises:
        TypeError: its dtype is not one of `DTYPES`.
    """
    dtype = array.dtype.name.encode()
    known = DTYPES.get(dtype)
    if known is None:
        wanted = b", ".join(DTYPES).decode()
        raise TypeError(f"tensor {quote(name)} has dtype {array.dtype}, wanted is one of {wanted}")
    return {
        b"tensor:" + name: array.astype(known, copy=False).tobytes(),
        b"dtype:" + name: dtype,
        b"shape:" + name: b",".join([b"%d" % dim for dim in array.shape]),
    }
