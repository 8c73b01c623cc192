"""Convolutions of every kind. Source: BigDL 0.13's `updateOutput` and its `Utils.getOutSizeAndPadding`.

Padding -1 in all directions stands for SAME. Weights are (group, out/group, in/group, kernel...); with the format
NHWC they are (group, kernel..., in/group, out/group).
"""

from typing import NamedTuple

import numpy as np
import openvino.opset15 as ops

from beam_serving.models.formats.bigdl.layer import (
    Layer,
    Node,
    along,
    channels_first,
    channels_last,
    constant,
    narrow,
    rank,
    reshape,
    size,
    transpose,
)


class Window(NamedTuple):
    """Kernel, stride, padding and dilation of each spatial dimension; padding None is SAME."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | None
    dilation: tuple[int, ...]


def window(layer: Layer, names: dict[str, str], dilation: tuple[int, ...] | None = None) -> Window:
    """Read a window; `names` gives the letter of each spatial dimension (H, W) its attributes' patterns."""
    letters = names["dimensions"]
    kernel = tuple(layer.integer(names["kernel"] + letter) for letter in letters)
    stride = tuple(layer.integer(names["stride"] + letter, 1) for letter in letters)
    padding = tuple(layer.integer(names["pad"] + letter, 0) for letter in letters)
    same = all(pad == -1 for pad in padding)
    dilation = dilation or (1,) * len(kernel)
    if min(*kernel, *stride, *dilation) < 1 or (min(padding) < 0 and not same):
        raise layer.refuse(f"kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation}")
    return Window(kernel, stride, None if same else padding, dilation)


SHORT = {"dimensions": "HW", "kernel": "k", "stride": "d", "pad": "pad"}
LONG = {"dimensions": "HW", "kernel": "kernel", "stride": "stride", "pad": "pad"}
VOLUME = {"dimensions": "THW", "kernel": "k", "stride": "d", "pad": "pad"}


def pads(x: Node, w: Window) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return padding before and behind; SAME gives the odd pixel to the end. `x` is channels-first."""
    if w.padding is not None:
        return w.padding, w.padding
    before, behind = [], []
    for axis, (kernel, stride) in enumerate(zip(w.kernel, w.stride, strict=True), 2):
        length = size(x, axis)
        needed = max(0, (-(-length // stride) - 1) * stride + kernel - length)
        before.append(needed // 2)
        behind.append(needed - needed // 2)
    return tuple(before), tuple(behind)


def convolve(x: Node, weight: np.ndarray, w: Window, bias: np.ndarray | None) -> Node:
    """Convolve a channels-first tensor; `weight` is (group, out/group, in/group, kernel...)."""
    before, behind = pads(x, w)
    if weight.shape[0] == 1:
        y = ops.convolution(x, constant(weight[0]), w.stride, before, behind, w.dilation)
    else:
        y = ops.group_convolution(x, constant(weight), w.stride, before, behind, w.dilation)
    return y if bias is None else ops.add(y, along(bias, 1, rank(y)))


def spatial_convolution(layer: Layer, x: Node) -> Node:
    inside, outside, groups = layer.integer("nInputPlane"), layer.integer("nOutputPlane"), layer.integer("nGroup", 1)
    if min(inside, outside, groups) < 1:
        raise layer.refuse(f"{inside} to {outside} planes in {groups} groups")
    w = window(layer, LONG)
    bias = layer.parameter(1, [outside]) if len(layer.module.parameters) > 1 else None
    if layer.channels_last():
        weight = layer.parameter(0, [groups, *w.kernel, inside // groups, outside // groups])
        return channels_last(convolve(channels_first(x), weight.transpose(0, 4, 3, 1, 2), w, bias))
    return convolve(x, layer.parameter(0, [groups, outside // groups, inside // groups, *w.kernel]), w, bias)


def dilated_convolution(layer: Layer, x: Node) -> Node:
    inside, outside = layer.integer("nInputPlane"), layer.integer("nOutputPlane")
    w = window(layer, SHORT, (layer.integer("dilationH", 1), layer.integer("dilationW", 1)))
    weight = layer.parameter(0, [1, outside, inside, *w.kernel])
    return convolve(x, weight, w, layer.parameter(1, [outside]) if len(layer.module.parameters) > 1 else None)


def volumetric_convolution(layer: Layer, x: Node) -> Node:
    inside, outside = layer.integer("nInputPlane"), layer.integer("nOutputPlane")
    w = window(layer, VOLUME)
    weight = layer.parameter(0, [1, outside, inside, *w.kernel])
    return convolve(x, weight, w, layer.parameter(1, [outside]) if len(layer.module.parameters) > 1 else None)


def temporal_convolution(layer: Layer, x: Node) -> Node:
    """(batch, time, frame); the weight of an output is its kernel's frames one after the other."""
    inside, outside = layer.integer("inputFrameSize"), layer.integer("outputFrameSize")
    kernel, stride = layer.integer("kernelW"), layer.integer("strideW", 1)
    weight = layer.parameter(0, [1, outside, kernel, inside]).transpose(0, 1, 3, 2)
    w = Window((kernel,), (stride,), (0,), (1,))
    return transpose(convolve(transpose(x, [0, 2, 1]), weight, w, layer.parameter(1, [outside])), [0, 2, 1])


