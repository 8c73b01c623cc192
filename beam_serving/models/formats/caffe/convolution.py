"""Convolution, Deconvolution, DepthwiseConvolution and InnerProduct: the layers with matrices of weights."""

import math

import openvino.opset13 as ops

from beam_serving.models.formats.caffe.layer_context import (
    Site,
    Tensor,
    along,
    axis_of,
    constant,
    positive,
    reshape,
    shape_of,
    spatial,
)
from beam_serving.models.formats.caffe.message import Message, TextError

IGNORED = ("weight_filler", "bias_filler", "engine", "force_nd_im2col")
"""How the weights were made and which code ran: nothing that a result depends on."""


def build_convolution(site: Site) -> list[Tensor]:
    return _convolve(site, site.param("convolution_param"), depthwise=False)


def build_depthwise(site: Site) -> list[Tensor]:
    """Return a convolution with as many groups as channels, whatever `group` says; forks write one or the other."""
    return _convolve(site, site.param("convolution_param"), depthwise=True)


def build_deconvolution(site: Site) -> list[Tensor]:
    """Return the gradient of a convolution: size = stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 * pad."""
    param = site.param("convolution_param")
    data, (channels, *sizes), outputs, group = _grouped(site, param, depthwise=False)
    kernel, window = _window(param, len(sizes))
    weights = site.blob(0, [channels, outputs // group, *kernel], "weights")
    for size, k, stride, pad, dilation in zip(
        sizes, kernel, window["strides"], window["pads_begin"], window["dilations"], strict=True
    ):
        if stride * (size - 1) + dilation * (k - 1) + 1 - 2 * pad < 1:
            raise TextError(f"nothing is left of its input of size {size} with kernel {k}, stride {stride}, pad {pad}")
    if group == 1:
        node = ops.convolution_backprop_data(data, constant(weights), **window)
    else:
        split = weights.reshape(group, channels // group, outputs // group, *kernel)
        node = ops.group_convolution_backprop_data(data, constant(split), **window)
    return [_with_bias(site, param, node.output(0), outputs)]


def build_inner_product(site: Site) -> list[Tensor]:
    """Axes from `axis` on are one vector; `transpose` tells that the weights are stored (inputs, outputs)."""
    param = site.param("inner_product_param")
    param.ignore(IGNORED)
    data = site.bottom()
    shape = shape_of(data)
    axis = axis_of(param.integer("axis", 1), len(shape))
    outputs, inputs = param.integer("num_output"), math.prod(shape[axis:])
    transposed = param.flag("transpose", False)
    weights = site.blob(0, [inputs, outputs] if transposed else [outputs, inputs], "weights")
    rows = reshape(data, [*shape[:axis], inputs])
    product = ops.matmul(rows, constant(weights), False, not transposed).output(0)
    has_bias = param.flag("bias_term", True)
    site.want_blobs(2 if has_bias else 1)
    if not has_bias:
        return [product]
    return [ops.add(product, along(site.blob(1, [outputs], "bias"), axis, axis + 1)).output(0)]


def _convolve(site: Site, param: Message, depthwise: bool) -> list[Tensor]:
    data, (channels, *sizes), outputs, group = _grouped(site, param, depthwise)
    kernel, window = _window(param, len(sizes))
    for size, k, pad, dilation in zip(sizes, kernel, window["pads_begin"], window["dilations"], strict=True):
        if size + 2 * pad < dilation * (k - 1) + 1:
            raise TextError(f"its kernel {kernel} is larger than its input {sizes} with padding")
    weights = site.blob(0, [outputs, channels // group, *kernel], "weights")
    if group == 1:
        node = ops.convolution(data, constant(weights), **window)
    else:
        split = weights.reshape(group, outputs // group, channels // group, *kernel)
        node = ops.group_convolution(data, constant(split), **window)
    return [_with_bias(site, param, node.output(0), outputs)]


def _grouped(site: Site, param: Message, depthwise: bool) -> tuple[Tensor, list[int], int, int]:
    """Return the bottom, its channels and spatial sizes, the number of outputs and that of groups."""
    param.ignore(IGNORED)
    data = site.bottom()
    _, *rest = shape_of(data)
    if not 2 <= len(rest) <= 4:
        raise TextError(f"its input has the shape {list(shape_of(data))}, wanted 3 to 5 dimensions")
    if axis_of(param.integer("axis", 1), len(rest) + 1) != 1:
        raise TextError("only axis 1 can hold the channels")
    outputs, group = param.integer("num_output"), param.integer("group", 1)
    if depthwise:
        group = rest[0]
    if outputs < 1 or group < 1 or outputs % group or rest[0] % group:
        raise TextError(f"{rest[0]} channels, {outputs} outputs and {group} groups do not go together")
    return data, rest, outputs, group


def _window(param: Message, count: int) -> tuple[list[int], dict[str, list[int]]]:
    """Return the kernel's size and the arguments of OpenVINO's convolutions."""
    kernel = spatial(param, ("kernel_size", "kernel_h", "kernel_w"), count, None)
    strides = spatial(param, ("stride", "stride_h", "stride_w"), count, 1)
    pads = spatial(param, ("pad", "pad_h", "pad_w"), count, 0)
    dilations = spatial(param, ("dilation", "dilation_h", "dilation_w"), count, 1)
    positive("its kernel, stride or dilation", [*kernel, *strides, *dilations])
    return kernel, {"strides": strides, "pads_begin": pads, "pads_end": pads, "dilations": dilations}


def _with_bias(site: Site, param: Message, tensor: Tensor, outputs: int) -> Tensor:
    if not param.flag("bias_term", True):
        site.want_blobs(1)
        return tensor
    site.want_blobs(2)
    bias = site.blob(1, [outputs], "bias")
    return ops.add(tensor, along(bias, 1, len(shape_of(tensor)))).output(0)
