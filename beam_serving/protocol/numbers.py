"""Numbers that keep their value from list to array and from type to type, or are refused.

A whole number stays exactly what it is. A fraction is rounded to what its new type has, as everywhere in computing, but
a finite number never becomes infinite.
"""

from numbers import Integral, Real

import numpy as np

_EXACT_IN_FLOAT64 = 2**53
_SHOWN_CHARS = 120


def from_lists(value: object) -> np.ndarray:
    """Make an array of a number or of nested lists of numbers without changing a whole number.

    Args:
        value: a number, or lists of equal length of such, nested to any depth.

    Returns:
        An array of bool, int64, uint64 or float64, or of the type of the NumPy values in `value`. A whole number
        beyond 64 bits counts as a float: no integer type could hold it.

    Raises:
        ValueError: the lists are not regular, hold something else than numbers, or hold a whole number
            beside others that make all of them floats, where it would change.
    """
    try:
        array = np.array(value)
        if array.dtype == object:
            array = _floats_of(np.array(value, object))
        elif array.dtype == np.float64 and (large := np.abs(array) >= _EXACT_IN_FLOAT64).any():
            _check_whole(np.array(value, object)[large], array[large])
    except (TypeError, OverflowError) as err:
        raise ValueError(str(err)[:_SHOWN_CHARS]) from err
    if array.dtype.kind not in "biuf":
        raise ValueError(f"it is of type {array.dtype}")
    return array


def _floats_of(leaves: np.ndarray) -> np.ndarray:
    if not all(isinstance(leaf, Real) for leaf in leaves.flat):
        raise ValueError("it is of type object")
    array = np.array([float(leaf) for leaf in leaves.flat]).reshape(leaves.shape)
    within = np.array([abs(leaf) < 2**64 for leaf in leaves.flat], bool).reshape(leaves.shape)
    _check_whole(leaves[within], array[within])
    return array


def _check_whole(leaves: np.ndarray, floats: np.ndarray) -> None:
    for leaf, number in zip(leaves.flat, floats.flat, strict=True):
        if isinstance(leaf, Integral) and int(number) != int(leaf):
            raise ValueError(
                f"it has the whole number {leaf} beside others, and the one type for all, float64, has none such; "
                f"write it as a float, {float(number)!r}, or leave the others out"
            )


def changed(numbers: np.ndarray, cast: np.ndarray) -> np.ndarray:
    """Tell which numbers are other ones after a cast, of which one side at least is of whole numbers.

    NumPy's own comparison of int64 with float64 goes by float64, in which 2^53 + 1 equals 2^53.
    """
    if _is_whole(numbers) and _is_whole(cast):
        # -1 of int64 comes back from uint64 as -1
        return np.asarray((cast.astype(numbers.dtype) != numbers) | ((cast < 0) != (numbers < 0)))
    whole, floats = (numbers, cast) if _is_whole(numbers) else (cast, numbers)
    floats = floats.astype(np.float64)
    if whole.dtype.kind == "b":
        return np.asarray(floats != whole)
    limits = np.iinfo(whole.dtype)
    outside = ~((floats >= float(limits.min)) & (floats < float(limits.max + 1)))
    with np.errstate(invalid="ignore"):
        back = floats.astype(whole.dtype)
    # Both: a fraction shows in the first, a digit that is lost in the second.
    return np.asarray(outside | (whole.astype(np.float64) != floats) | (back != whole))


def overflowed(numbers: np.ndarray, cast: np.ndarray) -> np.ndarray:
    """Tell which finite numbers became infinite in a cast from floats to floats."""
    return np.asarray(np.isinf(cast.astype(np.float64)) & np.isfinite(numbers))


def float32_holds(numbers: np.ndarray) -> bool:
    """Return whether float32 has every whole number among these, and make none infinite; fractions may be rounded."""
    if numbers.dtype == np.float32 or numbers.dtype.itemsize <= 2 or numbers.dtype.kind == "b":
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        cast = numbers.astype(np.float32)
    if _is_whole(numbers):
        return not changed(numbers, cast).any()
    return not ((cast != numbers) & (numbers == np.trunc(numbers))).any()


def holds(dtype: np.dtype, numbers: np.ndarray) -> bool:
    """Return whether a type has all these numbers: integers for whole ones only, float32 as in `float32_holds`."""
    if dtype == np.float32:
        return float32_holds(numbers)
    if not _is_whole(numbers):
        return dtype.kind == "f"
    return not changed(numbers, numbers.astype(dtype)).any()


def _is_whole(numbers: np.ndarray) -> bool:
    return numbers.dtype.kind in "biu"
