"""What a layer's builder gets to see, and the few helpers that all builders share.

The graph is built with the declared batch size, so that every shape is a plain tuple of integers; it is made dynamic
at the end. So a builder must never write the batch size into the graph: `reshape` takes care of that.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import openvino as ov
import openvino.opset13 as ops

from beam_serving.models.formats.caffe.message import Message, TextError
from beam_serving.models.formats.caffe.weights import Blob

Tensor: TypeAlias = ov.Output
"""The result of a node, with a static shape while the graph is being built."""

MAX_KERNEL = 1 << 16
"""Limit of kernel sizes, strides, paddings and dilations; real ones are below a few hundred."""


class Site(NamedTuple):
    """A layer at its place in the graph: what it computes from, its learned blobs and how many tops it has."""

    message: Message
    bottoms: tuple[Tensor, ...]
    blobs: tuple[Blob, ...]
    tops: int

    def param(self, name: str) -> Message:
        """Return the layer's own parameters."""
        return self.message.message(name)

    def bottom(self, rank: int | None = None) -> Tensor:
        """Return the only bottom.

        Raises TextError when there are more or fewer, or it has another rank than wanted.
        """
        self.want_bottoms(1, 1)
        if rank is not None and len(shape_of(self.bottoms[0])) != rank:
            raise TextError(f"its input has the shape {list(shape_of(self.bottoms[0]))}, wanted {rank} dimensions")
        return self.bottoms[0]

    def want_bottoms(self, least: int, most: int) -> None:
        if not least <= len(self.bottoms) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise TextError(f"{len(self.bottoms)} bottoms, wanted {wanted}")

    def blob(self, index: int, shape: Sequence[int], what: str) -> Blob:
        """Return a learned blob in the wanted shape; the file may have more leading ones, as 4-D blobs of 2014 do.

        Raises TextError when the file has no such blob, or one of another shape.
        """
        if index >= len(self.blobs):
            raise TextError(f"no {what} {list(shape)} in the caffemodel, which has {len(self.blobs)} blobs of it")
        blob = self.blobs[index]
        if _without_leading_ones(blob.shape) != _without_leading_ones(shape):
            raise TextError(f"{what} of shape {list(blob.shape)} in the caffemodel, wanted {list(shape)}")
        return blob.reshape(tuple(shape))

    def want_blobs(self, count: int) -> None:
        """Raise TextError for more blobs than the layer uses: the two files do not belong together."""
        if len(self.blobs) > count:
            raise TextError(f"the caffemodel has {len(self.blobs)} blobs of it, wanted {count}")


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """Return the static shape, with the declared batch size first."""
    return tuple(tensor.get_shape())


class _Writeable:
    """Shows a read-only array as a writeable one, which OpenVINO wants of memory it shares but only ever reads."""

    def __init__(self, array: Blob) -> None:
        self._array = array
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def constant(values: npt.ArrayLike) -> Tensor:
    """Return a float32 constant. A contiguous float32 blob is not copied: the graph keeps the mapped file alive."""
    array = np.asarray(values)
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, np.float32).reshape(array.shape)
    if not array.flags.writeable:
        array = np.asarray(_Writeable(array))
    return ops.constant(array, shared_memory=True).output(0)


def indices(values: Sequence[int]) -> Tensor:
    return ops.constant(np.asarray(values, np.int64)).output(0)


def scalar(value: float) -> Tensor:
    return constant(value)


def reshape(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Reshape to a static shape whose first axis goes along with the batch.

    Raises TextError when the number of elements differs.
    """
    if math.prod(shape) != math.prod(shape_of(tensor)):
        raise TextError(f"cannot reshape {list(shape_of(tensor))} to {list(shape)}")
    if not shape:
        return ops.reshape(tensor, indices([]), special_zero=False).output(0)
    first = 0 if shape_of(tensor)[:1] == (shape[0],) else -1
    return ops.reshape(tensor, indices([first, *shape[1:]]), special_zero=True).output(0)


def axis_of(value: int, rank: int, least: int = 1) -> int:
    """Resolve a maybe negative axis.

    Raises TextError when there is no such axis, or it is below `least`: axis 0 is the batch, whose examples are
    independent requests.
    """
    axis = value + rank if value < 0 else value
    if not 0 <= axis < rank:
        raise TextError(f"axis {value} of {rank} dimensions does not exist")
    if axis < least:
        raise TextError(f"axis {value} is the batch, whose examples are served independently; wanted another axis")
    return axis


def along(values: Blob | Sequence[float], axis: int, rank: int) -> Tensor:
    """Return a constant that spreads over a blob of `rank` dimensions, its own first axis standing at `axis`."""
    array = np.asarray(values)
    return constant(array.reshape((1,) * axis + array.shape + (1,) * (rank - axis - array.ndim)))


def spatial(param: Message, names: tuple[str, str, str], count: int, default: int | None) -> list[int]:
    """Return a size for each of `count` spatial axes: repeated, one for all, or as its _h and _w forms.

    Raises TextError when it is missing without a default, negative, or beyond `MAX_KERNEL`.
    """
    repeated, height, width = names
    sizes = param.integers(repeated)
    if param.has(height) or param.has(width):
        if sizes or count != 2:
            raise TextError(f"'{height}' and '{width}' go with 2 spatial axes and without '{repeated}'")
        sizes = [param.integer(height, default), param.integer(width, default)]
    if not sizes and default is not None:
        sizes = [default]
    if not sizes:
        raise TextError(f"field '{repeated}' is missing")
    if len(sizes) not in (1, count):
        raise TextError(f"field '{repeated}' has {len(sizes)} values, wanted 1 or {count}")
    if not all(0 <= size <= MAX_KERNEL for size in sizes):
        raise TextError(f"field '{repeated}' is {sizes}, wanted 0 to {MAX_KERNEL}")
    return sizes if len(sizes) == count else sizes * count


def positive(what: str, sizes: Sequence[int]) -> None:
    if not all(size > 0 for size in sizes):
        raise TextError(f"{what} is {list(sizes)}, wanted at least 1")


def _without_leading_ones(shape: Sequence[int]) -> tuple[int, ...]:
    dims = list(shape)
    while dims and dims[0] == 1:
        dims.pop(0)
    return tuple(dims)
