"""Pooling, by Caffe's own rules.

The output is rounded up: ceil((size + 2 * pad - kernel) / stride) + 1, and with padding a last window that would
start beyond the image and its leading padding is left out. An average divides by the part of its window that lies
in the image or the padding, not by what is in the image only.
"""

import numpy as np
import openvino.opset13 as ops

from beam_serving.models.formats.caffe.layer_context import Site, Tensor, along, positive, shape_of, spatial
from beam_serving.models.formats.caffe.message import Message, TextError

_WINDOW = [
    "kernel_size",
    "kernel_h",
    "kernel_w",
    "stride",
    "stride_h",
    "stride_w",
    "pad",
    "pad_h",
    "pad_w",
    "ceil_mode",
    "round_mode",
]


def build_pooling(site: Site) -> list[Tensor]:
    param = site.param("pooling_param")
    param.ignore(("engine",))
    data = site.bottom(rank=4)
    method = param.choice("pool", "MAX")
    if method == "STOCHASTIC":
        raise TextError("pool STOCHASTIC picks at random, wanted MAX or AVE")
    if site.tops != 1:
        raise TextError("the mask of positions (a second top) is not supported")
    if param.flag("global_pooling", False):
        param.ignore(_WINDOW)
        reduce = ops.reduce_max if method == "MAX" else ops.reduce_mean
        return [reduce(data, np.array([2, 3]), keep_dims=True).output(0)]
    return [_pool(param, data, method)]


def _pool(param: Message, data: Tensor, method: str) -> Tensor:
    sizes = list(shape_of(data)[2:])
    kernel = spatial(param, ("kernel_size", "kernel_h", "kernel_w"), 2, None)
    strides = spatial(param, ("stride", "stride_h", "stride_w"), 2, 1)
    pads = spatial(param, ("pad", "pad_h", "pad_w"), 2, 0)
    positive("its kernel or stride", [*kernel, *strides])
    if any(pad >= k for pad, k in zip(pads, kernel, strict=True)):
        raise TextError(f"its padding {pads} is not smaller than its kernel {kernel}")
    ceil = param.flag("ceil_mode", True) and param.choice("round_mode", "CEIL") == "CEIL"
    axes = list(zip(sizes, kernel, strides, pads, strict=True))
    counts = [_windows(*axis, ceil, any(pads)) for axis in axes]
    ends = [
        max(0, (count - 1) * stride + k - size - pad)
        for count, (size, k, stride, pad) in zip(counts, axes, strict=True)
    ]
    if method == "MAX":
        dilations = [1, 1]
        return ops.max_pool(data, strides, dilations, pads, ends, kernel).output(0)
    if not any(pads):
        return ops.avg_pool(data, strides, pads, ends, kernel, exclude_pad=True).output(0)
    mean = ops.avg_pool(data, strides, pads, ends, kernel, exclude_pad=False).output(0)
    for index, (count, (size, k, stride, pad)) in enumerate(zip(counts, axes, strict=True)):
        starts = np.arange(count) * stride - pad
        lengths = np.minimum(starts + k, size + pad) - starts
        if (lengths != k).any():
            mean = ops.multiply(mean, along((k / lengths).astype(np.float32), 2 + index, 4)).output(0)
    return mean


def _windows(size: int, kernel: int, stride: int, pad: int, ceil: bool, padded: bool) -> int:
    """How many windows there are along one axis; `padded` tells whether any axis has padding."""
    room = size + 2 * pad - kernel
    if room < 0:
        raise TextError(f"its kernel of size {kernel} is larger than its input of size {size} with padding {pad}")
    count = (-(-room // stride) if ceil else room // stride) + 1
    if padded and (count - 1) * stride >= size + pad:
        count -= 1
    if (count - 1) * stride >= size + pad:
        raise TextError(f"its last window lies outside the input of size {size} (kernel {kernel}, stride {stride})")
    return count
