"""Containers: how data flows between modules.

Source: BigDL 0.13's containers and the graph's serializer. A graph keeps its nodes in any order; the edges are each
node's predecessors, and `<name>_edges` tells which entry of a predecessor's table is taken (-1: all of it).
"""

import openvino.opset15 as ops

from beam_serving.errors import ModelLoadError
from beam_serving.models.formats.bigdl.layer import Activity, Layer, axis_of, reduced, reshape, size, sizes, table
from beam_serving.models.formats.bigdl.records import Module

_SOURCES = ("Const", "Fill")


def sequential(layer: Layer, x: Activity) -> Activity:
    for module in layer.module.submodules:
        x = layer.build(module, x)
    return x


def concat(layer: Layer, x: Activity) -> Activity:
    branches = [layer.build(module, x) for module in layer.module.submodules]
    if not branches:
        raise layer.refuse("it has no branches")
    return ops.concat(branches, axis_of(branches[0], layer.integer("dimension")))


def concat_table(layer: Layer, x: Activity) -> Activity:
    return [layer.build(module, x) for module in layer.module.submodules]


def parallel_table(layer: Layer, x: Activity) -> Activity:
    entries = table(x)
    modules = layer.module.submodules
    if len(modules) < len(entries):
        raise layer.refuse(f"it has {len(modules)} modules for a table of {len(entries)}")
    return [layer.build(module, entry) for module, entry in zip(modules, entries, strict=False)]


def map_table(layer: Layer, x: Activity) -> Activity:
    modules = layer.module.submodules
    if not modules:
        raise layer.refuse("it has no module")
    return [layer.build(modules[0], entry) for entry in table(x)]


def bottle(layer: Layer, x: Activity) -> Activity:
    """Fold the leading dimensions into one, apply the module and unfold them again."""
    inside = layer.integer("nInputDim", 2)
    outside = layer.integer("nOutputDim1", inside)
    outside = inside if outside == (1 << 31) - 1 else outside
    shape = sizes(x)
    lead = len(shape) - inside + 1
    modules = layer.module.submodules
    if len(modules) != 1 or lead < 1:
        raise layer.refuse("one module and as many input dimensions as nInputDim says are expected")
    y = layer.build(modules[0], reshape(x, [None, *shape[lead:]]) if lead > 1 else x)
    return reshape(y, [*shape[:lead], *sizes(y)[1:]]) if lead > 1 and outside <= inside else y


def time_distributed(layer: Layer, x: Activity) -> Activity:
    """Apply a module to every time step: batch and time are folded into one dimension and unfolded again."""
    module = layer.child("layer")
    if module is None:
        raise layer.refuse("it has no layer")
    shape = sizes(x)
    if len(shape) < 3:
        raise layer.refuse(f"the input has {len(shape)} dimensions, at least 3 are expected")
    y = layer.build(module, reshape(x, [None, *shape[2:]]))
    y = reshape(y, [None, size(x, 1), *sizes(y)[1:]])
    if not layer.flag("maskZero", False):
        return y
    return ops.multiply(y, ops.sign(reduced("max", ops.abs(x), [2], keep_dims=True)))


def graph(layer: Layer, x: Activity) -> Activity:
    """Build the nodes of a graph in the order of their dependencies."""
    nodes = {module.name: module for module in layer.module.submodules}
    inputs, outputs = layer.texts("inputNames"), layer.texts("outputNames")
    unknown = [name for name in (*inputs, *outputs) if name not in nodes]
    if unknown or not outputs:
        raise layer.refuse(f"the graph has no node {', '.join(unknown)}")
    if len(inputs) > 1 and len(table(x, len(inputs))) != len(inputs):
        raise layer.refuse(f"{len(inputs)} inputs are expected")
    feeds = dict(zip(inputs, table(x), strict=True)) if len(inputs) > 1 else dict.fromkeys(inputs, x)
    results: dict[str, Activity] = {}
    for name in _in_order(layer, nodes, outputs):
        results[name] = layer.build(nodes[name], _input_of(layer, nodes, nodes[name], results, feeds))
    return results[outputs[0]] if len(outputs) == 1 else [results[name] for name in outputs]


def _in_order(layer: Layer, nodes: dict[str, Module], outputs: tuple[str, ...]) -> list[str]:
    """Return the nodes that the outputs need, each behind its predecessors; a cycle is refused."""
    order: list[str] = []
    state: dict[str, bool] = {}
    stack = list(reversed(outputs))
    while stack:
        name = stack[-1]
        if state.get(name):
            stack.pop()
            continue
        waiting = [before for before in nodes[name].predecessors if before in nodes and not state.get(before)]
        if name in state and any(before in state for before in waiting):
            raise layer.refuse(f"node '{name}' of the graph is part of a cycle")
        if waiting:
            state[name] = False
            stack.extend(reversed(waiting))
        else:
            state[name] = True
            order.append(name)
            stack.pop()
    return order


def _input_of(
    layer: Layer, nodes: dict[str, Module], module: Module, results: dict[str, Activity], feeds: dict[str, Activity]
) -> Activity:
    before = [name for name in module.predecessors if name in nodes]
    if not before:
        if module.name not in feeds and module.kind not in _SOURCES:
            raise layer.refuse(f"node '{module.name}' of the graph has no input")
        return feeds.get(module.name, [])
    entries = [_entry(results[name], _edge(layer, module, name)) for name in before]
    return entries[0] if len(entries) == 1 else entries


def _edge(layer: Layer, module: Module, before: str) -> int:
    edges = layer.module.attributes.get(f"{module.name}_edges")
    index = edges.get(before, -1) if isinstance(edges, dict) else -1
    if not isinstance(index, int):
        raise layer.refuse(f"the edge from '{before}' to '{module.name}' is {index!r}")
    return index


def _entry(activity: Activity, index: int) -> Activity:
    if index == -1 or (index == 1 and not isinstance(activity, list)):
        return activity
    entries = table(activity)
    if not 1 <= index <= len(entries):
        raise ModelLoadError(f"entry {index} of a table of {len(entries)}")
    return entries[index - 1]
