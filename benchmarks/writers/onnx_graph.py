"""An ONNX graph, as an exporter would write it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.mobilenet import CLASSES, INPUT_SIZE, Convolution, Network

_OPSET = 17
_IR_VERSION = 8


def write(network: Network, folder: Path) -> None:
    """Write `model.onnx` with the output `scores`."""
    graph = _Graph()
    low, high = graph.constant(np.float32(0)), graph.constant(np.float32(6))
    node = "input"
    for block in network.blocks:
        given = node
        for one in block.convolutions:
            node = graph.convolve(node, one)
            node = graph.add("Clip", node, low, high) if one.clipped else node
        node = graph.add("Add", given, node) if block.residual else node
    flat = graph.add("Flatten", graph.add("GlobalAveragePool", node))
    logits = graph.add("Gemm", flat, graph.constant(network.weights), graph.constant(network.bias))
    graph.nodes.append(helper.make_node("Softmax", [logits], ["scores"], axis=1))
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, INPUT_SIZE, INPUT_SIZE])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CLASSES])
    made = helper.make_graph(graph.nodes, "mobilenet", [image], [scores], graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.save(model, folder / "model.onnx")


class _Graph:
    """Nodes and constants so far, each named by its number."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: np.ndarray | np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def convolve(self, node: str, one: Convolution) -> str:
        attributes: dict[str, Any] = {"strides": [one.stride] * 2, "pads": [one.padding] * 4, "group": one.groups}
        return self.add("Conv", node, self.constant(one.filters), self.constant(one.bias), **attributes)
