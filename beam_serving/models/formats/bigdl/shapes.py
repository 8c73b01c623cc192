"""Layers that rearrange: views, selections, reductions, padding. Source: BigDL 0.13's `updateOutput`.

Dimensions are 1-based and count the batch, unless a layer is told the number of dimensions of one example.
"""

from math import prod

import numpy as np
import openvino.opset15 as ops

from beam_serving.errors import ModelLoadError
from beam_serving.models.formats.bigdl.layer import (
    MAX_CONSTANT,
    Layer,
    Node,
    axis_of,
    channels_first,
    channels_last,
    constant,
    narrow,
    rank,
    reduced,
    reshape,
    size,
    sizes,
    take,
    transpose,
)

_UNSET = (-(1 << 31), (1 << 31) - 1)
_BATCH_FORBIDDEN, _BATCH_KEPT = 1, 2


def view_as(layer: Layer, x: Node) -> Node:
    """Reshape: keeps the batch unless told not to; then the first size has to stand for the batch."""
    target = layer.integers("size")
    if min(target, default=1) < 1:
        raise layer.refuse(f"the size {target} is not positive")
    mode = layer.integer("batchMode", 0)
    shape = sizes(x)
    known = [length for length in shape[1:] if length is not None]
    per_example = prod(known) if len(known) == len(shape) - 1 else None
    wanted = prod(target)
    if mode != _BATCH_FORBIDDEN and (per_example is None or per_example == wanted):
        return reshape(x, [None, *target])
    if mode != _BATCH_KEPT and target and per_example is not None and per_example * target[0] == wanted:
        return reshape(x, [None, *target[1:]])
    raise layer.refuse(f"cannot view {_text(shape)} as {_text(target)} for any number of examples")


def view(layer: Layer, x: Node) -> Node:
    target = layer.integers("sizes")
    if min(target, default=1) < -1 or 0 in target:
        raise layer.refuse(f"the size {target} is not positive")
    if -1 in target:
        return reshape(x, [None if length == -1 else length for length in target])
    return reshape(x, [None, *target])


