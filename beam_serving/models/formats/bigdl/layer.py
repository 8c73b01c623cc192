"""What a layer builder gets, and the few node helpers that all builders share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import openvino as ov
import openvino.opset15 as ops

from beam_serving.errors import ModelLoadError
from beam_serving.models.formats.bigdl.records import Attribute, Module, TensorRef
from beam_serving.models.formats.bigdl.weights import Weights

Node: TypeAlias = "ov.Output | ov.Node"
"""An `openvino.Output` or a node with a single output."""

Activity: TypeAlias = "Node | list[Activity]"
"""What flows between layers: a tensor, or a table of such (BigDL's `Activity`)."""

MAX_CONSTANT = 1 << 24
"""Elements of a constant that a builder makes out of attributes alone; files cannot ask for more."""

MAX_ENTRIES = 1 << 14
"""Entries of a table; nested tables that share their entries could otherwise be unfolded without end."""

_MISSING = object()


class UnsupportedLayerError(ModelLoadError):
    """A layer has no builder; the whole model is then searched for others."""


@dataclass(frozen=True)
class Layer:
    """A module with typed access to its attributes and weights; `build` builds the modules inside it.

    All accessors raise ModelLoadError when the attribute is missing or has another type.
    """

    module: Module
    weights: Weights
    build: Callable[[Module, Activity], Activity]

    def refuse(self, reason: str) -> ModelLoadError:
        return ModelLoadError(f"layer {self.module}: {reason}")

    def _attribute(self, name: str, default: object) -> Any:
        value = self.module.attributes.get(name)
        if value is None:
            if default is _MISSING:
                raise self.refuse(f"attribute {name} is missing")
            return default
        return value

    def integer(self, name: str, default: object = _MISSING) -> int:
        value = self._attribute(name, default)
        if not isinstance(value, int) or abs(value) > 1 << 31:
            raise self.refuse(f"attribute {name} is {value!r}, a 32-bit integer is expected")
        return value

    def number(self, name: str, default: object = _MISSING) -> float:
        value = self._attribute(name, default)
        if not isinstance(value, (int, float)):
            raise self.refuse(f"attribute {name} is {value!r}, a number is expected")
        return float(value)

    def flag(self, name: str, default: object = _MISSING) -> bool:
        return self.integer(name, default) != 0

    def integers(self, name: str, default: object = _MISSING) -> tuple[int, ...]:
        value = self._attribute(name, default)
        if not isinstance(value, tuple) or not all(isinstance(item, int) for item in value):
            raise self.refuse(f"attribute {name} is {value!r}, integers are expected")
        return value

    def text(self, name: str, default: object = _MISSING) -> str:
        value = self._attribute(name, default)
        if not isinstance(value, str):
            raise self.refuse(f"attribute {name} is {value!r}, a text is expected")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._attribute(name, _MISSING)
        if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
            raise self.refuse(f"attribute {name} is {value!r}, texts are expected")
        return value

    def child(self, name: str) -> Module | None:
        """Return a module that stands in an attribute, or None where the attribute is null or absent."""
        value: Attribute = self.module.attributes.get(name)
        if value is not None and not isinstance(value, Module):
            raise self.refuse(f"attribute {name} is no module")
        return value

    def tensor(self, name: str) -> np.ndarray:
        """Return a tensor attribute as float32."""
        value = self._attribute(name, _MISSING)
        if not isinstance(value, TensorRef):
            raise self.refuse(f"attribute {name} is no tensor")
        return self.array(value)

    def array(self, ref: TensorRef) -> np.ndarray:
        try:
            return self.weights.array(ref)
        except ModelLoadError as err:
            raise self.refuse(str(err)) from err

    def parameter(self, index: int, shape: Sequence[int] | None = None) -> np.ndarray:
        """Return the weight number `index` as float32; with `shape`, another shape of as many values is viewed so."""
        if index >= len(self.module.parameters):
            raise self.refuse(f"it has {len(self.module.parameters)} weights, {index + 1} are expected")
        values = self.array(self.module.parameters[index])
        if shape is None:
            return values
        if any(size <= 0 for size in shape) or values.size != np.prod(shape, dtype=object):
            raise self.refuse(f"a weight of shape {values.shape} is stored, {tuple(shape)} is expected")
        return values.reshape(shape)

    def channels_last(self, name: str = "format") -> bool:
        """Return whether the data format is NHWC."""
        return self.integer(name, 0) == 1


def constant(value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> Node:
    return ops.constant(np.asarray(value, dtype))


def sizes(x: Activity) -> tuple[int | None, ...]:
    """Return the shape of a tensor, None for a dimension that is free (the batch).

    Raises ModelLoadError for a table or when not even the number of dimensions is known.
    """
    if isinstance(x, list):
        raise ModelLoadError("a table arrives where a tensor is expected")
    shape = (x if hasattr(x, "get_partial_shape") else x.output(0)).get_partial_shape()
    if shape.rank.is_dynamic:
        raise ModelLoadError("the number of dimensions is not known")
    return tuple(None if size.is_dynamic else size.get_length() for size in shape)


def size(x: Node, axis: int) -> int:
    """Return the size of a dimension that has to be known."""
    value = sizes(x)[axis]
    if value is None:
        raise ModelLoadError(f"dimension {axis + 1} has to be known, but it is free")
    return value


def rank(x: Node) -> int:
    return len(sizes(x))


def table(x: Activity, at_least: int = 1) -> list[Activity]:
    """Return a table of at least so many entries."""
    if not isinstance(x, list) or len(x) < at_least:
        found = f"a table of {len(x)}" if isinstance(x, list) else "a tensor"
        raise ModelLoadError(f"{found} arrives where a table of at least {at_least} is expected")
    return x


def flat(x: Activity) -> list[Node]:
    """Return the tensors of nested tables, in order.

    Raises ModelLoadError for more than `MAX_ENTRIES`.
    """
    tensors: list[Node] = []
    waiting = [x]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(reversed(item))
        else:
            tensors.append(item)
        if len(tensors) + len(waiting) > MAX_ENTRIES:
            raise ModelLoadError(f"nested tables of more than {MAX_ENTRIES} entries")
    return tensors


def axis_of(x: Node, dimension: int, shift: int = 0) -> int:
    """Return the axis of a 1-based dimension; negative ones count from the end; `shift` is added to positive ones."""
    axis = rank(x) + dimension if dimension < 0 else dimension + shift - 1
    if not 0 <= axis < rank(x):
        raise ModelLoadError(f"dimension {dimension} of a tensor with {rank(x)} dimensions")
    return axis


def reshape(x: Node, target: Sequence[int | None]) -> Node:
    """View a tensor in another shape; None (at most one) takes what is left."""
    sizes_ = [-1 if size is None else size for size in target]
    if sizes_.count(-1) > 1:
        raise ModelLoadError(f"the shape {tuple(target)} is not known well enough")
    return ops.reshape(x, constant(sizes_, np.int64), False)


def transpose(x: Node, order: Sequence[int]) -> Node:
    return ops.transpose(x, constant(order, np.int64))


def channels_first(x: Node) -> Node:
    """NHWC to NCHW, for any number of spatial dimensions."""
    return transpose(x, [0, rank(x) - 1, *range(1, rank(x) - 1)])


def channels_last(x: Node) -> Node:
    """NCHW to NHWC, for any number of spatial dimensions."""
    return transpose(x, [0, *range(2, rank(x)), 1])


def along(values: np.ndarray, axis: int, of_rank: int) -> Node:
    """Return a vector as a constant that broadcasts along one axis."""
    return constant(values.reshape([-1 if index == axis else 1 for index in range(of_rank)]))


def narrow(x: Node, axis: int, start: int, length: int) -> Node:
    """Cut `length` entries from the 0-based `start` out of an axis."""
    total = sizes(x)[axis]
    if start < 0 or length < 0 or (total is not None and start + length > total):
        raise ModelLoadError(f"entries {start + 1} to {start + length} of a dimension of {total}")
    bounds = [constant([value], np.int64) for value in (start, start + length, 1, axis)]
    return ops.slice(x, *bounds)


def reduced(kind: str, x: Node, axes: Sequence[int], keep_dims: bool = False) -> Node:
    """Reduce axes by "sum", "mean", "max" or "min".

    OpenVINO 2026.4 applies a constant behind a reduction of the last of three axes along the wrong axis (its CPU
    plugin fuses the two, also when it has moved a transposition first), so three axes are reduced as four.
    """
    reduction = {"sum": ops.reduce_sum, "mean": ops.reduce_mean, "max": ops.reduce_max, "min": ops.reduce_min}[kind]
    if rank(x) != 3:
        return reduction(x, list(axes), keep_dims)
    wide = ops.unsqueeze(x, constant([2], np.int64))
    y = reduction(wide, [axis if axis < 2 else axis + 1 for axis in axes], keep_dims)
    gone = 0 if keep_dims else sum(axis < 2 for axis in axes)
    return ops.squeeze(y, constant([2 - gone], np.int64))


def take(x: Node, axis: int, index: int) -> Node:
    """One entry of an axis, which is dropped; `index` is 0-based."""
    total = sizes(x)[axis]
    if index < 0 or (total is not None and index >= total):
        raise ModelLoadError(f"entry {index + 1} of a dimension of {total}")
    return ops.gather(x, constant(index, np.int64), constant(axis, np.int64))
