"""What every loader gives: a model that says what it takes and predicts whole batches.

This module imports neither Beam nor a framework, so that a model directory can be checked before either is loaded.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from beam_serving.errors import ModelError, ModelLoadError

STRING = np.dtype(object)
"""The type of text: its elements are `str`, or `bytes` where the framework gives or takes raw bytes."""


class TensorSpec(NamedTuple):
    """One named input or output; a size is `None` where it is free, and `shape` is None where any shape is taken.

    Of a `LoadedModel` the shape is that of one record, of an `EngineModel` that of the tensor in the file.

    `below` bounds the magnitude of 64-bit integers, where the engine computes them in fewer bits: a value x must keep
    -below <= x < below; it also keeps out places beyond a table that they are looked up in. `nan` is False where the
    engine computes NaN or infinity otherwise than the model's own framework does.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: np.dtype
    below: int | None = None
    nan: bool = True


class LoadedModel(Protocol):
    """A model ready to predict. One instance is used by one thread at a time."""

    engine: str
    """The engine that runs it, as `model inspect` and the log show it: "openvino", "torch", "opencv", ..."""
    inputs: tuple[TensorSpec, ...]
    """Empty where the model takes whatever comes (the no-op model)."""
    outputs: tuple[TensorSpec, ...]
    class_names: Mapping[str, tuple[str, ...]]
    """By output, the names of its classes, where the model file has them."""
    one_by_one: bool
    """Whether `predict` takes one record only: its rows would depend on each other, or could not be told apart."""

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Run the model on records stacked along a first axis, by input name; give the same by output name.

        The arrays returned belong to the caller: the next call does not overwrite them.

        Raises:
            ModelError: the batch does not fit the model, or the engine failed on it.
        """
        ...


class EngineModel(Protocol):
    """A model as its engine has it: whole tensors in, whole tensors out, in the order of the file.

    What a record is, and which part of a tensor belongs to it, is decided in `beam_serving.models.trial.batch_axis`.
    """

    engine: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    facts: "Facts"

    def infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Run the model on its inputs in order, from its initial state; the arrays fit `inputs`.

        The arrays returned belong to the caller. Their types are plain: bfloat16 and float8 leave as float32, int4 as
        int8, text as `STRING`.

        Raises:
            ModelError: the engine failed; the message has its reason.
        """
        ...

    def freed(self) -> "EngineModel | None":
        """Return the model with a free first axis in place of a fixed one; None where the engine cannot."""
        ...

    def compile(self) -> None:
        """Do what the first inference would otherwise have to do.

        Raises:
            ModelLoadError: the engine cannot run the model after all.
        """
        ...

    def settle(self) -> None:
        """Let go of what only `freed` needs, before the model serves."""
        ...


@runtime_checkable
class Widening(Protocol):
    """An `EngineModel` that may have a form for one record which is alone on the machine."""

    def widened(self, threads: int) -> "EngineModel | None":
        """Return the model for batches of one record, computed on so many threads; None where that is no good.

        It is asked for before `settle`.
        """
        ...


class Facts(NamedTuple):
    """What an engine knows of a model beside its tensors.

    `random` and `state` name the operators that give something else each time, and those that keep something from one
    inference to the next. `doubts` are what this engine is known to compute otherwise than the model's own framework,
    `unproven` the operators that were never shown to be equal. `class_names` are by output.
    """

    random: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
    class_names: Mapping[str, tuple[str, ...]] = {}


Shapes = tuple[int, ...] | tuple[tuple[int, ...], ...] | Mapping[str, tuple[int, ...]]
"""Shapes of records: that of the only input, those of all inputs in the model's order, or some by name."""


@dataclass(frozen=True)
class ModelOptions:
    """How to load a model: everything a loader may need beside the directory.

    `input_shape` (`data: shape` in a configuration; without batch axis) stands in where the model file does not say
    its own, and replaces or fixes what it says; `threads` is the number of engine threads, 0 for the engine's choice
    or OMP_NUM_THREADS, "auto" for one, and `alone_threads`, where it is above 1, that for a record which is alone, see
    `Widening`; `precision` is f32, bf16 or int8; `device` is cpu, cuda or auto (cuda where torch has one and
    can run the model). `input_names` are given to the inputs in the model's order; `output_names` are the outputs to
    serve, all of them when it is empty. Batches of `full_batch` rows will come most: an engine may have a faster form
    for them. `encryption` is none, gcm or cbc (see `beam_serving.models.encrypted`), and `secret_file` holds the
    secret where the environment does not; with `allow_weak_secret` it may be one that nothing new is encrypted with.

    `batch_axis` is "auto" (axis 0 where rows are shown to be independent), "none" (tensors are served as they are),
    or the number of the axis that records are stacked along. `constants` feed inputs that requests do not send.
    `sample` is what the model is tried with: a file (.npz or an image) or shapes. `sandbox` is auto, required or off:
    where it is loaded for the first time, see `beam_serving.models.trial.sandbox`.
    """

    engine: str = "auto"
    threads: int | Literal["auto"] = 1
    alone_threads: int = 0
    precision: str = "f32"
    device: str = "cpu"
    input_shape: Shapes | None = None
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    full_batch: int | None = None
    encryption: str = "none"
    secret_file: str | None = None
    allow_weak_secret: bool = False
    batch_axis: str | int = "auto"
    constants: Mapping[str, Any] = field(default_factory=dict)
    sample: str | Shapes | None = None
    sandbox: str = "auto"


