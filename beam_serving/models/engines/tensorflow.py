"""The TensorFlow engine: runs functions of TensorFlow, texts included, always from the state that the file holds."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import (
    STRING,
    EngineModel,
    Facts,
    ModelOptions,
    TensorSpec,
    engine_threads,
    failed_on,
    only_f32_on_cpu,
)

TENSORFLOW_ERRORS = (tf.errors.OpError, ValueError, TypeError, RuntimeError, LookupError, AttributeError, OSError)

_QUANTIZED = {"qint8": np.int8, "quint8": np.uint8, "qint16": np.int16, "quint16": np.uint16, "qint32": np.int32}
_NARROW = re.compile(r"u?int([1-7])")
_NO_NEWS = re.compile(r"Graph execution error:|Detected at node|<stack traces unavailable>|\[\[|File \"|\d+ root error")


class Port(NamedTuple):
    """An input or output of a function: the spec, and its type in TensorFlow."""

    spec: TensorSpec
    dtype: tf.DType


class TensorFlowModel:
    """A function of TensorFlow and the variables that it writes, which are set back before each inference."""

    engine = "tensorflow"

    def __init__(
        self,
        function: Callable[..., Sequence[tf.Tensor]],
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        facts: Facts,
        *,
        variables: Sequence[tf.Variable] = (),
        freed: Callable[[], EngineModel | None] = lambda: None,
    ) -> None:
        self.inputs = tuple(port.spec for port in inputs)
        self.outputs = tuple(port.spec for port in outputs)
        self.facts = facts
        self._dtypes = [port.dtype for port in inputs]
        self._function = function
        self._freed = freed
        self._initial = [(variable, tf.identity(variable)) for variable in variables]

    def infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """See `EngineModel.infer`."""
        try:
            for variable, value in self._initial:
                variable.assign(value)
            given = self._function(*map(_tensor, arrays, self._dtypes))
            return [plain(tensor.numpy()) for tensor in given]
        except TENSORFLOW_ERRORS as err:
            raise failed_on(arrays, telling_line(err)) from err

    def freed(self) -> EngineModel | None:
        """See `EngineModel.freed`."""
        return self._freed()

    def compile(self) -> None:
        """See `EngineModel.compile`; TensorFlow has nothing to prepare."""

    def settle(self) -> None:
        """See `EngineModel.settle`."""


def prepare(options: ModelOptions, source: Path) -> None:
    """Set TensorFlow up for a worker process: on the CPU, with its number of threads.

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


def port_of(name: str, shape: tuple[int | None, ...] | None, dtype: tf.DType, what: str, source: Path) -> Port:
    """Describe an input or output (`what`) of a shape and a type of TensorFlow.

    Raises:
        ModelLoadError: requests or results cannot carry the type.
    """
    served = served_type(dtype.base_dtype.name)
    if served is None:
        remedy = (
            "name other outputs in model: outputs, or export it with real and imaginary part apart"
            if what == "output"
            else "export a function of plain tensors"
        )
        raise ModelLoadError(f"{source}: {what} {name!r} is {dtype.base_dtype.name}, which cannot be sent; {remedy}")
    return Port(TensorSpec(name, shape, served, below=_below(dtype.base_dtype.name)), dtype.base_dtype)


def served_type(name: str) -> np.dtype | None:
    """Return the type in which values of a type of TensorFlow come and go; None for what cannot be sent."""
    if name == "string":
        return STRING
    if name == "bfloat16" or re.match(r"float[468]_", name):
        return np.dtype(np.float32)
    if name in _QUANTIZED:
        return np.dtype(_QUANTIZED[name])
    if _NARROW.fullmatch(name):
        return np.dtype(np.uint8 if name.startswith("u") else np.int8)
    return np.dtype(name) if re.fullmatch(r"bool|u?int(8|16|32|64)|float(16|32|64)", name) else None


def _below(name: str) -> int | None:
    """Return the bound of the integers that TensorFlow has and NumPy has not."""
    narrow = _NARROW.fullmatch(name)
    return None if narrow is None else 1 << (int(narrow[1]) - (not name.startswith("u")))


def plain(array: np.ndarray) -> np.ndarray:
    """Return an array of the caller's own in a type that NumPy has, with texts as `str` where they are UTF-8."""
    if array.dtype == STRING:
        texts = np.empty(array.shape, STRING)
        for index in np.ndindex(array.shape):
            texts[index] = _text(array[index])
        return texts
    served = served_type(array.dtype.name)
    return np.array(array) if served in (None, array.dtype) else array.astype(served)


def _text(value: object) -> bytes | str:
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return bytes(value)


def _tensor(array: np.ndarray, dtype: tf.DType) -> tf.Tensor:
    if dtype.name in _QUANTIZED:
        return tf.bitcast(tf.constant(array), dtype)
    if array.dtype == STRING:
        return tf.constant(array, tf.string)
    return tf.constant(array if array.dtype == dtype.as_numpy_dtype else array.astype(dtype.as_numpy_dtype))


def telling_line(err: BaseException) -> str:
    """Take the first line that tells something of what TensorFlow says, which may be pages long."""
    lines = [line.strip() for line in str(err).splitlines()]
    telling = [line for line in lines if line and not _NO_NEWS.match(line)]
    reported = telling[0].partition(" [Op:")[0] if telling else type(err).__name__
    return reported[:300]
