"""What every loader gives: a model that says what it takes and predicts whole batches.

This module imports neither Beam nor a framework, so that a model directory can be checked before either is loaded.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from beam_serving.errors import ModelLoadError

STRING = np.dtype(object)
"""The type of text: its elements are `str`, or `bytes` where the framework gives or takes raw bytes."""


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
    of engine threads, 0 for the engine's choice or OMP_NUM_THREADS; `precision` is f32, bf16 or int8; `device` is
    cpu, cuda or auto (cuda where torch has one and can run the model). `input_names` are given to the inputs in the
    model's order; `output_names` are the outputs to serve, all of them when it is empty. Batches of `full_batch` rows
    will come most: an engine may have a faster form for them. `encryption` is none, gcm or cbc (see
    `beam_serving.models.encrypted`), and `secret_file` holds the secret where the environment does not.
    """

    engine: str = "auto"
    threads: int = 1
    precision: str = "f32"
    device: str = "cpu"
    input_shape: tuple[int, ...] | None = None
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    full_batch: int | None = None
    encryption: str = "none"
    secret_file: str | None = None


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
    return f"{type_name(dtype)}[{', '.join('?' if size is None else str(size) for size in shape)}]"


def type_name(dtype: np.dtype) -> str:
    """Names a type as messages show it."""
    return "string" if dtype == STRING else str(dtype)


def zeros(spec: TensorSpec, batch_size: int) -> np.ndarray:
    """Gives a batch of zeros, or of empty texts, for an input; free dimensions are 1."""
    shape = (batch_size, *(size or 1 for size in spec.shape))
    return np.full(shape, "", STRING) if spec.dtype == STRING else np.zeros(shape, spec.dtype)


def numbered(name: str, count: int) -> list[str]:
    """Names what has no names: `output`, or `output_0`, `output_1`, ... where there are several."""
    return [name] if count == 1 else [f"{name}_{position}" for position in range(count)]


def readable(array: np.ndarray) -> np.ndarray:
    """Gives an array whose memory engines can read in place: they want it whole, aligned and writeable."""
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable and flags.aligned else array.copy(order="C")


def only_f32_on_cpu(options: ModelOptions, source: Path, engine: str) -> None:
    """Raises ModelLoadError where the options ask of an engine what it does not have."""
    if options.precision != "f32" or options.device.lower() != "cpu":
        asked = f"{options.precision} on {options.device}"
        raise ModelLoadError(f"{source}: {asked} is asked for, {engine} runs models in f32 on cpu only")


def fitted(specs: Sequence[TensorSpec], options: ModelOptions, source: Path) -> tuple[TensorSpec, ...]:
    """Gives a model's inputs with the names and the shape that the options give them.

    Raises:
        ModelLoadError: these do not fit the model.
    """
    if options.input_names and len(options.input_names) != len(specs):
        given = list(options.input_names)
        raise ModelLoadError(f"{source}: input_names are {given}, the model has {len(specs)} inputs")
    names = options.input_names or [spec.name for spec in specs]
    specs = [spec._replace(name=name) for name, spec in zip(names, specs, strict=True)]
    if options.input_shape is None:
        return tuple(specs)
    if len(specs) != 1:
        raise ModelLoadError(f"{source}: input_shape is for models with one input, this one has {len(specs)}")
    (spec,), wanted = specs, options.input_shape
    if len(spec.shape) != len(wanted) or any(
        size not in (None, want) for size, want in zip(spec.shape, wanted, strict=True)
    ):
        raise ModelLoadError(
            f"{source}: input_shape is {list(wanted)}, the model takes {describe(spec.dtype, spec.shape)}"
        )
    return (spec._replace(shape=wanted),)


def chosen(names: Sequence[str], options: ModelOptions, source: Path) -> list[str]:
    """Gives the names of the outputs to serve.

    Raises:
        ModelLoadError: one that is asked for does not exist.
    """
    if unknown := [name for name in options.output_names if name not in names]:
        raise ModelLoadError(f"{source}: has no output {unknown[0]!r}, its outputs are {', '.join(names)}")
    return list(options.output_names or names)
