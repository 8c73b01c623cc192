"""Linear algebra and arithmetics of tensors and tables. Source: BigDL 0.13's `updateOutput`."""

from collections.abc import Callable
from functools import reduce

import numpy as np
import openvino.opset15 as ops

from beam_serving.models.formats.bigdl.layer import (
    Activity,
    Layer,
    Node,
    along,
    constant,
    narrow,
    rank,
    reduced,
    reshape,
    size,
    sizes,
    table,
    take,
)


def linear(layer: Layer, x: Node) -> Node:
    inside, outside = layer.integer("inputSize"), layer.integer("outputSize")
    y = ops.matmul(x, constant(layer.parameter(0, [outside, inside])), False, True)
    return ops.add(y, constant(layer.parameter(1, [outside]))) if len(layer.module.parameters) > 1 else y


def add(layer: Layer, x: Node) -> Node:
    return ops.add(x, constant(layer.parameter(0)))


def mul(layer: Layer, x: Node) -> Node:
    return ops.multiply(x, constant(layer.parameter(0, [1])))


def mul_constant(layer: Layer, x: Node) -> Node:
    return ops.multiply(x, constant(layer.number("constant")))


def add_constant(layer: Layer, x: Node) -> Node:
    return ops.add(x, constant(layer.number("constant_scalar")))


def cmul(layer: Layer, x: Node) -> Node:
    return ops.multiply(x, _spread(layer.parameter(0), x))


def cadd(layer: Layer, x: Node) -> Node:
    return ops.add(x, _spread(layer.parameter(0), x))


def scale(layer: Layer, x: Node) -> Node:
    """Return a CMul and a CAdd of the same size."""
    return ops.add(ops.multiply(x, _spread(layer.parameter(0), x)), _spread(layer.parameter(1), x))


def _spread(values: np.ndarray, x: Node) -> Node:
    """Return a weight as the library expands it: without a batch dimension it gets one; a vector finds its own axis."""
    dimensions = rank(x)
    if values.ndim > dimensions and values.size == max(values.shape, default=1):
        axes = [axis for axis, length in enumerate(sizes(x)) if length == values.size]
        return along(values, axes[0] if axes else dimensions - 1, dimensions)
    return constant(values if values.ndim >= dimensions else values[None])


def _pairwise(combine: Callable[[Node, Node], Node]) -> Callable[[Layer, Activity], Node]:
    def build(_: Layer, x: Activity) -> Node:
        return reduce(combine, table(x))

    return build


cadd_table = _pairwise(ops.add)
csub_table = _pairwise(ops.subtract)
cmul_table = _pairwise(ops.multiply)
cdiv_table = _pairwise(ops.divide)
cmax_table = _pairwise(ops.maximum)
cmin_table = _pairwise(ops.minimum)


def cave_table(layer: Layer, x: Activity) -> Node:
    return ops.divide(cadd_table(layer, x), constant(float(len(table(x)))))


def matrix_product(layer: Layer, x: Activity) -> Node:
    left, right = table(x, 2)[:2]
    return ops.matmul(left, right, layer.flag("transA", False), layer.flag("transB", False))


def matrix_vector(layer: Layer, x: Activity) -> Node:
    matrix, vector = table(x, 2)[:2]
    column = ops.unsqueeze(vector, constant([rank(vector)], np.int64))
    product = ops.matmul(matrix, column, layer.flag("trans", False), False)
    return ops.squeeze(product, constant([-1], np.int64))


def dot_product(_: Layer, x: Activity) -> Node:
    left, right = table(x, 2)[:2]
    return reduced("sum", ops.multiply(left, right), [rank(left) - 1])


def cosine_distance(_: Layer, x: Activity) -> Node:
    left, right = table(x, 2)[:2]
    axis = [rank(left) - 1]
    squares = [ops.add(reduced("sum", ops.multiply(y, y), axis), constant(1e-12)) for y in (left, right)]
    return ops.divide(reduced("sum", ops.multiply(left, right), axis), ops.sqrt(ops.multiply(*squares)))


def pairwise_distance(layer: Layer, x: Activity) -> Node:
    left, right = table(x, 2)[:2]
    norm = float(layer.integer("norm", 2))
    powers = ops.power(ops.abs(ops.subtract(left, right)), constant(norm))
    return ops.power(reduced("sum", powers, [rank(left) - 1]), constant(1 / norm))


