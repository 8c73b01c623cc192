"""OpenVINO's own format, `model.xml` and `model.bin`, in float32."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops

from benchmarks.mobilenet import INPUT_SIZE, Convolution, Network


def write(network: Network, folder: Path) -> None:
    """Write the network with the output `scores`."""
    image = ops.parameter([-1, 3, INPUT_SIZE, INPUT_SIZE], np.float32, name="input")
    image.output(0).set_names({"input"})
    node: Any = image
    for block in network.blocks:
        given = node
        for convolution in block.convolutions:
            node = _convolved(node, convolution)
        node = ops.add(given, node) if block.residual else node
    pooled = ops.reduce_mean(node, np.array([2, 3]), keep_dims=False)
    scores = ops.softmax(ops.add(ops.matmul(pooled, network.weights, False, False), network.bias[None]), 1)
    scores.output(0).set_names({"scores"})
    openvino.save_model(openvino.Model([scores], [image], "mobilenet"), folder / "model.xml", compress_to_fp16=False)


def _convolved(node: Any, one: Convolution) -> Any:
    where: Any = ([one.stride] * 2, [one.padding] * 2, [one.padding] * 2, [1, 1])
    if one.groups == 1:
        node = ops.convolution(node, one.filters, *where)
    else:
        out, inside, *kernel = one.filters.shape
        filters = one.filters.reshape(one.groups, out // one.groups, inside, *kernel)
        node = ops.group_convolution(node, filters, *where)
    node = ops.add(node, one.bias[None, :, None, None])
    return ops.clamp(node, 0.0, 6.0) if one.clipped else node
