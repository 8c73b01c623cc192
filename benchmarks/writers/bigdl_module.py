"""A BigDL `.model`, as `saveModule` writes it: the data stands once, in the root's attribute `global_storage`.

Source of the field numbers: the message descriptors that BigDL 0.13 carries (`bigdl.proto`).
"""

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

import numpy as np

from benchmarks.mobilenet import Block, Convolution, Network
from benchmarks.writers.protobuf import block, number, numbers

_PACKAGE = "com.intel.analytics.bigdl.nn."
_INT32, _BOOL, _TENSOR, _NAMED, _ARRAY, _FLOAT = 0, 5, 10, 14, 15, 2


def write(network: Network, folder: Path) -> None:
    """Write `model.model`; it does not say its input's shape."""
    storage = _Storage()
    layers = [layer for part in network.blocks for layer in _block(storage, part)]
    layers.append(_module("SpatialAveragePooling", {"globalPooling": number(1, _BOOL) + number(8, 1), **_ONE_PIXEL}))
    inside, classes = network.weights.shape
    layers.append(_module("View", {"sizes": _integers([inside])}))
    sizes = {"inputSize": _integer(inside), "outputSize": _integer(classes)}
    layers.append(_module("Linear", sizes, storage.parameters(network.weights.T, network.bias)))
    layers.append(_module("SoftMax"))
    data = {"global_storage": number(1, _NAMED) + block(14, _attributes(2, storage.tensors))}
    (folder / "model.model").write_bytes(_module("Sequential", data, _children(layers)))


class _Storage:
    """The tensors so far with their data, by number."""

    def __init__(self) -> None:
        self.tensors: dict[str, bytes] = {}

    def parameters(self, *arrays: np.ndarray) -> bytes:
        return b"".join(block(16, self._reference(np.ascontiguousarray(array))) for array in arrays)

    def _reference(self, array: np.ndarray) -> bytes:
        """Return a BigDLTensor without data, whose storage has the number of the one with data."""
        key = len(self.tensors) + 1
        strides = [prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        shape = number(1, _FLOAT) + numbers(2, array.shape) + numbers(3, strides) + number(4, 1)
        shape += number(5, array.ndim) + number(6, array.size) + number(9, key)
        values = block(2, array.astype("<f4").tobytes())
        full = shape + block(8, number(1, _FLOAT) + values + number(9, key))
        self.tensors[str(key)] = number(1, _TENSOR) + block(10, full)
        return shape + block(8, number(1, _FLOAT) + number(9, key))


def _block(storage: _Storage, part: Block) -> list[bytes]:
    layers = [layer for one in part.convolutions for layer in _layers(storage, one)]
    if not part.residual:
        return layers
    branches = [_module("Sequential", more=_children(layers)), _module("Identity")]
    return [_module("ConcatTable", more=_children(branches)), _module("CAddTable")]


def _layers(storage: _Storage, one: Convolution) -> list[bytes]:
    out, inside, *kernel = one.filters.shape
    values = {"nInputPlane": inside * one.groups, "nOutputPlane": out, "nGroup": one.groups}
    for letter in "HW":
        values |= {f"kernel{letter}": one.kernel, f"stride{letter}": one.stride, f"pad{letter}": one.padding}
    filters = one.filters.reshape(one.groups, out // one.groups, inside, *kernel)
    attributes = {name: _integer(value) for name, value in values.items()}
    layer = _module("SpatialConvolution", attributes, storage.parameters(filters, one.bias))
    return [layer, _module("ReLU6")] if one.clipped else [layer]


def _module(kind: str, attributes: Mapping[str, bytes] | None = None, more: bytes = b"") -> bytes:
    return block(7, _PACKAGE + kind) + _attributes(8, attributes or {}) + more


def _children(modules: Iterable[bytes]) -> bytes:
    return b"".join(block(2, module) for module in modules)


def _attributes(field: int, values: Mapping[str, bytes]) -> bytes:
    return b"".join(block(field, block(1, key) + block(2, value)) for key, value in values.items())


def _integer(value: int) -> bytes:
    return number(1, _INT32) + number(3, value)


def _integers(values: list[int]) -> bytes:
    return number(1, _ARRAY) + block(15, number(1, len(values)) + number(2, _INT32) + numbers(3, values))


_ONE_PIXEL = {name: _integer(1) for name in ("kW", "kH", "dW", "dH")}
