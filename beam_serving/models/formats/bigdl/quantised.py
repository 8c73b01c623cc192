"""The int8 layers that BigDL's `quantize()` makes, with the very arithmetic of its native library (BigQuant).

Found by experiments with the real library (0.13, on a CPU with AVX2), and exact up to float rounding:

- Weights are stored as round(127 w / m), m being the largest magnitude of an output's row, beside each row's largest
  and smallest value and sum. When loaded they are rounded a second time, to round(64 w / m).
- Each example of a Linear, and each window of a convolution, is quantised for itself: with its smallest value `low`
  and its range r, q = round(127 (x - low) / r). The result is r / 127 * m / 64 * (W q) + low * sum + bias.
- A window is quantised in blocks of 8 of its (row, column, plane) order. A block is rounded to the nearest where the
  library has it in one piece: within one pixel, or within one row of a window that lies in the image and ends before
  its last column. All others, the padding and the rest behind the last whole block are rounded down.
- The bias of the first group is used for all groups of a convolution.
"""

from math import prod
from typing import NamedTuple

import numpy as np
import openvino.opset15 as ops

from beam_serving.models.formats.bigdl.convolution import LONG, Window, pads, window
from beam_serving.models.formats.bigdl.layer import (
    MAX_CONSTANT,
    Layer,
    Node,
    channels_first,
    constant,
    narrow,
    rank,
    reduced,
    reshape,
    size,
    transpose,
)
from beam_serving.models.formats.bigdl.records import TensorRef

_LEVELS = 127.0
_WEIGHT_LEVELS = 64.0
_BLOCK = 8
_SMALLEST_RANGE = 1e-30


class Rows(NamedTuple):
    """An int8 weight: `levels` (outputs, inputs) from -64 to 64, and for each output its step and its true sum."""

    levels: np.ndarray
    step: np.ndarray
    total: np.ndarray


class Range(NamedTuple):
    """Smallest and largest value of each row, their distance (never zero) and levels per unit."""

    low: Node
    high: Node
    spread: Node
    ratio: Node


def linear(layer: Layer, x: Node) -> Node:
    inside, outside = layer.integer("inputSize"), layer.integer("outputSize")
    weight = layer.module.attributes.get("weight")
    rows = _rows(layer, weight, outside, inside)
    of = _range(x, rank(x) - 1)
    levels = ops.round(_scaled(x, of), "half_to_even")
    return _product(levels, of, rows, _bias(layer, outside))


def convolution(layer: Layer, x: Node) -> Node:
    return _convolution(layer, x, layer.integer("nGroup", 1), (1, 1))


def dilated_convolution(layer: Layer, x: Node) -> Node:
    return _convolution(layer, x, 1, (layer.integer("dilationH", 1), layer.integer("dilationW", 1)))


def _convolution(layer: Layer, x: Node, groups: int, dilation: tuple[int, int]) -> Node:
    inside, outside = layer.integer("nInputPlane"), layer.integer("nOutputPlane")
    weights = layer.module.attributes.get("weights")
    if min(inside, outside, groups) < 1 or not isinstance(weights, tuple) or len(weights) != groups:
        raise layer.refuse(f"{inside} to {outside} planes in {groups} groups")
    last = layer.channels_last()
    x = channels_first(x) if last else x
    w = window(layer, LONG, dilation)
    planes, outputs = inside // groups, outside // groups
    bias = _bias(layer, outside)[:outputs]
    results = []
    for group, ref in enumerate(weights):
        rows = _rows(layer, ref, outputs, planes * prod(w.kernel))
        levels = rows.levels.reshape(outputs, planes, *w.kernel).transpose(0, 2, 3, 1).reshape(outputs, -1)
        part = narrow(x, 1, group * planes, planes) if groups > 1 else x
        results.append(_windows(layer, part, w, rows._replace(levels=levels), bias))
    y = results[0] if groups == 1 else ops.concat(results, 3)
    return y if last else transpose(y, [0, 3, 1, 2])


def _windows(layer: Layer, x: Node, w: Window, rows: Rows, bias: np.ndarray) -> Node:
    """One group: (batch, planes, high, wide) to (batch, high, wide, outputs)."""
    planes, length = size(x, 1), (size(x, 2), size(x, 3))
    before, behind = pads(x, w)
    edges = [constant([0, 0, *amounts], np.int64) for amounts in (before, behind)]
    padded = ops.pad(x, *edges, "constant", constant(0.0))
    patches = ops.extract_image_patches(padded, list(w.kernel), list(w.stride), list(w.dilation), "valid")
    patches = transpose(patches, [0, 2, 3, 1])
    high, wide = size(patches, 1), size(patches, 2)
    of = _range(patches, 3)
    kept = _rounding(layer, w, planes, length, before, (high, wide))
    levels = ops.floor(ops.add(_scaled(patches, of), constant(kept)))
    levels = reshape(levels, [None, high, wide, planes * prod(w.kernel)])
    return _product(levels, of, rows, bias)


def _product(levels: Node, of: Range, rows: Rows, bias: np.ndarray) -> Node:
    y = ops.matmul(levels, constant(rows.levels), False, True)
    y = ops.multiply(y, ops.multiply(of.spread, constant(rows.step / _LEVELS)))
    return ops.add(ops.add(y, ops.multiply(of.low, constant(rows.total))), constant(bias))


