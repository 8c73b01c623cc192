"""Activations and other functions of one element. Source: BigDL 0.13's `updateOutput` in evaluation mode."""

import numpy as np
import openvino.opset15 as ops

from beam_serving.models.formats.bigdl.layer import Activity, Layer, Node, constant, rank, reduced, sizes

_SOFTPLUS_LINEAR_FROM = 20.0
"""Above this beta * x the library gives x itself."""


def identity(_: Layer, x: Activity) -> Activity:
    """Dropout, noise, regularisation and markers: nothing happens in evaluation mode."""
    return x


def dropout(layer: Layer, x: Node) -> Node:
    """Do nothing, but where training does not scale its output up: then evaluation scales it down."""
    return x if layer.flag("scale", True) else spatial_dropout(layer, x)


def spatial_dropout(layer: Layer, x: Node) -> Node:
    """Scale by the share that training keeps."""
    return ops.multiply(x, constant(1.0 - layer.number("initP", 0.5)))


def relu(_: Layer, x: Node) -> Node:
    return ops.relu(x)


def relu6(_: Layer, x: Node) -> Node:
    return ops.clamp(x, 0.0, 6.0)


def tanh(_: Layer, x: Node) -> Node:
    return ops.tanh(x)


def sigmoid(_: Layer, x: Node) -> Node:
    return ops.sigmoid(x)


def hard_tanh(layer: Layer, x: Node) -> Node:
    return _clamp(layer, x, layer.number("minValue", -1.0), layer.number("maxValue", 1.0))


def clamp(layer: Layer, x: Node) -> Node:
    return _clamp(layer, x, layer.number("minV"), layer.number("maxV"))


def _clamp(layer: Layer, x: Node, low: float, high: float) -> Node:
    if not low <= high:
        raise layer.refuse(f"the range {low} to {high} is empty")
    return ops.clamp(x, low, high)


def hard_sigmoid(_: Layer, x: Node) -> Node:
    return ops.clamp(ops.add(ops.multiply(x, constant(0.2)), constant(0.5)), 0.0, 1.0)


def softplus(layer: Layer, x: Node) -> Node:
    beta = constant(layer.number("beta", 1.0))
    scaled = ops.multiply(x, beta)
    small = ops.minimum(scaled, constant(_SOFTPLUS_LINEAR_FROM))
    soft = ops.divide(ops.softplus(small), beta)
    return ops.select(ops.greater(scaled, constant(_SOFTPLUS_LINEAR_FROM)), x, soft)


def softsign(_: Layer, x: Node) -> Node:
    return ops.divide(x, ops.add(ops.abs(x), constant(1.0)))


def elu(layer: Layer, x: Node) -> Node:
    return ops.elu(x, layer.number("alpha", 1.0))


def leaky_relu(layer: Layer, x: Node) -> Node:
    return ops.prelu(x, constant([layer.number("negval", 0.01)]))


def rrelu(layer: Layer, x: Node) -> Node:
    """In evaluation mode the slope is the middle of its range."""
    return ops.prelu(x, constant([(layer.number("lower", 1 / 8) + layer.number("upper", 1 / 3)) / 2]))


def prelu(layer: Layer, x: Node) -> Node:
    planes = layer.integer("nOutputPlane", 0)
    if planes == 0:
        return ops.prelu(x, constant(layer.parameter(0, [1])))
    slope = layer.parameter(0, [planes])
    shape = [1] * rank(x)
    shape[1 if len(shape) > 1 else 0] = planes
    return ops.add(ops.relu(x), ops.multiply(ops.minimum(x, constant(0.0)), constant(slope.reshape(shape))))


def srelu(layer: Layer, x: Node) -> Node:
    """S-shaped: linear with a slope of its own below `left` and above `right`; both are shared along some axes."""
    left, left_slope, right, right_slope = (layer.parameter(index)[None] for index in range(4))
    right = np.abs(right) + left
    above = ops.add(constant(right), ops.multiply(constant(right_slope), ops.subtract(x, constant(right))))
    below = ops.add(constant(left), ops.multiply(constant(left_slope), ops.subtract(x, constant(left))))
    inner = ops.select(ops.less_equal(x, constant(left)), below, x)
    return ops.select(ops.greater_equal(x, constant(right)), above, inner)


def threshold(layer: Layer, x: Node) -> Node:
    keep = ops.greater(x, constant(layer.number("th", 1e-6)))
    return ops.select(keep, x, constant(layer.number("v", 0.0)))


def binary_threshold(layer: Layer, x: Node) -> Node:
    return ops.convert(ops.greater(x, constant(layer.number("th", 1e-6))), "f32")


def soft_shrink(layer: Layer, x: Node) -> Node:
    edge = layer.number("lambda", 0.5)
    return ops.subtract(x, ops.clamp(x, -edge, edge))


def hard_shrink(layer: Layer, x: Node) -> Node:
    edge = constant(layer.number("lambda", 0.5))
    return ops.select(ops.greater(ops.abs(x), edge), x, constant(0.0))


def tanh_shrink(_: Layer, x: Node) -> Node:
    return ops.subtract(x, ops.tanh(x))


def log_sigmoid(_: Layer, x: Node) -> Node:
    return ops.negative(ops.softplus(ops.negative(x)))


def softmax(layer: Layer, x: Node) -> Node:
    return ops.softmax(x, _softmax_axis(layer, x))


def softmin(layer: Layer, x: Node) -> Node:
    return ops.softmax(ops.negative(x), _softmax_axis(layer, x))


def log_softmax(_: Layer, x: Node) -> Node:
    return ops.log_softmax(x, min(1, rank(x) - 1))


def _softmax_axis(layer: Layer, x: Node) -> int:
    """Which axis the library normalises: what follows `pos` tells whether a batch stands before the channels.

    With `pos` 1 that is axis 1 of two and of four dimensions, and axis 0 of one and of three (a single image).
    """
    dimensions = rank(x)
    position = layer.integer("pos", 1)
    position = dimensions + position if position <= 0 else position
    if not 1 <= position <= dimensions:
        raise layer.refuse(f"pos is {position} for {dimensions} dimensions")
    return position - 1 if dimensions - position in (0, 2) else position


def masking(layer: Layer, x: Node) -> Node:
    """Zero the time steps whose every feature is the mask value."""
    if rank(x) < 3:
        return x
    differs = ops.not_equal(x, constant(layer.number("maskValue", 0.0)))
    keep = reduced("max", ops.convert(differs, "f32"), list(range(2, len(sizes(x)))), keep_dims=True)
    return ops.multiply(x, keep)


def absolute(_: Layer, x: Node) -> Node:
    return ops.abs(x)


def exponential(_: Layer, x: Node) -> Node:
    return ops.exp(x)


def logarithm(_: Layer, x: Node) -> Node:
    return ops.log(x)


def negative(_: Layer, x: Node) -> Node:
    return ops.negative(x)


def square_root(_: Layer, x: Node) -> Node:
    return ops.sqrt(x)


def square(_: Layer, x: Node) -> Node:
    return ops.multiply(x, x)


def power(layer: Layer, x: Node) -> Node:
    base = ops.multiply(x, constant(layer.number("scale", 1.0)))
    base = ops.add(base, constant(layer.number("shift", 0.0)))
    return ops.power(base, constant(layer.number("power")))