def cross_product(_: Layer, x: Activity) -> Node:
    """Return the dot products of every pair of entries, in the order 1-2, 1-3, ..., 2-3, ..."""
    entries = table(x, 2)
    pairs = [(left, right) for index, left in enumerate(entries) for right in entries[index + 1 :]]
    dots = [reduced("sum", ops.multiply(left, right), [rank(left) - 1], keep_dims=True) for left, right in pairs]
    return ops.concat(dots, rank(dots[0]) - 1)


def bilinear(layer: Layer, x: Activity) -> Node:
    """y[k] = left . W[k] . right + bias[k]"""
    left, right = table(x, 2)[:2]
    first, second = layer.integer("inputSize1"), layer.integer("inputSize2")
    outside = layer.integer("outputSize")
    weight = layer.parameter(0, [outside, first, second]).transpose(1, 0, 2).reshape(first, outside * second)
    products = reshape(ops.matmul(left, constant(weight), False, False), [None, outside, second])
    y = reduced("sum", ops.multiply(products, ops.unsqueeze(right, constant([1], np.int64))), [2])
    return ops.add(y, constant(layer.parameter(1, [outside]))) if len(layer.module.parameters) > 1 else y


def cosine(layer: Layer, x: Node) -> Node:
    weight = layer.parameter(0, [layer.integer("outputSize"), layer.integer("inputSize")])
    weight = weight / (np.linalg.norm(weight, axis=1, keepdims=True) + 1e-12)
    length = ops.sqrt(reduced("sum", ops.multiply(x, x), [rank(x) - 1], keep_dims=True))
    return ops.divide(ops.matmul(x, constant(weight), False, True), length)


def euclidean(layer: Layer, x: Node) -> Node:
    weight = layer.parameter(0, [layer.integer("inputSize"), layer.integer("outputSize")])
    difference = ops.subtract(ops.unsqueeze(x, constant([rank(x)], np.int64)), constant(weight))
    return ops.sqrt(reduced("sum", ops.multiply(difference, difference), [rank(x) - 1]))


def maxout(layer: Layer, x: Node) -> Node:
    """Return the largest of several linear layers' outputs; the library keeps all of it in one module."""
    inner = layer.child("layer")
    if inner is None:
        raise layer.refuse("it has no layer")
    return layer.build(inner, x)


def mixture_table(layer: Layer, x: Activity) -> Node:
    """Weigh experts (a table, or one tensor with them along `dim`) by the first entry."""
    gates, experts = table(x, 2)[:2]
    if not isinstance(experts, list):
        dimension = layer.integer("dim", 2)
        axis = (2 if dimension == (1 << 31) - 1 else dimension) - 1
        experts = [take(experts, axis, index) for index in range(size(experts, axis))]
    if size(gates, rank(gates) - 1) != len(experts):
        raise layer.refuse(f"{size(gates, rank(gates) - 1)} gates for {len(experts)} experts")
    weighed = []
    for index, expert in enumerate(experts):
        gate = narrow(gates, rank(gates) - 1, index, 1)
        weighed.append(ops.multiply(expert, reshape(gate, [None, *[1] * (rank(expert) - 1)])))
    return reduce(ops.add, weighed)


def lookup_table(layer: Layer, x: Node) -> Node:
    """Embeddings of 1-based ids, which arrive as floats."""
    rows, columns = layer.integer("nIndex"), layer.integer("nOutput")
    weight = layer.parameter(0, [rows, columns])
    padding = int(layer.number("paddingValue", 0.0))
    if layer.flag("maskZero", False) and 1 <= padding <= rows:
        weight = np.where(np.arange(rows)[:, None] == padding - 1, np.float32(0), weight)
    ids = ops.subtract(ops.convert(x, "i32"), constant(1, np.int32))
    limit, kind = layer.number("maxNorm", np.inf), layer.number("normType", 2.0)
    return ops.gather(constant(_limit_norm(weight, limit, kind)), ids, constant(0, np.int64))


def _limit_norm(weight: np.ndarray, limit: float, kind: float) -> np.ndarray:
    """Shrink the rows whose norm is larger than the limit, which the library does when it first uses them."""
    if limit >= np.finfo(np.float64).max:
        return weight
    norms = (np.abs(weight.astype(np.float64)) ** kind).sum(1, keepdims=True) ** (1 / kind)
    return np.where(norms > limit, weight * (limit / (norms + 1e-7)), weight).astype(np.float32)
