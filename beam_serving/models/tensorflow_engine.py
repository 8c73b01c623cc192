"""The TensorFlow engine: runs functions of TensorFlow that OpenVINO cannot take, texts included."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import (
    STRING,
    ModelOptions,
    TensorSpec,
    chosen,
    describe,
    engine_threads,
    fitted,
    only_f32_on_cpu,
)
from beam_serving.models.fixed_batch import infer_rows

TENSORFLOW_ERRORS = (tf.errors.OpError, ValueError, TypeError, RuntimeError, LookupError, AttributeError, OSError)


class TensorFlowModel:
    """A function of TensorFlow, from tensors in order to tensors by name; several threads may share it."""

    engine = "tensorflow"

    def __init__(
        self,
        function: Callable[..., Mapping[str, Any]],
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        fixed_batch: int | None,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._function = function
        self._fixed_batch = fixed_batch

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `LoadedModel.predict`."""
        rows = infer_rows(self._infer, [batch[spec.name] for spec in self.inputs], self._fixed_batch)
        return {spec.name: column for spec, column in zip(self.outputs, rows, strict=True)}

    def _infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        try:
            given = self._function(*[tf.constant(array) for array in arrays])
            return [_owned(given[spec.name]) for spec in self.outputs]
        except TENSORFLOW_ERRORS as err:
            shapes = ", ".join(describe(array.dtype, array.shape) for array in arrays)
            raise ModelError(f"the model failed on a batch of {shapes}") from err


def model_of(
    function: Callable[..., Mapping[str, Any]],
    inputs: Sequence[tuple[str, Any]],
    outputs: Mapping[str, Any],
    options: ModelOptions,
    source: Path,
) -> TensorFlowModel:
    """Wraps a function; `inputs` and `outputs` are names with what has a `shape` and a `dtype` of TensorFlow.

    Raises:
        ModelLoadError: an input or output has no batch axis, or the options do not fit.
    """
    specs = fitted([_spec(name, one, "input", source) for name, one in inputs], options, source)
    batches = {one.shape[0] for _, one in inputs if one.shape.rank and one.shape[0] is not None}
    if len(batches) > 1:
        raise ModelLoadError(f"{source}: its inputs have different batch sizes, {sorted(batches)}")
    names = chosen(list(outputs), options, source)
    wanted = tuple(_spec(name, outputs[name], "output", source) for name in names)
    return TensorFlowModel(function, specs, wanted, batches.pop() if batches else None)


def prepare(options: ModelOptions, source: Path) -> None:
    """Sets TensorFlow up for a worker process: on the CPU, with its number of threads.

    Raises:
        ModelLoadError: the options ask for something else.
    """
    only_f32_on_cpu(options, source, "TensorFlow")
    threads = engine_threads(options)
    try:
        tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        # Once TensorFlow has computed something in this process, it keeps its threads.
        return


def _spec(name: str, one: Any, what: str, source: Path) -> TensorSpec:
    if one.shape.rank == 0:
        raise ModelLoadError(f"{source}: {what} {name!r} is a single value, without a batch axis")
    if one.shape.rank is None and what == "input":
        raise ModelLoadError(f"{source}: input {name!r} has no shape in the file, which TensorFlow cannot be given")
    sizes = tuple(one.shape.as_list()[1:]) if one.shape.rank else ()
    return TensorSpec(name, sizes, STRING if one.dtype == tf.string else np.dtype(one.dtype.as_numpy_dtype))


def _owned(tensor: Any) -> np.ndarray:
    array: np.ndarray = np.array(tensor.numpy())
    return array