def infer_reshape(layer: Layer, x: Node) -> Node:
    """-1 is what is left; 0 copies the input's size at the same place (in batch mode: one place before)."""
    target = layer.integers("size")
    shape = sizes(x)
    if len(target) > len(shape) and 0 in target[len(shape) :]:
        raise layer.refuse(f"the size {target} copies dimensions that {_text(shape)} lacks")
    result = [shape[index] if length == 0 else length for index, length in enumerate(target)]
    if layer.flag("batchMode", False):
        result.insert(0, None)
        known = [length for length in shape[1:] if length is not None]
        if -1 in result and len(known) == len(shape) - 1:
            rest = prod(length for length in result if length is not None and length != -1)
            result = [prod(known) // max(rest, 1) if length == -1 else length for length in result]
        return reshape(x, result)
    if -1 in result and None in result:
        # The free batch is copied: what is left is then known from the other sizes.
        known = [length for length in shape if length is not None]
        rest = prod(length for length in result if length is not None and length != -1)
        result = [prod(known) // max(rest, 1) if length == -1 else length for length in result]
    return reshape(x, [None if length == -1 else length for length in result])


def squeeze(layer: Layer, x: Node) -> Node:
    """Drop dimensions of size 1; the free batch is never one of them."""
    dims = layer.module.attributes.get("dims")
    shape = sizes(x)
    if dims is None:
        axes = [axis for axis, length in enumerate(shape) if length == 1]
    else:
        shift = 1 if layer.flag("batchMode", False) else 0
        axes = [dimension - 1 + shift for dimension in layer.integers("dims")]
        axes = [axis for axis in axes if 0 <= axis < len(shape) and shape[axis] == 1]
    return ops.squeeze(x, constant(axes, np.int64)) if axes else x


def unsqueeze(layer: Layer, x: Node) -> Node:
    inside = layer.integer("numInputDims", _UNSET[0])
    dimensions = rank(x)
    shift = dimensions - inside if inside not in _UNSET else 0
    positions = [dimensions + at + 1 if at <= 0 else at for at in layer.integers("pos")]
    axes = sorted(position - 1 + shift for position in positions)
    if not all(0 <= axis <= dimensions for axis in axes):
        raise layer.refuse(f"positions {positions} for {dimensions} dimensions")
    # Positions count the dimensions of the input; each one moves what follows it.
    return ops.unsqueeze(x, constant([axis + index for index, axis in enumerate(axes)], np.int64))


def select(layer: Layer, x: Node) -> Node:
    axis = axis_of(x, layer.integer("dimension"))
    index = layer.integer("index")
    return take(x, axis, size(x, axis) + index if index < 0 else index - 1)


def swap_dimensions(layer: Layer, x: Node) -> Node:
    """Transpose: swaps pairs of dimensions, one after the other."""
    order = list(range(rank(x)))
    for index in range(min(layer.integer("size"), len(layer.module.attributes))):
        pair = layer.integers(f"permutation_{index}")
        first, second = (axis_of(x, dimension) for dimension in pair)
        order[first], order[second] = order[second], order[first]
    return transpose(x, order)


def cut(layer: Layer, x: Node) -> Node:
    """Narrow."""
    axis = axis_of(x, layer.integer("dimension"))
    offset, length = layer.integer("offset"), layer.integer("length", 1)
    if length < 0:
        length = size(x, axis) - offset + length + 2
    return narrow(x, axis, offset - 1, length)


def mean(layer: Layer, x: Node) -> Node:
    return reduced("mean", x, [_sum_axis(layer, x)], keep_dims=not _squeezes(layer, x))


def total(layer: Layer, x: Node) -> Node:
    """Sum."""
    kind = "mean" if layer.flag("sizeAverage", False) else "sum"
    return reduced(kind, x, [_sum_axis(layer, x)], keep_dims=not _squeezes(layer, x))


def _sum_axis(layer: Layer, x: Node) -> int:
    dimension = layer.integer("dimension", 1)
    dimension = rank(x) + dimension + 1 if dimension < 0 else dimension
    inside = layer.integer("nInputDims", -1)
    return axis_of(x, dimension, 1 if inside > 0 and rank(x) == inside + 1 else 0)


def _squeezes(layer: Layer, x: Node) -> bool:
    return layer.flag("squeeze", True) and rank(x) > 1


def largest(layer: Layer, x: Node) -> Node:
    return reduced("max", x, [_extreme_axis(layer, x)], keep_dims=rank(x) == 1)


def smallest(layer: Layer, x: Node) -> Node:
    return reduced("min", x, [_extreme_axis(layer, x)], keep_dims=rank(x) == 1)


def _extreme_axis(layer: Layer, x: Node) -> int:
    inside = layer.integer("numInputDims", _UNSET[0])
    return axis_of(x, layer.integer("dim", 1), 1 if inside not in _UNSET and rank(x) == inside + 1 else 0)


def padding(layer: Layer, x: Node) -> Node:
    """Put |pad| entries of a value before (negative) or behind (positive) the place `nIndex`, counted from there."""
    axis = layer.integer("dim") - (1 if rank(x) == layer.integer("nInputDim") else 0)
    pad, index = layer.integer("pad"), layer.integer("nIndex", 1)
    if not 0 <= axis < rank(x):
        raise layer.refuse(f"dimension {axis + 1} of {rank(x)}")
    length = sizes(x)[axis]
    if pad > 0 and index == 1:
        return _pad(x, axis, 0, pad, layer.number("value", 0.0))
    if pad <= 0 and index == 1:
        return _pad(x, axis, -pad, 0, layer.number("value", 0.0))
    if length is None:
        raise layer.refuse("the dimension it pads in the middle has to be known")
    before = length - index + 1 if pad > 0 else index - 1
    head, tail = narrow(x, axis, 0, before), narrow(x, axis, before, length - before)
    return ops.concat([_pad(head, axis, 0, abs(pad), layer.number("value", 0.0)), tail], axis)


def _pad(x: Node, axis: int, before: int, behind: int, value: float = 0.0) -> Node:
    begin, end = ([amount if index == axis else 0 for index in range(rank(x))] for amount in (before, behind))
    return ops.pad(x, constant(begin, np.int64), constant(end, np.int64), "constant", constant(value))


def zero_padding(layer: Layer, x: Node) -> Node:
    """SpatialZeroPadding; negative amounts cut."""
    amounts = [[layer.integer(name) for name in pair] for pair in (("padTop", "padBottom"), ("padLeft", "padRight"))]
    for axis, (before, behind) in zip((rank(x) - 2, rank(x) - 1), amounts, strict=True):
        x = _crop(x, axis, -min(before, 0), -min(behind, 0))
        x = _pad(x, axis, max(before, 0), max(behind, 0))
    return x


def _crop(x: Node, axis: int, before: int, behind: int) -> Node:
    return narrow(x, axis, before, size(x, axis) - before - behind) if before or behind else x


def cropping_2d(layer: Layer, x: Node) -> Node:
    first = 1 if layer.channels_last("dataFormat") else 2
    for axis, name in enumerate(("heightCrop", "widthCrop"), first):
        x = _crop(x, axis, *layer.integers(name))
    return x


def cropping_3d(layer: Layer, x: Node) -> Node:
    first = 1 if layer.text("dataFormat", "channel_first").lower() == "channel_last" else 2
    for axis, name in enumerate(("dim1Crop", "dim2Crop", "dim3Crop"), first):
        x = _crop(x, axis, *layer.integers(name))
    return x


def _repeat(x: Node, axis: int, times: int) -> Node:
    """Repeat every entry of an axis in place."""
    length = size(x, axis)
    if not 1 <= times * length <= MAX_CONSTANT:
        raise ModelLoadError(f"{length} entries are repeated {times} times")
    index = np.repeat(np.arange(length), times)
    return ops.gather(x, constant(index, np.int64), constant(axis, np.int64))


def upsampling_1d(layer: Layer, x: Node) -> Node:
    return _repeat(x, 1, layer.integer("length"))


def upsampling_2d(layer: Layer, x: Node) -> Node:
    first = 1 if layer.channels_last() else 2
    for axis, times in enumerate(layer.integers("size"), first):
        x = _repeat(x, axis, times)
    return x


def upsampling_3d(layer: Layer, x: Node) -> Node:
    for axis, times in enumerate(layer.integers("size"), 2):
        x = _repeat(x, axis, times)
    return x


def resize_bilinear(layer: Layer, x: Node) -> Node:
    last = layer.channels_last("dataFormat")
    target = constant([layer.integer("outputHeight"), layer.integer("outputWidth")], np.int64)
    corners = "align_corners" if layer.flag("alignCorners") else "asymmetric"
    y = channels_first(x) if last else x
    axes = constant([2, 3], np.int64)
    y = ops.interpolate(y, target, "linear_onnx", "sizes", coordinate_transformation_mode=corners, axes=axes)
    return channels_last(y) if last else y


def tile(layer: Layer, x: Node) -> Node:
    axis = axis_of(x, layer.integer("dim", 1))
    repeats = [layer.integer("copies", 2) if index == axis else 1 for index in range(rank(x))]
    return ops.tile(x, constant(repeats, np.int64))


def replicate(layer: Layer, x: Node) -> Node:
    axis = layer.integer("dim", 1) - 1 + (1 if rank(x) > layer.integer("nDim", _UNSET[1]) else 0)
    if not 0 <= axis <= rank(x):
        raise layer.refuse(f"dimension {axis + 1} for an input of {rank(x)}")
    y = ops.unsqueeze(x, constant([axis], np.int64))
    repeats = [layer.integer("nFeatures") if index == axis else 1 for index in range(rank(x) + 1)]
    return ops.tile(y, constant(repeats, np.int64))


def reverse(layer: Layer, x: Node) -> Node:
    axis = axis_of(x, layer.integer("dim", 1))
    return ops.slice(x, *(constant([value], np.int64) for value in (-1, -(1 << 62), -1, axis)))


def expand_size(layer: Layer, x: Node) -> Node:
    repeats = [
        1 if length != 1 or target == -1 else target
        for length, target in zip(sizes(x), layer.integers("targetSizes"), strict=True)
    ]
    return ops.tile(x, constant(repeats, np.int64))


def _text(shape: tuple[int | None, ...]) -> str:
    return "x".join("N" if length is None else str(length) for length in shape)
