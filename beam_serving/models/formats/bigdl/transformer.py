"""The parts of BigDL's Transformer, and the language model made of them. Source: BigDL 0.13's `updateOutput`."""

import numpy as np
import openvino.opset15 as ops

from beam_serving.models.formats.bigdl.layer import (
    MAX_CONSTANT,
    Activity,
    Layer,
    Node,
    constant,
    narrow,
    rank,
    reshape,
    size,
    table,
    transpose,
)

_MASKED = -1e9
_LONGEST_WAVE = 1e4


def attention(layer: Layer, x: Activity) -> Node:
    """Multi-head attention of (queries, keys and values, bias); the weights are query, key, value and output."""
    queries, keys, bias = table(x, 3)[:3]
    hidden, heads = layer.integer("hiddenSize"), layer.integer("numHeads")
    if heads < 1 or hidden < 1 or hidden % heads:
        raise layer.refuse(f"hiddenSize {hidden} with {heads} heads")
    query, key, value, output = (constant(layer.parameter(index, [hidden, hidden])) for index in range(4))
    split = [
        transpose(reshape(ops.matmul(y, weight, False, True), [None, size(y, 1), heads, hidden // heads]), [0, 2, 1, 3])
        for y, weight in ((queries, query), (keys, key), (keys, value))
    ]
    scaled = ops.multiply(split[0], constant((hidden // heads) ** -0.5))
    weights = ops.softmax(ops.add(ops.matmul(scaled, split[1], False, True), bias), 3)
    joined = transpose(ops.matmul(weights, split[2], False, False), [0, 2, 1, 3])
    return ops.matmul(reshape(joined, [None, size(queries, 1), hidden]), output, False, True)


def feed_forward(layer: Layer, x: Node) -> Node:
    """Two linear layers for each position, with a ReLU between them."""
    hidden, inner = layer.integer("hiddenSize"), layer.integer("filterSize")
    first, second = layer.parameter(0, [inner, hidden]), layer.parameter(2, [hidden, inner])
    y = ops.add(ops.matmul(x, constant(first), False, True), constant(layer.parameter(1, [inner])))
    y = ops.matmul(ops.relu(y), constant(second), False, True)
    return ops.add(y, constant(layer.parameter(3, [hidden])))


def self_attention_mask(layer: Layer, x: Node) -> Node:
    """Return a bias that hides from each position the ones behind it."""
    length = size(x, 1)
    if length * length > MAX_CONSTANT:
        raise layer.refuse(f"{length} positions are too many")
    return constant(np.triu(np.full((length, length), _MASKED, np.float32), 1)[None, None])


def position_encoding(layer: Layer, x: Node) -> Node:
    """Sines and cosines of each position, (positions, channels)."""
    return constant(_waves(layer, x))


def shifted_position_encoding(layer: Layer, x: Node) -> Node:
    """Return the input moved one position back, behind zeros, plus the encoding of its positions."""
    shifted = ops.pad(
        narrow(x, 1, 0, size(x, 1) - 1),
        constant([0, 1, 0], np.int64),
        constant([0] * rank(x), np.int64),
        "constant",
        constant(0.0),
    )
    return ops.add(shifted, constant(_waves(layer, x)))


def _waves(layer: Layer, x: Node) -> np.ndarray:
    length, channels = size(x, 1), size(x, 2)
    if length * channels > MAX_CONSTANT:
        raise layer.refuse(f"{length} positions of {channels} channels are too many")
    half = channels // 2
    rates = np.exp(-np.arange(half) * np.log(_LONGEST_WAVE) / max(half - 1, 1)).astype(np.float32)
    angles = np.arange(length, dtype=np.float32)[:, None] * rates
    waves = np.zeros((length, channels), np.float32)
    waves[:, :half], waves[:, half : 2 * half] = np.sin(angles), np.cos(angles)
    return waves


def language_model(layer: Layer, x: Activity) -> Activity:
    """Return a Transformer as language model; the library keeps all of it in one module."""
    model = layer.child("model")
    if model is None or layer.flag("withShareWeightsLinear", False):
        raise layer.refuse("only a language model without a shared output layer is supported")
    return layer.build(model, x)
