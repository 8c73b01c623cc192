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
    """One named input or output.

    Attributes:
        name: as requests and results have it.
        shape: of a `LoadedModel` that of one record, of an `EngineModel` that of the tensor in the file. A size is None
            where it is free, and the shape is None where any is taken.
        dtype: that of NumPy, `STRING` for text.
        below: bounds the magnitude of 64-bit integers, where the engine computes them in fewer bits: a value x must
            keep -below <= x < below; it also keeps out places beyond a table that they are looked up in. None where all
            are computed.
        nan: False where the engine computes NaN or infinity otherwise than the model's own framework does.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: np.dtype
    below: int | None = None
    nan: bool = True


class LoadedModel(Protocol):
    """A model ready to predict. One instance is used by one thread at a time.

    Attributes:
        engine: which runs it, as `model inspect` and the log show it: "openvino", "torch", "opencv", ...
        inputs: those that requests send; empty where the model takes whatever comes (the no-op model).
        outputs: those that `predict` gives.
        class_names: by output, the names of its classes, where the model file has them.
        one_by_one: whether `predict` takes one record only: its rows would depend on each other, or could not be told
            apart. It may become true with the first batch.
    """

    engine: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    class_names: Mapping[str, tuple[str, ...]]
    one_by_one: bool

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Run the model on a batch.

        Args:
            batch: by input name, records stacked along a first axis, in the types of `inputs`.

        Returns:
            By output name, the rows of the same records, in their order. The arrays belong to the caller: the next call
            does not overwrite them.

        Raises:
            ModelError: the batch does not fit the model, or the engine failed on it.
        """
        ...


class EngineModel(Protocol):
    """A model as its engine has it: whole tensors in, whole tensors out, in the order of the file.

    What a record is, and which part of a tensor belongs to it, is decided in `beam_serving.models.trial.batch_axis`.

    Attributes:
        engine: its name: "openvino", "torch", "opencv", ...
        inputs: the tensors of the file that it takes, in their order.
        outputs: the tensors that it gives, in their order.
        facts: what the engine knows of the model beside them.
    """

    engine: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    facts: "Facts"

    def infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Run the model once, from its initial state.

        Args:
            arrays: one for each of `inputs`, in their order, of their shapes and types.

        Returns:
            One array for each of `outputs`, in their order. They belong to the caller. Their types are plain: bfloat16
            and float8 leave as float32, int4 as int8, text as `STRING`.

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
        """Return the model for batches of one record; None where that is no good. It is asked for before `settle`.

        Args:
            threads: how many it is computed on, more than one.
        """
        ...


class Facts(NamedTuple):
    """What an engine knows of a model beside its tensors.

    Attributes:
        random: the operators that give something else each time.
        state: the operators that keep something from one inference to the next.
        doubts: what this engine is known to compute otherwise than the model's own framework.
        unproven: the operators that were never shown to be equal.
        class_names: by output, the names of its classes, where the file has them.
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

    Attributes:
        engine: the one to run it in, "noop" for a model that computes nothing, or "auto" for the first of its format
            that gives what the model's own framework gives.
        threads: of the engine; 0 for OMP_NUM_THREADS or the engine's choice, "auto" for one.
        alone_threads: where above 1, the threads for a record which is alone on the machine, see `Widening`. A service
            sets it for its own workers; `handler_for` pays no heed to it.
        precision: f32, bf16 or int8; others than f32 are OpenVINO's.
        device: cpu, cuda (torch alone), or auto: cuda where torch has one and can run the model.
        input_shape: shapes of records, without a batch axis (`data: shape` of a configuration). It stands in where the
            model file does not say its own, and replaces or fixes what it says. None leaves it to the file.
        input_names: are given to the inputs, in the model's order; empty leaves the names of the file.
        output_names: the outputs to serve; empty for all of them.
        full_batch: rows of the batches that will come most: an engine may have a faster form for them. None is none.
        encryption: of the files: none, gcm or cbc, see `beam_serving.models.encrypted`.
        secret_file: the path of a file of two lines, the secret and the salt; None for the environment variables
            BEAM_SERVING_MODEL_SECRET and BEAM_SERVING_MODEL_SALT.
        allow_weak_secret: the secret may be one that nothing new is encrypted with.
        batch_axis: "auto" (axis 0 where rows are shown to be independent), "none" (tensors are served as they are), or
            the number of the axis that records are stacked along, 0 to 31.
        constants: by name, the values of inputs that requests do not send.
        sample: what the model is tried with: the path of a file (.npz or an image) or shapes of records; None for
            records that are invented.
        sandbox: where a model is loaded for the first time: in a sandbox as far as the machine has one (auto), in a
            whole one or not at all (required), or without (off), see `beam_serving.models.trial.sandbox`.
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

    Args:
        options: of which `threads` counts.
    """
    if options.threads == "auto":
        return 1
    if options.threads > 0:
        return options.threads
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def describe(dtype: np.dtype, shape: tuple[int | None, ...] | None) -> str:
    """Return a type and shape as messages show them: `float32[3, 224, ?]`.

    Args:
        dtype: that of NumPy, `STRING` for text.
        shape: None for any; a size is None where it is free.
    """
    if shape is None:
        return f"{type_name(dtype)} of any shape"
    return f"{type_name(dtype)}[{', '.join('?' if size is None else str(size) for size in shape)}]"


