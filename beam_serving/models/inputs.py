"""From a value that somebody sent to the tensor that an input takes: shape and type, exactly or not at all."""

from typing import Any

import numpy as np

from beam_serving.errors import RequestError
from beam_serving.models.base import STRING, TensorSpec, fits, type_name


def as_array(value: Any) -> np.ndarray:
    """Give an array for a tensor, a number, a text or nested lists of them.

    Raises:
        RequestError: it is none of these.
    """
    try:
        array = np.asarray(value)
    except ValueError as err:
        raise RequestError(f"a {type(value).__name__} is no regular tensor: {err}") from err
    if array.dtype.kind in "US":
        return array.astype(STRING)
    if array.dtype.kind not in "biuf" and not (array.dtype == STRING and _is_text(array)):
        raise RequestError(f"a {type(value).__name__} of {array.dtype} is no tensor of numbers or texts")
    return array


def _is_text(array: np.ndarray) -> bool:
    return all(isinstance(element, str | bytes) for element in array.flat)


def fitted(tensor: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Give a tensor in the shape and type of an input; an axis of one record in front is dropped.

    Raises:
        RequestError: it has another shape, or values that the type cannot hold.
    """
    if spec.shape is not None and not fits(tensor.shape, spec.shape):
        already_batched = tensor.ndim == len(spec.shape) + 1 and tensor.shape[0] == 1
        tensor = tensor.reshape(tensor.shape[1:]) if already_batched else tensor
        if not fits(tensor.shape, spec.shape):
            wanted = ["any" if size is None else size for size in spec.shape]
            raise RequestError(f"input {spec.name!r} has shape {list(tensor.shape)}, the model takes {wanted}")
    return tensor if tensor.dtype == spec.dtype else cast(tensor, spec)


def cast(tensor: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Give other widths of the same kind of number, and integers from whole floats.

    Raises:
        RequestError: the type cannot hold the values.
    """
    if spec.dtype == STRING and tensor.dtype.kind in "US":
        return tensor.astype(STRING)
    to_integers = spec.dtype.kind in "iu"
    if STRING in (tensor.dtype, spec.dtype):
        raise RequestError(
            f"input {spec.name!r} has type {type_name(tensor.dtype)}, the model takes {type_name(spec.dtype)}"
        )
    if not np.can_cast(tensor.dtype, spec.dtype, "same_kind") and not (to_integers and tensor.dtype.kind == "f"):
        raise RequestError(f"input {spec.name!r} has type {tensor.dtype}, the model takes {spec.dtype}")
    with np.errstate(invalid="ignore", over="ignore"):
        changed = tensor.astype(spec.dtype)
    if to_integers and not np.array_equal(changed, tensor):
        raise RequestError(f"input {spec.name!r} has {tensor.dtype} values that are no {spec.dtype}")
    return changed