def _rounding(
    layer: Layer, w: Window, planes: int, length: tuple[int, int], before: tuple[int, ...], places: tuple[int, int]
) -> np.ndarray:
    """Return what is added before rounding down, for each place and entry of its window: a half, or nothing."""
    (high, wide), (rows, columns) = places, w.kernel
    entries = rows * columns * planes
    if high * wide * entries > MAX_CONSTANT:
        raise layer.refuse(f"{high}x{wide} windows of {entries} values are too many")
    inside, starts = [], []
    for axis, count in enumerate(places):
        start = np.arange(count)[:, None] * w.stride[axis] - before[axis]
        position = start + np.arange(w.kernel[axis]) * w.dilation[axis]
        inside.append((position >= 0) & (position < length[axis]))
        starts.append(start[:, 0])
    pixel = inside[0][:, None, :, None] & inside[1][None, :, None, :]
    row_kept = (starts[1] >= 0) & (starts[1] + columns < length[1]) & (max(w.dilation) == 1)
    row = inside[0][:, None, :] & row_kept[None, :, None]
    result = np.zeros((high, wide, entries), np.float32)
    for first in range(0, entries - _BLOCK + 1, _BLOCK):
        final = first + _BLOCK - 1
        if first // planes == final // planes:
            at = first // planes
            whole = pixel[:, :, at // columns, at % columns]
        elif first // (planes * columns) == final // (planes * columns):
            whole = row[:, :, first // (planes * columns)]
        else:
            continue
        result[:, :, first : first + _BLOCK] = np.where(whole, 0.5, 0.0)[:, :, None]
    return result


def _range(x: Node, axis: int) -> Range:
    low = reduced("min", x, [axis], keep_dims=True)
    high = reduced("max", x, [axis], keep_dims=True)
    spread = ops.maximum(ops.subtract(high, low), constant(_SMALLEST_RANGE))
    return Range(low, high, spread, _exact_ratio(spread))


def _exact_ratio(spread: Node) -> Node:
    """127 / spread to the last digit; the engine divides by multiplying with a reciprocal, which loses that digit."""
    reciprocal = ops.divide(constant(1.0), spread)
    rough = ops.multiply(reciprocal, constant(_LEVELS))
    product, rest = _exact_product(rough, spread)
    missing = ops.subtract(ops.subtract(constant(_LEVELS), product), rest)
    return ops.add(rough, ops.multiply(missing, reciprocal))


def _scaled(x: Node, of: Range) -> Node:
    """(x - low) * ratio as the library rounds it: x * ratio - low * ratio in one step (a fused multiply-add).

    That step matters for the largest value alone, which comes out as 127 or just below and may be rounded down.
    """
    offset = ops.multiply(of.low, of.ratio)
    plain = ops.subtract(ops.multiply(x, of.ratio), offset)
    product, rest = _exact_product(of.high, of.ratio)
    total = ops.subtract(product, offset)
    back = ops.subtract(product, total)
    lost = ops.add(ops.subtract(product, ops.add(total, back)), ops.subtract(back, offset))
    largest = ops.add(total, ops.add(lost, rest))
    return ops.maximum(ops.select(ops.equal(x, of.high), largest, plain), constant(0.0))


def _exact_product(left: Node, right: Node) -> tuple[Node, Node]:
    """left * right and what float32 rounds off it (Dekker's product)."""
    product = ops.multiply(left, right)
    (left_high, left_low), (right_high, right_low) = _halves(left), _halves(right)
    rest = ops.subtract(ops.multiply(left_high, right_high), product)
    rest = ops.add(rest, ops.multiply(left_high, right_low))
    rest = ops.add(rest, ops.multiply(left_low, right_high))
    return product, ops.add(rest, ops.multiply(left_low, right_low))


def _halves(x: Node) -> tuple[Node, Node]:
    """Return the upper and lower half of a float32's digits (Veltkamp's splitting)."""
    shifted = ops.multiply(x, constant(4097.0))
    high = ops.subtract(shifted, ops.subtract(shifted, x))
    return high, ops.subtract(x, high)


def _rows(layer: Layer, ref: object, outputs: int, inputs: int) -> Rows:
    if not isinstance(ref, TensorRef) or not ref.quantised:
        raise layer.refuse("its weight is no int8 tensor")
    storage = layer.weights.storage(ref)
    stored = storage.quantised
    if outputs < 1 or stored is None or len(stored) != outputs * inputs or len(storage.values) != 3 * outputs:
        raise layer.refuse(f"its int8 weight does not have {outputs}x{inputs} values and three numbers for each row")
    high, low, total = storage.values.astype(np.float32).reshape(3, outputs)
    largest = np.maximum(np.abs(high), np.abs(low))
    levels = np.rint(np.frombuffer(stored, np.int8).reshape(outputs, inputs) * np.float32(_WEIGHT_LEVELS / _LEVELS))
    return Rows(levels.astype(np.float32), largest / np.float32(_WEIGHT_LEVELS), total)


def _bias(layer: Layer, outputs: int) -> np.ndarray:
    if layer.module.bias is None:
        return np.zeros(outputs, np.float32)
    bias = layer.array(layer.module.bias)
    if bias.size != outputs:
        raise layer.refuse(f"a bias of {bias.size} values for {outputs} outputs")
    return bias.ravel()
