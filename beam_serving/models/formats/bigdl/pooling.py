"""Pooling. Source: BigDL 0.13's pooling layers and `Utils.getOutSizeAndPadding`.

The library computes the output size first (floor or ceil; the last window may not start behind the input and its
padding); here the end is padded so far that exactly this size comes out.
"""

from math import prod

import numpy as np
import openvino.opset15 as ops

from beam_serving.models.formats.bigdl.convolution import SHORT, VOLUME, Window, pads, window
from beam_serving.models.formats.bigdl.layer import (
    MAX_CONSTANT,
    Layer,
    Node,
    along,
    channels_first,
    channels_last,
    constant,
    rank,
    reduced,
    size,
    transpose,
)


def max_pooling(layer: Layer, x: Node) -> Node:
    return _in_format(layer, x, _maximum)


def average_pooling(layer: Layer, x: Node) -> Node:
    return _in_format(layer, x, _average)


def _in_format(layer: Layer, x: Node, pool) -> Node:  # type: ignore[no-untyped-def]
    if rank(x) != 4:
        raise layer.refuse(f"the input has {rank(x)} dimensions, 4 are expected")
    if layer.channels_last():
        return channels_last(pool(layer, channels_first(x), window(layer, SHORT)))
    return pool(layer, x, window(layer, SHORT))


def volumetric_max_pooling(layer: Layer, x: Node) -> Node:
    return _maximum(layer, x, window(layer, VOLUME))


def volumetric_average_pooling(layer: Layer, x: Node) -> Node:
    return _average(layer, x, window(layer, VOLUME))


def temporal_max_pooling(layer: Layer, x: Node) -> Node:
    kernel = layer.integer("kW")
    stride = layer.integer("dW", -1)
    w = Window((kernel,), (kernel if stride == -1 else stride,), (0,), (1,))
    if min(*w.kernel, *w.stride) < 1:
        raise layer.refuse(f"kernel {w.kernel}, stride {w.stride}")
    return transpose(_maximum(layer, transpose(x, [0, 2, 1]), w), [0, 2, 1])


def _maximum(layer: Layer, x: Node, w: Window) -> Node:
    before, behind, _ = _geometry(layer, x, w)
    return ops.max_pool(x, list(w.stride), [1] * len(w.kernel), before, behind, list(w.kernel)).output(0)


def _average(layer: Layer, x: Node, w: Window) -> Node:
    """Return the sum of each window by the number of pixels that the library counts for it."""
    axes = list(range(2, rank(x)))
    if layer.flag("globalPooling", False):
        return reduced("mean" if layer.flag("divide", True) else "sum", x, axes, keep_dims=True)
    before, behind, outputs = _geometry(layer, x, w)
    y = ops.avg_pool(x, list(w.stride), before, behind, list(w.kernel), False)
    if not layer.flag("divide", True) and layer.flag("countIncludePad", True) and not any(before):
        return ops.multiply(y, constant(float(prod(w.kernel))))
    declared = pads(x, w)
    for axis, output in enumerate(outputs):
        counts = _counted(layer, size(x, axis + 2), w, axis, output, declared)
        if not np.all(counts == w.kernel[axis]):
            y = ops.multiply(y, along((w.kernel[axis] / counts).astype(np.float32), axis + 2, rank(x)))
    return y if layer.flag("divide", True) else ops.multiply(y, constant(float(prod(w.kernel))))


def _counted(
    layer: Layer, length: int, w: Window, axis: int, output: int, declared: tuple[tuple[int, ...], tuple[int, ...]]
) -> np.ndarray:
    """How many pixels of each window along one axis are counted: with the declared padding, or without any."""
    start = np.arange(output) * w.stride[axis] - declared[0][axis]
    end = np.minimum(start + w.kernel[axis], length + declared[1][axis])
    if layer.flag("countIncludePad", True):
        return end - start
    return np.minimum(end, length) - np.maximum(start, 0)


def _geometry(layer: Layer, x: Node, w: Window) -> tuple[list[int], list[int], list[int]]:
    """Return padding before, padding behind and output size of each spatial dimension."""
    ceil = layer.flag("ceil_mode", False) or layer.flag("ceilMode", False)
    before, behind = (list(amounts) for amounts in pads(x, w))
    outputs = []
    for axis, (kernel, stride) in enumerate(zip(w.kernel, w.stride, strict=True)):
        length = size(x, axis + 2)
        if w.padding is None:
            output = -(-length // stride)
        else:
            if before[axis] > kernel // 2 or length + before[axis] < kernel:
                raise layer.refuse(f"kernel {kernel} with padding {before[axis]} for an input of {length}")
            free = length - kernel + 2 * before[axis]
            output = (-(-free // stride) if ceil else free // stride) + 1
            if any(w.padding) and (output - 1) * stride >= length + before[axis]:
                output -= 1
        if not 1 <= output <= MAX_CONSTANT:
            raise layer.refuse(f"kernel {kernel} with stride {stride} for an input of {length}")
        outputs.append(output)
        behind[axis] = max(0, (output - 1) * stride + kernel - length - before[axis])
    return before, behind, outputs
