"""What every loader gives: a model that says what it takes and predicts whole batches.

This module imports neither Beam nor a framework, so that a model directory can be checked before either is loaded.
"""

import os
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
    """Empty where the model takes whatever comes (the no-op model)."""
    outputs: tuple[TensorSpec, ...]

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Runs the model on arrays with the batch axis first, by input name; gives the same by output name.

        The arrays returned belong to the caller: the next call does not overwrite them.

        Raises:
            ModelError: the engine failed on this batch.
        """
        ...


@dataclass(frozen=True)
class ModelOptions:
    """How to load a model: everything a loader may need beside the directory.

    `input_shape` (without batch axis) stands in where the model file does not say its own; `threads` is the number
    of engine threads, 0 for the engine's choice or OMP_NUM_THREADS; `precision` is f32, bf16 or int8 (a model that
    is quantised already). `input_names` are given to the inputs in the model's order; `output_names` are the outputs
    to serve, all of them when it is empty.
    """

    engine: str = "auto"
    threads: int = 1
    precision: str = "f32"
    device: str = "cpu"
    input_shape: tuple[int, ...] | None = None
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()


def engine_threads(options: ModelOptions) -> int:
    """Gives the number of engine threads to use, 0 for the engine's own choice.

    OMP_NUM_THREADS counts where the options leave the choice open: not every engine looks at it by itself.
    """
    if options.threads > 0:
        return options.threads
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def describe(dtype: np.dtype, shape: tuple[int | None, ...]) -> str:
    """Writes a type and shape as messages show them: `float32[3, 224, ?]`."""
    return f"{dtype}[{', '.join('?' if size is None else str(size) for size in shape)}]"


def numbered(name: str, count: int) -> list[str]:
    """Names what has no names: `output`, or `output_0`, `output_1`, ... where there are several."""
    return [name] if count == 1 else [f"{name}_{position}" for position in range(count)]


def readable(array: np.ndarray) -> np.ndarray:
    """Gives an array whose memory engines can read in place: they want it whole, aligned and writeable."""
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable and flags.aligned else array.copy(order="C")
