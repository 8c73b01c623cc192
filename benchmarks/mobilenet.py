"""A network of MobileNetV2's shape (Sandler et al. 2018, table 2) with random weights, as plain arrays.

What a network computes does not matter for how fast it computes; weights of a published one would have to be
downloaded. `writers` writes it in each model format.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

INPUT_SIZE = 224
CLASSES = 1000
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, output channels, blocks and stride of the first block, as in the paper."""


@dataclass(frozen=True)
class Convolution:
    """`filters` is (out, in per group, kernel, kernel), padded by half the kernel on every side; `clipped` to 0..6.

    Batch normalisation is folded in, as any converter does.
    """

    filters: np.ndarray
    bias: np.ndarray
    stride: int = 1
    groups: int = 1
    clipped: bool = True

    @property
    def kernel(self) -> int:
        """The kernel's height and width."""
        return int(self.filters.shape[2])

    @property
    def padding(self) -> int:
        """Zeros on every side."""
        return self.kernel // 2


@dataclass(frozen=True)
class Block:
    """Convolutions one after the other; with `residual` their input is added to what they give."""

    convolutions: tuple[Convolution, ...]
    residual: bool = False


@dataclass(frozen=True)
class Network:
    """Blocks, then the mean over height and width, `weights` of (in, classes), `bias` and a softmax.

    The input `input` is float32[?, 3, 224, 224], or [?, 224, 224, 3] where the format wants the channels last.
    """

    blocks: tuple[Block, ...]
    weights: np.ndarray
    bias: np.ndarray

    @property
    def parameters(self) -> int:
        """How many numbers it has learnt, had it learnt anything."""
        arrays = [array for block in self.blocks for one in block.convolutions for array in (one.filters, one.bias)]
        return sum(array.size for array in (*arrays, self.weights, self.bias))


def mobilenet() -> Network:
    """Make the network, the same each time."""
    random = np.random.default_rng(0)
    blocks = tuple(_blocks(random))
    return Network(blocks, _normal(random, (1280, CLASSES), np.sqrt(2 / 1280)), _normal(random, (CLASSES,), 0.1))


def _blocks(random: np.random.Generator) -> Iterator[Block]:
    yield Block((_convolution(random, 3, 32, kernel=3, stride=2),))
    given = 32
    for expansion, width, count, first_stride in _STAGES:
        for number in range(count):
            stride = first_stride if number == 0 else 1
            inner = given * expansion
            widened = [_convolution(random, given, inner)] if expansion > 1 else []
            depthwise = _convolution(random, inner, inner, kernel=3, stride=stride, groups=inner)
            narrowed = _convolution(random, inner, width, clipped=False)
            yield Block((*widened, depthwise, narrowed), residual=stride == 1 and given == width)
            given = width
    yield Block((_convolution(random, given, 1280),))


def _convolution(
    random: np.random.Generator,
    given: int,
    wanted: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    clipped: bool = True,
) -> Convolution:
    fan_in = given // groups * kernel * kernel
    # He et al. 2015: these keep the scale of what they are applied to.
    filters = _normal(random, (wanted, given // groups, kernel, kernel), np.sqrt(2 / fan_in))
    return Convolution(filters, _normal(random, (wanted,), 0.1), stride, groups, clipped)


def _normal(random: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    values: np.ndarray = random.standard_normal(shape) * scale
    return values.astype(np.float32)