def failed_on(arrays: Sequence[np.ndarray], reason: str) -> ModelError:
    """Return the error of an engine that failed.

    Args:
        arrays: the inputs that it failed on, whose types and shapes the message has.
        reason: the one that the engine gave.
    """
    shapes = ", ".join(describe(array.dtype, array.shape) for array in arrays)
    return ModelError(f"the model failed on {shapes}: {reason}")


def type_name(dtype: np.dtype) -> str:
    """Return the name of a type as messages show it.

    Args:
        dtype: that of NumPy; `STRING` is "string".
    """
    return "string" if dtype == STRING else str(dtype)


def fits(shape: tuple[int, ...], wanted: tuple[int | None, ...] | None) -> bool:
    """Return whether a shape is one that is wanted.

    Args:
        shape: that of an array.
        wanted: None for any; a size is None where it is free.
    """
    return wanted is None or (
        len(shape) == len(wanted) and all(want in (None, size) for size, want in zip(shape, wanted, strict=True))
    )


def numbered(name: str, count: int) -> list[str]:
    """Return names for what has none: `output`, or `output_0`, `output_1`, ... where there are several.

    Args:
        name: what they begin with.
        count: how many.
    """
    return [name] if count == 1 else [f"{name}_{position}" for position in range(count)]


def ensure_writable(array: np.ndarray) -> np.ndarray:
    """Return an array whose memory engines can read in place: they want it whole, aligned and writeable.

    Args:
        array: comes back itself where it is all of that, else as a copy.
    """
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable and flags.aligned else array.copy(order="C")


def only_f32_on_cpu(options: ModelOptions, source: Path, engine: str) -> None:
    """Refuse options that an engine does not have, which runs models in f32 on cpu only.

    Args:
        options: of which `precision` and `device` count.
        source: the file of the model, for the message.
        engine: its name, for the message.

    Raises:
        ModelLoadError: another precision or device is asked for.
    """
    if options.precision != "f32" or options.device.lower() != "cpu":
        asked = f"{options.precision} on {options.device}"
        raise ModelLoadError(f"{source}: {asked} is asked for, {engine} runs models in f32 on cpu only")


def listed_shapes(shapes: tuple[int, ...] | tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
    """Return shapes in the order of the inputs.

    Args:
        shapes: that of the only input, or a tuple of them.
    """
    several = [one for one in shapes if isinstance(one, tuple)]
    return several or [tuple(size for size in shapes if isinstance(size, int))]


def whole_shapes(
    specs: Sequence[TensorSpec], options: ModelOptions, source: Path
) -> list[tuple[int | None, ...] | None]:
    """Return the whole shape of each input as `input_shape` wants it, that of the file where it says nothing of it.

    `input_shape` is of records, so the batch axis of the file's tensor stays; where the file says no shape, the batch
    axis is free. It may name an input as the file does, or as `input_names` do.

    Args:
        specs: the inputs as the file has them, with their batch axis.
        options: of which `input_shape`, `input_names`, `batch_axis` and `constants` count.
        source: the file of the model, for messages.

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

    Args:
        names: those of all outputs.
        options: of which `output_names` count, in their order; where there are none all outputs are served.
        source: the file of the model, for the message.

    Raises:
        ModelLoadError: one that is asked for does not exist.
    """
    if unknown := [name for name in options.output_names if name not in names]:
        raise ModelLoadError(f"{source}: has no output {unknown[0]!r}, its outputs are {', '.join(names)}")
    return list(options.output_names or names)
