"""Tables: joining, splitting and picking entries. Source: BigDL 0.13's `updateOutput`. Entries are 1-based."""

import numpy as np
import openvino.opset15 as ops

from beam_serving.models.formats.bigdl.layer import (
    MAX_ENTRIES,
    Activity,
    Layer,
    Node,
    axis_of,
    constant,
    flat,
    narrow,
    rank,
    size,
    table,
    take,
)


def join_table(layer: Layer, x: Activity) -> Node:
    entries = table(x)
    inside = layer.integer("nInputDims", 0)
    shift = 1 if inside > 0 and rank(entries[0]) == inside + 1 else 0
    return ops.concat(entries, axis_of(entries[0], layer.integer("dimension"), shift))


def split_table(layer: Layer, x: Node) -> Activity:
    inside = layer.integer("nInputDims", -1)
    axis = axis_of(x, layer.integer("dimension"), 1 if rank(x) == inside + 1 else 0)
    keep, length = layer.flag("keepDim", False), size(x, axis)
    if length > MAX_ENTRIES:
        raise layer.refuse(f"a table of {length} entries is too large")
    return [narrow(x, axis, index, 1) if keep else take(x, axis, index) for index in range(length)]


def bifurcate_table(layer: Layer, x: Node) -> Activity:
    axis = axis_of(x, layer.integer("dimension"))
    half = size(x, axis) // 2
    return [narrow(x, axis, 0, half), narrow(x, axis, half, size(x, axis) - half)]


def select_table(layer: Layer, x: Activity) -> Activity:
    """One entry of a table; a negative index is added to the length, as the library does."""
    entries = table(x)
    index = layer.integer("index")
    index = len(entries) + index if index < 0 else index
    if not 1 <= index <= len(entries):
        raise layer.refuse(f"entry {index} of a table of {len(entries)}")
    return entries[index - 1]


def narrow_table(layer: Layer, x: Activity) -> Activity:
    entries = table(x)
    offset, length = layer.integer("offset"), layer.integer("length", 1)
    length = len(entries) - offset + 2 + length if length < 0 else length
    if not (offset >= 1 and 0 <= length <= len(entries) - offset + 1):
        raise layer.refuse(f"{length} entries from entry {offset} of a table of {len(entries)}")
    return entries[offset - 1 : offset - 1 + length]


def flatten_table(_: Layer, x: Activity) -> Activity:
    return list(flat(x))


def pack(layer: Layer, x: Activity) -> Node:
    """Join entries along a new dimension."""
    entries = table(x) if isinstance(x, list) else [x]
    axis = layer.integer("dimension") - 1
    return ops.concat([ops.unsqueeze(entry, constant([axis], np.int64)) for entry in entries], axis)


def index(layer: Layer, x: Activity) -> Node:
    source, places = table(x, 2)[:2]
    axis = axis_of(source, layer.integer("dimension"))
    zero_based = ops.subtract(ops.convert(places, "i32"), constant(1, np.int32))
    return ops.gather(source, zero_based, constant(axis, np.int64))
