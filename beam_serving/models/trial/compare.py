"""Whether two inferences mean the same: numbers but for rounding, everything else to the letter."""

from collections.abc import Sequence

import numpy as np

from beam_serving.models.base import STRING

_RELATIVE = 1e-3
_OF_LARGEST = 2e-5
"""A rounding error of float32 grows with the largest number that took part, about 1e-7 of it in each of many layers."""
_COARSE = 64.0
"""float16 has 2**13 fewer steps than float32; sums are kept in more bits, so not all of these are lost."""


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return how far `one` is from `other`, as a share of the largest magnitude in `other`.

    Returns:
        0 where they are equal, infinity where type, shape, text, integers or the places of NaN and infinity differ.
    """
    if one.dtype != other.dtype or one.shape != other.shape:
        return float("inf")
    if one.dtype == STRING or one.dtype.kind not in "fc":
        return 0.0 if np.array_equal(one, other) else float("inf")
    wide = np.complex128 if one.dtype.kind == "c" else np.float64
    left, right = one.astype(wide), other.astype(wide)
    finite = np.isfinite(right)
    if not np.array_equal(np.isfinite(left), finite) or not np.array_equal(
        left[~finite], right[~finite], equal_nan=True
    ):
        return float("inf")
    if not finite.any():
        return 0.0
    largest = float(np.abs(right[finite]).max())
    return float(np.abs(left[finite] - right[finite]).max()) / (largest or 1.0)


def equal(one: np.ndarray, other: np.ndarray, coarse: bool = False) -> bool:
    """Return whether two outputs are equal but for the rounding of float32, or of float16 where it is `coarse`."""
    if difference(one, other) == float("inf"):
        return False
    if one.dtype.kind not in "fc" or not one.size:
        return True
    factor = _COARSE if coarse or one.dtype.itemsize == 2 else 1.0
    finite = np.isfinite(other)
    left, right = (
        each[finite].astype(np.complex128 if each.dtype.kind == "c" else np.float64) for each in (one, other)
    )
    largest = np.abs(right).max() if right.size else 0.0
    return bool(np.all(np.abs(left - right) <= factor * (_RELATIVE * np.abs(right) + _OF_LARGEST * largest)))


def all_equal(some: Sequence[np.ndarray], others: Sequence[np.ndarray], coarse: bool = False) -> bool:
    """Return whether all outputs of two inferences are equal; see `equal`."""
    return len(some) == len(others) and all(equal(one, other, coarse) for one, other in zip(some, others, strict=True))
