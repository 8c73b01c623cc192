"""A Caffe deploy net: `net.prototxt` and `net.caffemodel`. Source of the field numbers: caffe.proto of Caffe 1.0."""

from pathlib import Path

import numpy as np

from benchmarks.mobilenet import CLASSES, INPUT_SIZE, Convolution, Network
from benchmarks.writers.protobuf import block, numbers


def write(network: Network, folder: Path) -> None:
    """Write the net with the input `input` and the output `scores`."""
    net = _Net()
    node = "input"
    for part in network.blocks:
        given = node
        for one in part.convolutions:
            node = net.convolve(node, one)
        node = net.add("Eltwise", [given, node]) if part.residual else node
    pooled = net.add("Pooling", [node], "pooling_param { pool: AVE global_pooling: true }")
    linear = net.add("InnerProduct", [pooled], f"inner_product_param {{ num_output: {CLASSES} }}")
    net.weights[linear] = [np.ascontiguousarray(network.weights.T), network.bias]
    net.add("Softmax", [linear], name="scores")
    (folder / "net.prototxt").write_text(net.text, encoding="utf-8")
    (folder / "net.caffemodel").write_bytes(b"".join(_layer(name, blobs) for name, blobs in net.weights.items()))


class _Net:
    """The layers' text and weights so far; each layer is named by its number."""

    def __init__(self) -> None:
        shape = f"dim: 1 dim: 3 dim: {INPUT_SIZE} dim: {INPUT_SIZE}"
        self.text = f'layer {{ name: "input" type: "Input" top: "input" input_param {{ shape {{ {shape} }} }} }}\n'
        self.weights: dict[str, list[np.ndarray]] = {}

    def add(self, kind: str, bottoms: list[str], more: str = "", name: str = "") -> str:
        name = name or f"layer{self.text.count(chr(10))}"
        edges = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        self.text += f'layer {{ name: "{name}" type: "{kind}" {edges} top: "{name}" {more} }}\n'
        return name

    def convolve(self, bottom: str, one: Convolution) -> str:
        window = f"kernel_size: {one.kernel} stride: {one.stride} pad: {one.padding} group: {one.groups}"
        param = f"convolution_param {{ num_output: {one.bias.size} {window} }}"
        name = self.add("Convolution", [bottom], param)
        self.weights[name] = [one.filters, one.bias]
        return self.add("ReLU6", [name]) if one.clipped else name


def _layer(name: str, blobs: list[np.ndarray]) -> bytes:
    return block(100, block(1, name) + b"".join(block(7, _blob(values)) for values in blobs))


def _blob(values: np.ndarray) -> bytes:
    return block(7, numbers(1, values.shape)) + block(5, values.astype("<f4").tobytes())