def engine_threads(options: ModelOptions) -> int:
    """Return the number of engine threads to use, 0 for the engine's own choice.

    OMP_NUM_THREADS counts where the options leave the choice open: not every engine looks at it by itself.
    """
    if options.threads == "auto":
        return 1
    if options.threads > 0:
        return options.threads
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def describe(dtype: np.dtype, shape: tuple[int | None, ...] | None) -> str:
    """Write a type and shape as messages show them: `float32[3, 224, ?]`."""
    if shape is None:
        return f"{type_name(dtype)} of any shape"
    return f"{type_name(dtype)}[{', '.join('?' if size is None else str(size) for size in shape)}]"


def failed_on(arrays: Sequence[np.ndarray], reason: str) -> ModelError:
    """Return the error of an engine that failed on these inputs, for the reason that it gave."""
    shapes = ", ".join(describe(array.dtype, array.shape) for array in arrays)
    return ModelError(f"the model failed on {shapes}: {reason}")


def type_name(dtype: np.dtype) -> str:
    """Name a type as messages show it."""
    return "string" if dtype == STRING else str(dtype)


def fits(shape: tuple[int, ...], wanted: tuple[int | None, ...] | None) -> bool:
    """Return whether a shape is one that is wanted."""
    return wanted is None or (
        len(shape) == len(wanted) and all(want in (None, size) for size, want in zip(shape, wanted, strict=True))
    )


def numbered(name: str, count: int) -> list[str]:
    """Name what has no names: `output`, or `output_0`, `output_1`, ... where there are several."""
    return [name] if count == 1 else [f"{name}_{position}" for position in range(count)]


def ensure_writable(array: np.ndarray) -> np.ndarray:
    """Return an array whose memory engines can read in place: they want it whole, aligned and writeable."""
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable and flags.aligned else array.copy(order="C")


def only_f32_on_cpu(options: ModelOptions, source: Path, engine: str) -> None:
    """Raise ModelLoadError where the options ask of an engine what it does not have."""
    if options.precision != "f32" or options.device.lower() != "cpu":
        asked = f"{options.precision} on {options.device}"
        raise ModelLoadError(f"{source}: {asked} is asked for, {engine} runs models in f32 on cpu only")


def listed_shapes(shapes: tuple[int, ...] | tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
    """Return shapes in the order of the inputs: one alone is that of the only input."""
    several = [one for one in shapes if isinstance(one, tuple)]
    return several or [tuple(size for size in shapes if isinstance(size, int))]


def whole_shapes(
    specs: Sequence[TensorSpec], options: ModelOptions, source: Path
) -> list[tuple[int | None, ...] | None]:
    """Return the whole shape of each input as `input_shape` wants it, that of the file where it says nothing of it.

    `input_shape` is of records, so the batch axis of the file's tensor stays; where the file says no shape, the batch
    axis is free. It may name an input as the file does, or as `input_names` do.

    Raises:
        ModelLoadError: it names no input of the model, has another number of shapes or of sizes, or `input_names` are
            not as many as the inputs.
    """
    if options.input_names and len(options.input_names) != len(specs):
        given = list(options.input_names)
        raise ModelLoadError(f"{source}: input_names are {given}, the model has {len(specs)} inputs")
    names = options.input_names or tuple(spec.name for spec in specs)
    wanted = _shapes_by_name(names, options.input_shape, options.constants, source)
    if unknown := [name for name in wanted if name not in names]:
        raise ModelLoadError(f"{source}: data: shape names {unknown[0]!r}, the inputs are {', '.join(names)}")
    return [
        _whole_shape(spec, wanted[name], options, source) if name in wanted else spec.shape
        for name, spec in zip(names, specs, strict=True)
    ]


def _shapes_by_name(
    names: Sequence[str], shapes: Shapes | None, constants: Mapping[str, object], source: Path
) -> Mapping[str, tuple[int, ...]]:
    if shapes is None:
        return {}
    if isinstance(shapes, Mapping):
        return shapes
    listed = listed_shapes(shapes)
    asked = [name for name in names if name not in constants]
    if len(listed) != len(asked):
        example = ", ".join(f"{name}: ..." for name in asked)
        raise ModelLoadError(
            f"{source}: data: shape is for {len(listed)} input{'s' * (len(listed) != 1)}, the model has {len(asked)}; "
            f"wanted is a shape by name, as {{{example}}}"
        )
    return dict(zip(asked, listed, strict=True))


def _whole_shape(
    spec: TensorSpec, record: tuple[int, ...], options: ModelOptions, source: Path
) -> tuple[int | None, ...]:
    if options.batch_axis == "none":
        whole: tuple[int | None, ...] = tuple(record)
    else:
        axis = min(options.batch_axis, len(record)) if isinstance(options.batch_axis, int) else 0
        rows = spec.shape[axis] if spec.shape is not None and len(spec.shape) > axis else None
        whole = (*record[:axis], rows, *record[axis:])
    if spec.shape is not None and len(spec.shape) != len(whole):
        taken = describe(spec.dtype, spec.shape)
        raise ModelLoadError(
            f"{source}: data: shape of input {spec.name!r} is {list(record)}, "
            f"the model takes {taken} with its batch axis"
        )
    return whole


def select_outputs(names: Sequence[str], options: ModelOptions, source: Path) -> list[str]:
    """Return the names of the outputs to serve.

    Raises:
        ModelLoadError: one that is asked for does not exist.
    """
    if unknown := [name for name in options.output_names if name not in names]:
        raise ModelLoadError(f"{source}: has no output {unknown[0]!r}, its outputs are {', '.join(names)}")
    return list(options.output_names or names)