def full_convolution(layer: Layer, x: Node) -> Node:
    """SpatialFullConvolution, also called deconvolution; its eleven integers stand in one attribute."""
    if "intParams" not in layer.module.attributes:
        planes = tuple(layer.integer(name) for name in ("nInputPlane", "nOutputPlane"))
        adjust = tuple(layer.integer(name, 0) for name in ("adjH", "adjW"))
        return _full(layer, x, (*planes, layer.integer("nGroup", 1)), window(layer, SHORT), adjust)
    values = layer.integers("intParams")
    if len(values) != 11 or min(values[:6]) < 1 or min(values[6:]) < 0:
        raise layer.refuse(f"attribute intParams is {values}")
    w = Window(values[3:1:-1], values[5:3:-1], values[7:5:-1], (1, 1))
    return _full(layer, x, (*values[:2], values[10]), w, (values[9], values[8]))


def volumetric_full_convolution(layer: Layer, x: Node) -> Node:
    planes = tuple(layer.integer(name) for name in ("nInputPlane", "nOutputPlane"))
    adjust = tuple(layer.integer(name, 0) for name in ("adjT", "adjH", "adjW"))
    return _full(layer, x, (*planes, layer.integer("nGroup", 1)), window(layer, VOLUME), adjust)


def _full(layer: Layer, x: Node, planes: tuple[int, ...], w: Window, adjust: tuple[int, ...]) -> Node:
    inside, outside, groups = planes
    if isinstance(x, list):
        raise layer.refuse("a second input that tells the output size is not supported")
    if w.padding is None or groups < 1:
        raise layer.refuse("SAME padding of a full convolution is not supported")
    weight = layer.parameter(0, [groups, inside // groups, outside // groups, *w.kernel])
    options = {"pads_begin": w.padding, "pads_end": w.padding, "output_padding": list(adjust)}
    if groups == 1:
        y = ops.convolution_backprop_data(x, constant(weight[0]), list(w.stride), **options)
    else:
        y = ops.group_convolution_backprop_data(x, constant(weight), list(w.stride), **options)
    return y if len(layer.module.parameters) < 2 else ops.add(y, along(layer.parameter(1, [outside]), 1, rank(y)))


def separable_convolution(layer: Layer, x: Node) -> Node:
    """Return a depthwise convolution and a 1x1 convolution behind it."""
    inside, outside = layer.integer("nInputChannel"), layer.integer("nOutputChannel")
    times = layer.integer("depthMultiplier")
    w = window(layer, {"dimensions": "HW", "kernel": "k", "stride": "s", "pad": "p"})
    last = layer.channels_last("dataFormat")
    if last:
        depth = layer.parameter(0, [*w.kernel, inside, times]).transpose(2, 3, 0, 1)
        point = layer.parameter(1, [inside * times, outside]).T
    else:
        depth = layer.parameter(0, [times, inside, *w.kernel]).transpose(1, 0, 2, 3)
        point = layer.parameter(1, [outside, inside * times])
    bias = layer.parameter(2, [outside]) if len(layer.module.parameters) > 2 and layer.flag("hasBias", True) else None
    y = convolve(channels_first(x) if last else x, depth[:, :, None], w, None)
    y = convolve(y, point[None, :, :, None, None], Window((1, 1), (1, 1), (0, 0), (1, 1)), bias)
    return channels_last(y) if last else y


def convolution_map(layer: Layer, x: Node) -> Node:
    """Return a convolution of which only the connections in a table (from, to) exist; the others become zeros."""
    connections = layer.tensor("connTable").astype(np.int64)
    w = window(layer, SHORT)
    inside = size(x, 1)
    bias = layer.parameter(1)
    if connections.ndim != 2 or connections.shape[1] != 2 or len(connections) == 0 or inside * bias.size > 1 << 20:
        raise layer.refuse(f"a connection table of shape {connections.shape}")
    if connections.min() < 1 or (connections.max(0) > (inside, bias.size)).any():
        raise layer.refuse(f"its connections do not lie within {inside} to {bias.size} planes")
    kernels = layer.parameter(0, [len(connections), *w.kernel])
    weight = np.zeros((1, bias.size, inside, *w.kernel), np.float32)
    for (source, target), kernel in zip(connections - 1, kernels, strict=True):
        weight[0, target, source] += kernel
    return convolve(x, weight, w, bias)


def locally_connected_1d(layer: Layer, x: Node) -> Node:
    """Return a temporal convolution with a weight of its own for each step."""
    inside, outside = layer.integer("inputFrameSize"), layer.integer("outputFrameSize")
    kernel, stride = layer.integer("kernelW"), layer.integer("strideW", 1)
    if min(kernel, stride) < 1:
        raise layer.refuse(f"kernel {kernel}, stride {stride}")
    steps = (size(x, 1) - kernel) // stride + 1
    weight = layer.parameter(0, [steps, outside, kernel * inside])
    columns = [reshape(narrow(x, 1, step * stride, kernel), [None, 1, 1, kernel * inside]) for step in range(steps)]
    y = ops.matmul(ops.concat(columns, 1), constant(weight[None]), False, True)
    y = reshape(y, [None, steps, outside])
    bias = layer.parameter(1, [steps, outside]).copy()
    bias[-1] = 0  # the library leaves out the bias of the last step
    return ops.add(y, constant(bias[None]))


def locally_connected_2d(layer: Layer, x: Node) -> Node:
    """Return a convolution with its own weight for each place: (places, out, in * kernel) by (places, in * kernel)."""
    inside, outside = layer.integer("nInputPlane"), layer.integer("nOutputPlane")
    w = window(layer, LONG)
    last = layer.channels_last()
    x = channels_first(x) if last else x
    before, behind = pads(x, w)
    edges = [constant([0, 0, *amounts], np.int64) for amounts in (before, behind)]
    x = ops.pad(x, *edges, "constant", constant(0.0))
    high, wide = ((size(x, axis + 2) - w.kernel[axis]) // w.stride[axis] + 1 for axis in range(2))
    patches = ops.extract_image_patches(x, list(w.kernel), list(w.stride), [1, 1], "valid")
    # OpenVINO orders a patch as (kernel, channel); the library as (channel, kernel), with NHWC as (kernel, channel).
    kernel = w.kernel[0] * w.kernel[1]
    shape = [high * wide, outside, kernel, inside] if last else [high * wide, outside, inside, kernel]
    weight = layer.parameter(0, shape)
    weight = weight if last else weight.transpose(0, 1, 3, 2)
    columns = reshape(transpose(patches, [0, 2, 3, 1]), [None, high * wide, 1, kernel * inside])
    y = ops.matmul(columns, constant(weight.reshape(1, high * wide, outside, -1)), False, True)
    y = reshape(y, [None, high, wide, outside])
    if len(layer.module.parameters) > 1:
        bias = layer.parameter(1)
        if not last:
            bias = bias.reshape(outside, high, wide).transpose(1, 2, 0)
        y = ops.add(y, constant(bias.reshape(1, high, wide, outside)))
    return y if last else channels_first(y)
