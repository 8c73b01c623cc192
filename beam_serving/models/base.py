"""What every loader gives: a model that says what it takes and predicts whole batches.

This module imports neither Beam nor a framework, so that a model directory can be checked before either is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np


class TensorSpec(NamedTuple):
    """One named input or output: `shape` is without the batch axis, `None` where a dimension is free."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype


class LoadedModel(Protocol):
    """A model ready to predict. One instance is used by one thread at a time."""

    engine: str
    """The engine that runs it, as `model inspect` and the log show it: "openvino", "torch", "opencv", ..."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Runs the model on arrays with the batch axis first, by input name; gives the same by output name.

        The arrays returned belong to the caller: the next call does not overwrite them.
        """
        ...


@dataclass(frozen=True)
class ModelOptions:
    """How to load a model: everything a loader may need beside the directory.

    `input_shape` (without batch axis) stands in where the model file does not say its own; `threads` is the number
    of engine threads, 0 for the engine's choice; `precision` is f32, bf16 or int8.
    """

    engine: str = "auto"
    threads: int = 1
    precision: str = "f32"
    device: str = "cpu"
    input_shape: tuple[int, ...] | None = None
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
