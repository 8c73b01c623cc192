"""Recurrent layers as loops of OpenVINO (TensorIterator). Source: BigDL 0.13's `Recurrent` and its cells.

A saved cell holds its step as a plain module (`cell`) that takes the table (input, hidden) and gives (output, hidden);
so every cell, also one of other building blocks, is built by the builders of its parts. What does not depend on the
state (`preTopology`, the product with the input weights) stands before the loop.
"""

import numpy as np
import openvino as ov
import openvino.opset15 as ops

from beam_serving.models.formats.bigdl.layer import Activity, Layer, Node, constant, size, sizes, table
from beam_serving.models.formats.bigdl.records import Module

_TIME = 1
_HIDDEN_SIZES = {
    "RnnCell": ("hiddenSize",),
    "LSTM": ("hiddenSize", "hiddenSize"),
    "LSTMPeephole": ("hiddenSize", "hiddenSize"),
    "GRU": ("outputSize",),
    "ConvLSTMPeephole": ("outputSize", "outputSize"),
    "ConvLSTMPeephole3D": ("outputSize", "outputSize"),
}
MAX_DECODER_STEPS = 1024


def recurrent(layer: Layer, x: Node) -> Node:
    """(batch, time, ...) to (batch, time, hidden, ...): runs the cell over the time from a state of zeros."""
    cell = _part(layer, "topology")
    before = layer.child("preTopology")
    inputs = layer.build(before, x) if before else x
    shape = sizes(inputs)
    if len(shape) not in (3, 5, 6):
        raise layer.refuse(f"the input has {len(shape)} dimensions, 3, 5 or 6 are expected")
    states = _first_states(layer, cell, x)
    step = ops.parameter([-1, 1, *shape[2:]], np.float32)
    hidden = [ops.parameter([-1, *sizes(state)[1:]], np.float32) for state in states]
    output, after = _step(layer, cell, ops.squeeze(step, constant([_TIME], np.int64)), list(hidden))
    results = [ops.result(ops.unsqueeze(output, constant([_TIME], np.int64))), *(ops.result(state) for state in after)]
    loop = ops.tensor_iterator()
    loop.set_body(ov.Model(results, [step, *hidden]))
    loop.set_sliced_input(step, _output(inputs), 0, 1, 1, -1, _TIME)
    for parameter, state, result in zip(hidden, states, results[1:], strict=True):
        loop.set_merged_input(parameter, _output(state), _output(result))
    return loop.get_concatenated_slices(_output(results[0]), 0, 1, 1, -1, _TIME)


def bidirectional(layer: Layer, x: Node) -> Activity:
    """BiRecurrent: the library keeps both directions and their merge in one module."""
    return layer.build(_part(layer, "birnn"), x)


def recurrent_decoder(layer: Layer, x: Node) -> Node:
    """Feed the output of each step back as the input of the next, from an input without a time dimension."""
    cell = _part(layer, "topology")
    steps = layer.integer("seqLength")
    if not 1 <= steps <= MAX_DECODER_STEPS:
        raise layer.refuse(f"seqLength is {steps}")
    states: list[Activity] = _decoder_states(layer, cell, x)
    outputs = []
    for _ in range(steps):
        x, states = _step(layer, cell, x, states)
        outputs.append(ops.unsqueeze(x, constant([_TIME], np.int64)))
    return ops.concat(outputs, _TIME)


def multi_cell(layer: Layer, x: Activity) -> Activity:
    """MultiRNNCell: each cell's output is the next one's input; the state is the table of their states."""
    step, states = table(x, 2)[:2]
    after: list[Activity] = []
    for cell, state in zip(_cells(layer.module), table(states), strict=True):
        step, following = table(layer.build(cell, [step, state]), 2)[:2]
        after.append(following)
    return [step, after]


def cell_step(layer: Layer, x: Activity) -> Activity:
    """One step of a cell: (input, hidden) to (output, hidden)."""
    entries = table(x, 2)
    before = layer.child("preTopology")
    if layer.flag("includePreTopology", False) and before:
        entries = [layer.build(before, entries[0]), entries[1]]
    return layer.build(_part(layer, "cell"), entries)


def _step(layer: Layer, cell: Module, x: Node, states: list[Activity]) -> tuple[Node, list[Activity]]:
    hidden = states[0] if len(states) == 1 and cell.kind != "MultiRNNCell" else states
    output, after = table(layer.build(cell, [x, hidden]), 2)[:2]
    return output, after if isinstance(after, list) else [after]


def _first_states(layer: Layer, cell: Module, x: Node) -> list[Node]:
    """Zeros of (batch, hidden, ...) for each state of the cell; further dimensions are those of the input's step."""
    if cell.kind not in _HIDDEN_SIZES:
        raise layer.refuse(f"the cell {cell.kind} is not supported")
    inner = Layer(cell, layer.weights, layer.build)
    return [_zeros(x, [inner.integer(name), *_spatial(x)]) for name in _HIDDEN_SIZES[cell.kind]]


def _spatial(x: Node) -> list[int]:
    return [size(x, axis) for axis in range(3, len(sizes(x)))]


def _decoder_states(layer: Layer, cell: Module, x: Node) -> list[Activity]:
    timed = ops.unsqueeze(x, constant([_TIME], np.int64))
    if cell.kind != "MultiRNNCell":
        return list(_first_states(layer, cell, timed))
    states = [_first_states(layer, part, timed) for part in _cells(cell)]
    return [state if len(state) > 1 else state[0] for state in states]


def _zeros(x: Node, shape: list[int]) -> Node:
    """Zeros with the batch size of `x`."""
    batch = ops.gather(ops.shape_of(x), constant([0], np.int64), constant(0, np.int64))
    return ops.broadcast(constant(0.0), ops.concat([batch, constant(shape, np.int64)], 0))


def _cells(module: Module) -> tuple[Module, ...]:
    cells = module.attributes.get("cells")
    return tuple(cell for cell in cells if isinstance(cell, Module)) if isinstance(cells, tuple) else ()


def _part(layer: Layer, name: str) -> Module:
    module = layer.child(name)
    if module is None:
        raise layer.refuse(f"attribute {name} is missing")
    return module


def _output(node: Node) -> ov.Output:
    return node if isinstance(node, ov.Output) else node.output(0)
