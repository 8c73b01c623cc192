"""Models that were exported with a fixed batch: may it be another one, and what to do where it may not."""

from collections.abc import Callable, Sequence

import numpy as np

from beam_serving.errors import ModelError
from beam_serving.models.base import STRING, TensorSpec

Infer = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Runs a model on its inputs in order, batch axis first, and gives its outputs in order; raises ModelError."""

_TRIAL_PORTIONS = 3


def infer_rows(infer: Infer, arrays: list[np.ndarray], fixed_batch: int | None) -> list[np.ndarray]:
    """Infers any number of rows, in portions where the model takes exactly `fixed_batch`.

    The last portion is filled up with its last row.
    """
    if fixed_batch is None:
        return infer(arrays)
    rows = len(arrays[0])
    parts = []
    for start in range(0, rows, fixed_batch):
        missing = max(0, start + fixed_batch - rows)
        parts.append(infer([_filled(array[start : start + fixed_batch], missing) for array in arrays]))
    return [np.concatenate(columns)[:rows] for columns in zip(*parts, strict=True)]


def agree(whole: Infer, part: Infer, inputs: Sequence[TensorSpec], portion: int) -> bool:
    """Tells whether `whole` gives for a larger batch what `part` gives for portions of it.

    Both see rows of noise: a constant in the graph can tie a model to its batch without any error. Free dimensions
    are tried as 1.
    """
    noise = np.random.default_rng(0)
    rows = portion * _TRIAL_PORTIONS
    arrays = []
    for spec in inputs:
        values = noise.random((rows, *(size or 1 for size in spec.shape))) * 2
        arrays.append(values.astype(str).astype(STRING) if spec.dtype == STRING else values.astype(spec.dtype))
    try:
        wholes = whole(arrays)
        parts = infer_rows(part, arrays, portion)
    except ModelError:
        return False
    return len(wholes) == len(parts) and all(
        one.shape == other.shape and one.shape[:1] == (rows,) and close(one, other)
        for one, other in zip(wholes, parts, strict=True)
    )


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """Tells whether two engines mean the same: numbers but for rounding, text to the letter."""
    if STRING in (one.dtype, other.dtype):
        return np.array_equal(one, other)
    return np.allclose(one, other, 1e-3, 1e-4, equal_nan=True)


def _filled(rows: np.ndarray, missing: int) -> np.ndarray:
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows
