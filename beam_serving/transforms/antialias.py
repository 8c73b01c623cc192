"""PIL's bilinear filter, bit by bit: what `Image.resize(size, BILINEAR)` and torchvision's `Resize` on PIL images give.

Each pixel of the result is the mean of the pixels that a triangle covers, as wide as the image shrinks. PIL does the
rows of pixels first and then the columns, with weights of 22 bits behind the point, and rounds to 8 bits after each
(src/libImaging/Resample.c). Its sums of whole numbers stay below 2**31, so float64 holds them exactly and a product
of matrices gives them; most weights are 0, so it is done for a few rows of the result at a time. A file of 500 x 375
pixels takes less time than in PIL (see docs/models.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

_ONE = 1 << 22
"""PIL's PRECISION_BITS: 32 bits, less 8 of the pixel and 2 for sums that overflow."""
_ROWS = 8
"""Rows of the result per product of matrices. Measured: 4 and 8 are the fastest."""
_MOST_PRODUCTS = 1 << 18
"""Multiplications per product of matrices, few enough that OpenBLAS starts no threads for them."""
_MOST_AT_ONCE = 1 << 18
"""Pixels with alpha that are worked on at a time."""
_MOST_NARROWED = 4_000_000
"""Pixels between the two passes; where there would be more, the rows that are not seen are left out."""
_MOST_SHRUNK = 1000
"""Where a side shrinks by more, the weights of several rows would be many times the image."""
_CACHED = 32
_MOST_CACHED_WEIGHTS = 1 << 16
"""Weights of more are made anew for each image, so that the cache stays below 16 MB."""


class Window(NamedTuple):
    """Part of a side: the image's side gets `size` pixels, of which `wanted` are taken from `first` on."""

    size: int
    first: int
    wanted: int


class _Band(NamedTuple):
    """Some rows of the result are `weights` (rows, end - start) times the rows from `start` to `end`."""

    start: int
    end: int
    weights: np.ndarray


def antialiased(pixels: np.ndarray, rows: Window, columns: Window) -> np.ndarray:
    """Return a part of an image in another size, as PIL does.

    Args:
        pixels: uint8, (height, width) or (height, width, channels). The last of four channels is alpha, and what is
            transparent does not colour its neighbours.
        rows: the height, and what is wanted of it.
        columns: the width, and what is wanted of it.
    """
    height, width = pixels.shape[:2]
    alpha = pixels.ndim == 3 and pixels.shape[2] == 4 and (height, width) != (rows.size, columns.size)
    if alpha:
        pixels = _by_rows(_premultiplied, pixels)
    # PIL begins with the columns of pixels where it saves much, and rounding shows which was first.
    if height > 100 * width and rows.size < height:
        pixels = _narrowed(_shortened(pixels, rows), columns)
    else:
        low, high = _rows_seen(height, rows) if height * columns.wanted > _MOST_NARROWED else (0, height)
        pixels = _shortened(_narrowed(pixels[low:high], columns), rows, low, height)
    return _by_rows(_divided, pixels) if alpha else pixels


def _narrowed(pixels: np.ndarray, columns: Window) -> np.ndarray:
    if pixels.shape[1] == columns.size:
        return pixels[:, columns.first : columns.first + columns.wanted]
    narrowed: np.ndarray = cv2.transpose(_resized_rows(cv2.transpose(pixels), columns))
    return narrowed


def _rows_seen(height: int, rows: Window) -> tuple[int, int]:
    """Return from where to where the rows of an image are seen in a window."""
    ends = [_band(height, rows.size, np.array([row])) for row in (rows.first, rows.first + rows.wanted - 1)]
    return ends[0].start, ends[1].end


def _shortened(pixels: np.ndarray, rows: Window, low: int = 0, height: int = 0) -> np.ndarray:
    """Make rows of an image of which there are those from `low` on."""
    if (height or len(pixels)) == rows.size:
        return pixels[rows.first - low : rows.first - low + rows.wanted]
    return _resized_rows(pixels, rows, low, height)


def _resized_rows(pixels: np.ndarray, rows: Window, low: int = 0, height: int = 0) -> np.ndarray:
    """Work band by band: a whole image in float64 would be eight times its size."""
    flat = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    result = np.empty((rows.wanted, flat.shape[1]), np.uint8)
    at = 0
    for band in _bands_of(height or len(pixels), rows):
        end = at + len(band.weights)
        part = max(1, _MOST_PRODUCTS // band.weights.size)
        for left in range(0, flat.shape[1], part):
            columns = slice(left, left + part)
            sums = band.weights @ flat[band.start - low : band.end - low, columns].astype(np.float64)
            sums += 0.5
            # The weights of very many pixels may add up to a little more than 1.
            np.minimum(sums, 255.0, out=sums)
            result[at:end, columns] = sums
        at = end
    return result.reshape(rows.wanted, *pixels.shape[1:])


def _bands_of(size: int, rows: Window) -> Iterable[_Band]:
    weights = rows.wanted * (_ROWS + 2) * max(size / rows.size, 1.0)
    return _cached_bands(size, rows) if weights < _MOST_CACHED_WEIGHTS else _bands(size, rows)


def _bands(size: int, rows: Window) -> Iterator[_Band]:
    end = rows.first + rows.wanted
    # The sums are exact, so it does not show how many rows are made at a time.
    step = _ROWS if size < _MOST_SHRUNK * rows.size else 1
    for at in range(rows.first, end, step):
        yield _band(size, rows.size, np.arange(at, min(at + step, end)))


@lru_cache(_CACHED)
def _cached_bands(size: int, rows: Window) -> tuple[_Band, ...]:
    return tuple(_bands(size, rows))


def _band(size: int, new_size: int, rows: np.ndarray) -> _Band:
    """Return the weights of some rows of the result, with the operations of PIL in their order."""
    scale = size / new_size
    support = max(scale, 1.0)
    center = (rows + 0.5) * scale
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    end = np.minimum((center + support + 0.5).astype(np.int64), size)
    start, stop = int(first.min()), int(end.max())
    at = np.arange(start, stop)[np.newaxis]
    weights = np.maximum(0.0, 1.0 - np.abs((at - center[:, np.newaxis] + 0.5) * (1.0 / support)))
    weights[(at < first[:, np.newaxis]) | (at >= end[:, np.newaxis])] = 0.0
    # NumPy's sum adds in pairs; PIL adds one after another.
    weights /= np.cumsum(weights, axis=1)[:, -1:]
    return _Band(start, stop, np.trunc(weights * _ONE + 0.5) / _ONE)


def _by_rows(change: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """Do something to some rows of pixels at a time: what is between would be ten times as large as all of them."""
    result = np.empty_like(pixels)
    step = max(1, _MOST_AT_ONCE // pixels.shape[1])
    for row in range(0, len(pixels), step):
        result[row : row + step] = change(pixels[row : row + step])
    return result


def _premultiplied(pixels: np.ndarray) -> np.ndarray:
    product = pixels[:, :, :3].astype(np.uint32) * pixels[:, :, 3:] + 128
    color = ((product >> 8) + product >> 8).astype(np.uint8)
    return np.concatenate([color, pixels[:, :, 3:]], axis=2)


def _divided(pixels: np.ndarray) -> np.ndarray:
    alpha = pixels[:, :, 3:].astype(np.uint32)
    color = np.minimum(255 * pixels[:, :, :3].astype(np.uint32) // np.maximum(alpha, 1), 255).astype(np.uint8)
    color = np.where(alpha == 0, pixels[:, :, :3], color)
    return np.concatenate([color, pixels[:, :, 3:]], axis=2)
