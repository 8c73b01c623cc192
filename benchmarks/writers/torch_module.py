"""A torch module, traced or exported."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.mobilenet import INPUT_SIZE, Block, Convolution, Network

_EXAMPLES = 2
"""The batch to trace with: exporting takes 0 and 1 for constants."""


def write_torchscript(network: Network, folder: Path) -> None:
    """Write `model.pt`, traced."""
    torch.jit.trace(_module(network), _example()).save(str(folder / "model.pt"))


def write_program(network: Network, folder: Path) -> None:
    """Write `model.pt2` with a free batch."""
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(_module(network), (_example(),), dynamic_shapes=shapes), folder / "model.pt2")


def _example() -> Any:
    return torch.zeros(_EXAMPLES, 3, INPUT_SIZE, INPUT_SIZE)


def _module(network: Network) -> Any:
    linear = nn.Linear(*network.weights.shape)
    _set(linear, network.weights.T.copy(), network.bias)
    ends = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear, nn.Softmax(1))
    return nn.Sequential(*map(_block, network.blocks), *ends).eval()


def _block(block: Block) -> Any:
    layers = [layer for one in block.convolutions for layer in _layers(one)]
    return _Residual(*layers) if block.residual else nn.Sequential(*layers)


def _layers(one: Convolution) -> list[Any]:
    out, inside = one.filters.shape[:2]
    layer = nn.Conv2d(inside * one.groups, out, one.kernel, one.stride, one.padding, groups=one.groups)
    _set(layer, one.filters, one.bias)
    return [layer, nn.ReLU6()] if one.clipped else [layer]


def _set(layer: Any, weights: Any, bias: Any) -> None:
    layer.load_state_dict({"weight": torch.from_numpy(weights), "bias": torch.from_numpy(bias)})


class _Residual(nn.Sequential):
    """Adds its input to what its layers give."""

    def forward(self, given: Any) -> Any:
        return given + super().forward(given)
