"""Layers that map every element on its own."""

import math
from collections.abc import Callable

import numpy as np
import openvino.opset13 as ops

from beam_serving.models.formats.caffe.layer_context import Site, Tensor, constant, scalar, shape_of
from beam_serving.models.formats.caffe.message import TextError


def build_identity(site: Site) -> list[Tensor]:
    """Dropout outside training, and Split: every top is the bottom."""
    site.message.ignore(("dropout_param",))
    return [site.bottom()] * site.tops


def build_relu(site: Site) -> list[Tensor]:
    param = site.param("relu_param")
    param.ignore(("engine",))
    slope = param.real("negative_slope", 0.0)
    if slope == 0.0:
        return [ops.relu(site.bottom()).output(0)]
    return [ops.prelu(site.bottom(), constant(np.array([slope], np.float32))).output(0)]


def build_relu6(site: Site) -> list[Tensor]:
    return [ops.clamp(site.bottom(), 0.0, 6.0).output(0)]


def build_clip(site: Site) -> list[Tensor]:
    param = site.param("clip_param")
    least, most = param.real("min"), param.real("max")
    if least > most:
        raise TextError(f"min {least} is above max {most}")
    return [ops.clamp(site.bottom(), least, most).output(0)]


def build_prelu(site: Site) -> list[Tensor]:
    """One slope for all channels, or one per channel (axis 1)."""
    param = site.param("prelu_param")
    param.ignore(("filler",))
    data = site.bottom()
    shape = shape_of(data)
    if len(shape) < 2:
        raise TextError(f"its input has the shape {list(shape)}, wanted channels at axis 1")
    slopes = site.blob(0, [1 if param.flag("channel_shared", False) else shape[1]], "slopes")
    site.want_blobs(1)
    return [ops.prelu(data, constant(slopes)).output(0)]


def build_elu(site: Site) -> list[Tensor]:
    return [ops.elu(site.bottom(), site.param("elu_param").real("alpha", 1.0)).output(0)]


def build_swish(site: Site) -> list[Tensor]:
    """x * sigmoid(beta * x)."""
    beta = site.param("swish_param").real("beta", 1.0)
    return [ops.swish(site.bottom(), scalar(beta)).output(0)]


def build_power(site: Site) -> list[Tensor]:
    """(shift + scale * x) ** power."""
    param = site.param("power_param")
    power = param.real("power", 1.0)
    inner = _affine(site.bottom(), param.real("scale", 1.0), param.real("shift", 0.0))
    return [inner if power == 1.0 else ops.power(inner, scalar(power)).output(0)]


def build_exp(site: Site) -> list[Tensor]:
    """Return base ** (shift + scale * x); the base -1 stands for e."""
    param = site.param("exp_param")
    log_base = _log_base(param.real("base", -1.0))
    inner = _affine(site.bottom(), log_base * param.real("scale", 1.0), log_base * param.real("shift", 0.0))
    return [ops.exp(inner).output(0)]


def build_log(site: Site) -> list[Tensor]:
    """Return the logarithm of shift + scale * x to a base; the base -1 stands for e."""
    param = site.param("log_param")
    base = param.real("base", -1.0)
    log_base = _log_base(base)
    if log_base == 0.0:
        raise TextError("base 1 has no logarithm")
    inner = _affine(site.bottom(), param.real("scale", 1.0), param.real("shift", 0.0))
    return [_affine(ops.log(inner).output(0), 1.0 / log_base, 0.0)]


def build_threshold(site: Site) -> list[Tensor]:
    """1 where x is above the threshold, else 0."""
    threshold = site.param("threshold_param").real("threshold", 0.0)
    return [ops.convert(ops.greater(site.bottom(), scalar(threshold)), "f32").output(0)]


def element_wise(operation: Callable[[Tensor], Tensor], param: str = "") -> Callable[[Site], list[Tensor]]:
    """Make the builder of a layer without parameters, whose `param` message only picks an implementation."""

    def build(site: Site) -> list[Tensor]:
        if param:
            site.param(param).ignore(("engine",))
        return [operation(site.bottom()).output(0)]

    return build


def _affine(tensor: Tensor, factor: float, addend: float) -> Tensor:
    if factor != 1.0:
        tensor = ops.multiply(tensor, scalar(factor)).output(0)
    if addend != 0.0:
        tensor = ops.add(tensor, scalar(addend)).output(0)
    return tensor


def _log_base(base: float) -> float:
    if base == -1.0:
        return 1.0
    if base <= 0.0:
        raise TextError(f"base is {base}, wanted above 0 or -1")
    return math.log(base)
