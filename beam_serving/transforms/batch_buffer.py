"""Rows of a batch array to decode into: what lies there already need not be stacked."""

from __future__ import annotations

import numpy as np

_MOST_BYTES = 64 * 1024 * 1024


class Rows:
    """Lends the rows of one array after another, of `batch_size` rows each or as many as 64 MB hold.

    An array is never used twice: whoever holds a row holds it for good.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, batch_size: int) -> None:
        row_bytes = max(1, int(np.prod(shape)) * dtype.itemsize)
        self._shape = (max(1, min(batch_size, _MOST_BYTES // row_bytes)), *shape)
        self._dtype = dtype
        self._array = np.empty((0, *shape), dtype)
        self._used = 0

    def next(self) -> np.ndarray:
        """Return a row, with whatever values."""
        if self._used == len(self._array):
            self._array, self._used = np.empty(self._shape, self._dtype), 0
        self._used += 1
        row: np.ndarray = self._array[self._used - 1]
        return row

    def end_batch(self) -> None:
        """Make the next row the first of an array."""
        self._array = np.empty((0, *self._shape[1:]), self._dtype)
        self._used = 0
