"""Normalisations, in evaluation mode. Source: BigDL 0.13's `updateOutput`."""

import numpy as np
import openvino.opset15 as ops

from beam_serving.models.formats.bigdl.layer import (
    MAX_CONSTANT,
    Activity,
    Layer,
    Node,
    along,
    channels_first,
    channels_last,
    constant,
    rank,
    reduced,
    reshape,
    size,
)

_LARGEST_DOUBLE = float(np.finfo(np.float64).max)


def batch_normalisation(layer: Layer, x: Node) -> Node:
    """Scale by the running statistics; `parameters` are gamma and beta, if it is affine."""
    planes = layer.integer("nOutput")
    mean, variance = layer.tensor("runningMean"), layer.tensor("runningVar")
    if mean.size != planes or variance.size != planes:
        raise layer.refuse(f"running statistics of {mean.size} and {variance.size} values for {planes} planes")
    factor = 1 / np.sqrt(variance.astype(np.float64).ravel() + layer.number("eps", 1e-5))
    shift = -mean.astype(np.float64).ravel() * factor
    if len(layer.module.parameters) > 1:
        gamma, beta = layer.parameter(0, [planes]), layer.parameter(1, [planes])
        factor, shift = factor * gamma, shift * gamma + beta
    axis = rank(x) - 1 if layer.channels_last("dataFormat") or rank(x) < 3 else 1
    y = ops.multiply(x, along(factor.astype(np.float32), axis, rank(x)))
    return ops.add(y, along(shift.astype(np.float32), axis, rank(x)))


def cross_map_lrn(layer: Layer, x: Node) -> Node:
    """x / (k + alpha / size * sum of the neighbouring planes' squares) ^ beta"""
    last = layer.channels_last()
    amounts = [layer.number("alpha", 1.0), layer.number("beta", 0.75), layer.number("k", 1.0)]
    y = ops.lrn(channels_first(x) if last else x, constant([1], np.int64), *amounts, layer.integer("size", 5))
    return channels_last(y) if last else y


def within_channel_lrn(layer: Layer, x: Node) -> Node:
    """x * (1 + alpha * mean of the neighbouring pixels' squares) ^ -beta; the mean counts the padding."""
    extent = layer.integer("size", 5)
    if extent % 2 != 1 or extent < 1:
        raise layer.refuse(f"size {extent}, an odd number is expected")
    pad = [(extent - 1) // 2] * 2
    means = ops.avg_pool(ops.multiply(x, x), [1, 1], pad, pad, [extent, extent], False)
    base = ops.add(ops.multiply(means, constant(layer.number("alpha", 1.0))), constant(1.0))
    return ops.multiply(x, ops.power(base, constant(-layer.number("beta", 0.75))))


def normalize(layer: Layer, x: Node) -> Node:
    """Divide by the p-norm along dimension 2 (of one dimension: along it)."""
    p, eps = layer.number("p"), constant(layer.number("eps", 1e-10))
    axis = [min(1, rank(x) - 1)]
    magnitudes = ops.abs(x)
    if p >= _LARGEST_DOUBLE:
        return ops.divide(x, ops.add(reduced("max", magnitudes, axis, keep_dims=True), eps))
    powers = ops.add(reduced("sum", ops.power(magnitudes, constant(p)), axis, keep_dims=True), eps)
    return ops.divide(x, ops.power(powers, constant(1 / p)))


def normalize_scale(layer: Layer, x: Node) -> Node:
    """Return a Normalize and a CMul."""
    weight = layer.parameter(0)
    return ops.multiply(normalize(layer, x), constant(weight if weight.ndim == rank(x) else weight[None]))


def layer_normalisation(layer: Layer, x: Node) -> Node:
    """Normalise the last dimension to mean 0 and deviation 1, then scale and shift it."""
    planes = layer.integer("hiddenSize")
    centred = ops.subtract(x, reduced("mean", x, [rank(x) - 1], keep_dims=True))
    variance = reduced("mean", ops.multiply(centred, centred), [rank(x) - 1], keep_dims=True)
    y = ops.divide(centred, ops.sqrt(ops.add(variance, constant(1e-6))))
    return ops.add(ops.multiply(y, constant(layer.parameter(0, [planes]))), constant(layer.parameter(1, [planes])))


def subtractive(layer: Layer, x: Node) -> Node:
    """Subtract the weighted local mean; at the borders it is corrected by the mean of an image of ones."""
    return ops.subtract(x, ops.divide(_estimate(layer, "meanestimator", x), _of_ones(layer, x)))


def divisive(layer: Layer, x: Node) -> Node:
    """Divide by the local deviation, which is replaced where it is below the threshold."""
    deviation = ops.divide(_estimate(layer, "stdestimator", x), _of_ones(layer, x))
    limit, instead = constant(layer.number("threshold", 1e-4)), constant(layer.number("thresval", 1e-4))
    return ops.divide(x, ops.select(ops.greater(deviation, limit), deviation, instead))


def contrastive(layer: Layer, x: Node) -> Node:
    """Subtractive and divisive."""
    return _inner(layer, "normalizer", x)


def _inner(layer: Layer, name: str, x: Activity) -> Activity:
    module = layer.child(name)
    if module is None:
        raise layer.refuse(f"attribute {name} is missing")
    return layer.build(module, x)


def _estimate(layer: Layer, name: str, x: Node) -> Node:
    """Run an estimator, which gives the same plane for every input plane, and drop the dimension it adds."""
    return reshape(_inner(layer, name, x), [None, *(size(x, axis) for axis in (1, 2, 3))])


def _of_ones(layer: Layer, x: Node) -> Node:
    shape = [1, *(size(x, axis) for axis in (1, 2, 3))]
    if np.prod(shape, dtype=object) > MAX_CONSTANT:
        raise layer.refuse(f"an image of {shape[1:]} is too large")
    return _estimate(layer, "meanestimator", constant(np.ones(shape, np.float32)))
