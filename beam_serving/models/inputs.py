"""From a value that somebody sent to the tensor that an input takes: shape and type, exactly or not at all."""

import numpy as np

from beam_serving.errors import RequestError
from beam_serving.models.base import STRING, TensorSpec, fits, type_name
from beam_serving.protocol.numbers import changed, overflowed
from beam_serving.protocol.text import is_text

_MOST_AT_ONCE = 1 << 20


def as_array(value: object) -> np.ndarray:
    """Return an array for a tensor, a number, a text or nested lists of them.

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


def resolve_input(tensor: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Return a tensor in the shape and type of an input; an axis of one record in front is dropped.

    Raises:
        RequestError: it has another shape, or values that the type cannot hold.
    """
    if is_text(tensor) != (spec.dtype == STRING):
        raise RequestError(_other_kind(tensor, spec))
    if spec.shape is not None and not fits(tensor.shape, spec.shape):
        already_batched = tensor.ndim == len(spec.shape) + 1 and tensor.shape[0] == 1
        tensor = tensor.reshape(tensor.shape[1:]) if already_batched else tensor
        if not fits(tensor.shape, spec.shape):
            wanted = ["any" if size is None else size for size in spec.shape]
            raise RequestError(f"input {spec.name!r} has shape {list(tensor.shape)}, the model takes {wanted}")
    return tensor if tensor.dtype == spec.dtype else cast(tensor, spec)


def _other_kind(value: np.ndarray, spec: TensorSpec) -> str:
    got = "string" if is_text(value) else str(value.dtype)
    reported = f"input {spec.name!r} has type {got}, the model takes {type_name(spec.dtype)}"
    if is_text(value) and len(spec.shape or ()) == 3:
        return f"{reported}; an image is sent as the bytes of its file, not as its path"
    return reported


def cast(tensor: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Return other widths of the same kind of number, and integers from whole floats: Arrow clients send no others.

    A fraction is rounded to what the model's type has; a whole number that would change is refused, and so is a number
    that would become infinite.
    """
    if spec.dtype == STRING:
        return tensor.astype(STRING)
    to_integers = spec.dtype.kind in "iu"
    if not np.can_cast(tensor.dtype, spec.dtype, "same_kind") and not (to_integers and tensor.dtype.kind in "iuf"):
        raise RequestError(f"input {spec.name!r} has type {tensor.dtype}, the model takes {spec.dtype}")
    with np.errstate(invalid="ignore", over="ignore"):
        now = tensor.astype(spec.dtype)
    if not _is_wide_enough(tensor.dtype, spec.dtype):
        _check_cast(tensor, now, spec)
    return now


def _check_cast(tensor: np.ndarray, now: np.ndarray, spec: TensorSpec) -> None:
    """Refuse a cast that changed a value; look at some at a time, since comparing takes five times their room."""
    exact = spec.dtype.kind in "iu" or tensor.dtype.kind in "iu"
    if tensor.size <= _MOST_AT_ONCE:
        parts = [(tensor, now)]
    else:
        before, after = tensor.reshape(-1), now.reshape(-1)
        starts = range(0, tensor.size, _MOST_AT_ONCE)
        parts = [(before[at : at + _MOST_AT_ONCE], after[at : at + _MOST_AT_ONCE]) for at in starts]
    for some, cast_ in parts:
        if exact:
            _refuse_where(changed(some, cast_), f"values that are no {spec.dtype}", some, spec)
        else:
            _refuse_where(overflowed(some, cast_), f"values that are infinite as {spec.dtype}", some, spec)


def _refuse_where(unfit: np.ndarray, what: str, tensor: np.ndarray, spec: TensorSpec) -> None:
    if unfit.any():
        raise RequestError(f"input {spec.name!r} has {tensor.dtype} {what}, such as {tensor[unfit][0]!s}")


def holds_all(got: np.dtype, wanted: np.dtype) -> bool:
    """Tell of two types alone that `resolve_input` gives every value of the one in the other, unchanged."""
    return got == wanted or (wanted != STRING and _is_wide_enough(got, wanted))


def _is_wide_enough(got: np.dtype, wanted: np.dtype) -> bool:
    """Tell of two types alone that no value changes; NumPy calls int64 to float64 safe too, which it is not."""
    return got.itemsize < 8 and bool(np.can_cast(got, wanted, "safe"))
