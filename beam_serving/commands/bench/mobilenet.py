"""A network of MobileNetV2's shape (Sandler et al. 2018, table 2) with random weights, built without any framework.

What a network computes does not matter for how fast it computes; weights of a published one would have to be
downloaded.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops

INPUT_SIZE = 224
CLASSES = 1000
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, output channels, blocks and stride of the first block, as in the paper."""


def save_mobilenet(folder: Path) -> int:
    """Writes `model.xml` and `model.bin` (float32, input `input` of shape [?, 3, 224, 224]); gives the parameters."""
    builder = _Builder()
    image = ops.parameter([-1, 3, INPUT_SIZE, INPUT_SIZE], np.float32, name="input")
    image.output(0).set_names({"input"})
    node, channels = _clipped(builder.convolve(image, 3, 32, kernel=3, stride=2)), 32
    for expansion, width, blocks, first_stride in _STAGES:
        for block in range(blocks):
            node = builder.bottleneck(node, channels, width, expansion, first_stride if block == 0 else 1)
            channels = width
    node = _clipped(builder.convolve(node, channels, 1280))
    pooled = ops.reduce_mean(node, np.array([2, 3]), keep_dims=False)
    logits = builder.biased(ops.matmul(pooled, builder.weights(1280, 1280, CLASSES), False, False), (1, CLASSES))
    scores = ops.softmax(logits, 1)
    scores.output(0).set_names({"scores"})
    openvino.save_model(openvino.Model([scores], [image], "mobilenet"), folder / "model.xml", compress_to_fp16=False)
    return builder.parameters


class _Builder:
    """Adds layers and counts their parameters; batch normalisation is folded in, as any converter does."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self.parameters = 0

    def weights(self, fan_in: int, *shape: int) -> np.ndarray:
        """Gives weights that keep the scale of what they are applied to (He et al. 2015)."""
        return self._normal(shape, np.sqrt(2 / fan_in))

    def biased(self, node: Any, shape: tuple[int, ...]) -> Any:
        return ops.add(node, self._normal(shape, 0.1))

    def convolve(self, node: Any, given: int, wanted: int, kernel: int = 1, stride: int = 1) -> Any:
        filters = self.weights(given * kernel * kernel, wanted, given, kernel, kernel)
        pad = [kernel // 2] * 2
        return self.biased(ops.convolution(node, filters, [stride] * 2, pad, pad, [1, 1]), (1, wanted, 1, 1))

    def bottleneck(self, node: Any, given: int, wanted: int, expansion: int, stride: int) -> Any:
        inner = given * expansion
        hidden = _clipped(self.convolve(node, given, inner)) if expansion > 1 else node
        filters = self.weights(9, inner, 1, 1, 3, 3)
        hidden = ops.group_convolution(hidden, filters, [stride] * 2, [1, 1], [1, 1], [1, 1])
        hidden = self.convolve(_clipped(self.biased(hidden, (1, inner, 1, 1))), inner, wanted)
        return ops.add(node, hidden) if stride == 1 and given == wanted else hidden

    def _normal(self, shape: tuple[int, ...], scale: float) -> np.ndarray:
        self.parameters += math.prod(shape)
        values: np.ndarray = self._random.standard_normal(shape) * scale
        return values.astype(np.float32)


def _clipped(node: Any) -> Any:
    return ops.clamp(node, 0.0, 6.0)
