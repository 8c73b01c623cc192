"""BatchNorm, BN, LRN, MVN and Normalize."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import openvino.opset13 as ops

from beam_serving.models.formats.caffe.layer_context import Site, Tensor, along, indices, scalar, shape_of
from beam_serving.models.formats.caffe.message import TextError

_Doubles: TypeAlias = npt.NDArray[np.float64]

_MAX_WINDOW = 1 << 10


def build_batch_norm(site: Site) -> list[Tensor]:
    """(x - mean) / sqrt(variance + eps), where both blobs are still to be divided by the third, a single number."""
    param = site.param("batch_norm_param")
    param.ignore(("moving_average_fraction",))
    if not param.flag("use_global_stats", True):
        raise TextError("use_global_stats: false lets a result depend on the rest of its batch; wanted true")
    data = site.bottom()
    channels = _channels(data)
    mean, variance = (
        site.blob(index, [channels], what).astype(np.float64) for index, what in enumerate(("mean", "variance"))
    )
    total = float(site.blob(2, [1], "scale factor")[0])
    site.want_blobs(3)
    unit = 0.0 if total == 0.0 else 1.0 / total
    factor = _inverse_deviation(variance * unit, param.real("eps", 1e-5))
    return [_affine(data, factor, -mean * unit * factor)]


def build_bn(site: Site) -> list[Tensor]:
    """Return the BN of SegNet (scale, shift) and of PSPNet (slope, bias, mean, variance)."""
    param = site.param("bn_param")
    param.ignore(
        ["slope_filler", "bias_filler", "scale_filler", "shift_filler", "bn_mode", "momentum", "frozen", "engine"]
    )
    data = site.bottom()
    channels = _channels(data)
    names = ("scale", "shift", "mean", "variance") if len(site.blobs) > 2 else ("scale", "shift")
    scale, shift, *statistics = (
        site.blob(index, _bn_shape(site, index, channels), name).reshape(channels).astype(np.float64)
        for index, name in enumerate(names)
    )
    site.want_blobs(len(names))
    eps = param.real("eps", 1e-5)
    if statistics:
        mean, variance = statistics
        scale = scale * _inverse_deviation(variance, eps)
        shift = shift - mean * scale
    return [_affine(data, scale, shift)]


def build_lrn(site: Site) -> list[Tensor]:
    """x / (k + alpha / size * sum of squares) ** beta over neighbouring channels.

    Within a channel, the squares are averaged over a window that counts its padding, and Caffe's k is always 1.
    """
    param = site.param("lrn_param")
    param.ignore(("engine",))
    size, alpha, beta = param.integer("local_size", 5), param.real("alpha", 1.0), param.real("beta", 0.75)
    if size % 2 == 0 or not 1 <= size < _MAX_WINDOW:
        raise TextError(f"local_size is {size}, wanted an odd number below {_MAX_WINDOW}")
    region = param.choice("norm_region", "ACROSS_CHANNELS")
    data, k = site.bottom(rank=4), param.real("k", 1.0)
    if region == "ACROSS_CHANNELS":
        return [ops.lrn(data, indices([1]), alpha, beta, k, size).output(0)]
    half = size // 2
    square = ops.multiply(data, data)
    mean = ops.avg_pool(square, [1, 1], [half, half], [half, half], [size, size], exclude_pad=False)
    base = ops.add(ops.multiply(mean, scalar(alpha)), scalar(1.0))
    return [ops.multiply(data, ops.power(base, scalar(-beta))).output(0)]


def build_mvn(site: Site) -> list[Tensor]:
    """(x - mean) / (deviation + eps) over each channel or over each whole example."""
    param = site.param("mvn_param")
    data = site.bottom(rank=4)
    axes = indices([1, 2, 3] if param.flag("across_channels", False) else [2, 3])
    variance, eps = param.flag("normalize_variance", True), param.real("eps", 1e-9)
    if eps <= 0.0:
        raise TextError(f"eps is {eps}, wanted above 0")
    return [ops.mvn(data, axes, variance, eps, "outside_sqrt").output(0)]


def build_normalize(site: Site) -> list[Tensor]:
    """SSD's Normalize: divides by sqrt(eps + sum of squares), then multiplies by a learned scale."""
    param = site.param("norm_param")
    param.ignore(("scale_filler",))
    data = site.bottom(rank=4)
    channels = shape_of(data)[1]
    axes = indices([1, 2, 3] if param.flag("across_spatial", True) else [1])
    eps = param.real("eps", 1e-10)
    if eps < 0.0:
        raise TextError(f"eps is {eps}, wanted 0 or above")
    scale = site.blob(0, [1 if param.flag("channel_shared", True) else channels], "scale")
    site.want_blobs(1)
    norm = ops.sqrt(ops.add(ops.reduce_sum(ops.multiply(data, data), axes, keep_dims=True), scalar(eps)))
    return [ops.multiply(ops.divide(data, norm), along(scale, 1, 4)).output(0)]


def _channels(data: Tensor) -> int:
    shape = shape_of(data)
    if len(shape) < 2:
        raise TextError(f"its input has the shape {list(shape)}, wanted channels at axis 1")
    return shape[1]


def _bn_shape(site: Site, index: int, channels: int) -> list[int]:
    """SegNet keeps (1, channels, 1, 1), PSPNet the same or (channels)."""
    stored = list(site.blobs[index].shape) if index < len(site.blobs) else []
    return [1, channels, 1, 1] if stored == [1, channels, 1, 1] else [channels]


def _inverse_deviation(variance: _Doubles, eps: float) -> _Doubles:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        inverse: _Doubles = 1.0 / np.sqrt(variance + eps)
    return inverse


def _affine(data: Tensor, factor: _Doubles, addend: _Doubles) -> Tensor:
    rank = len(shape_of(data))
    with np.errstate(invalid="ignore", over="ignore"):
        factors, addends = along(factor.astype(np.float32), 1, rank), along(addend.astype(np.float32), 1, rank)
    return ops.add(ops.multiply(data, factors), addends).output(0)
