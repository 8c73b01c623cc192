"""Plain records of what a BigDL `.model` file says, before anything is built from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

ShapeValue: TypeAlias = tuple[Any, ...]
"""A shape of the file: a tuple of ints, or a tuple of such tuples for a layer with several inputs; -1 is free."""

Attribute: TypeAlias = "bool | int | float | str | tuple[Any, ...] | Mapping[str, Any] | TensorRef | Module | None"


class Storage(NamedTuple):
    """The data that one or more tensors look at.

    `values` is one-dimensional: float32, float64 or integers, a view of the file. `quantised` is the int8 data of an
    int8 tensor as bytes; `values` then holds the largest and smallest value and the sum of each row.
    """

    values: np.ndarray
    quantised: memoryview | None = None


class TensorRef(NamedTuple):
    """A tensor as a window of a storage: `offset` is 1-based, as in BigDL; equal storage ids share their data."""

    storage_id: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    scalar: bool
    quantised: bool
    storage: Storage | None


@dataclass(frozen=True)
class Module:
    """One layer or container of the file.

    `parameters` are its weights in the order of the library's `parameters()`; files up to 0.5 have `weight` and
    `bias` instead, which are given in the same way. `predecessors` are names, for the nodes of a graph.
    """

    class_name: str
    name: str
    submodules: tuple["Module", ...] = ()
    predecessors: tuple[str, ...] = ()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    parameters: tuple[TensorRef, ...] = ()
    bias: TensorRef | None = None
    input_shape: ShapeValue | None = None

    @property
    def kind(self) -> str:
        """The simple class name: `Linear` of `com.intel.analytics.bigdl.nn.Linear`."""
        return self.class_name.rpartition(".")[2]

    def __str__(self) -> str:
        return f"{self.class_name} '{self.name}'" if self.name else self.class_name


class ModelFile(NamedTuple):
    """A whole file: the root module and the storages that stand in the file, by storage id."""

    root: Module
    storages: Mapping[int, Storage]
