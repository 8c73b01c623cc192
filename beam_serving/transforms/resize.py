"""How an image gets the size that a model takes."""

from __future__ import annotations

from typing import Literal, NamedTuple

import cv2
import numpy as np

from beam_serving.transforms.antialias import Window, antialiased

Filter = Literal["auto", "linear", "area", "antialias"]

_LOOK = 32
_MOST_WHOLE = 16_000_000
"""Pixels of a scaled image of which the middle is taken. Where there would be more, the middle is taken first."""


def resized(
    pixels: np.ndarray,
    height: int,
    width: int,
    rule: Literal["stretch", "fit", "crop"],
    shorter_side: int | None = None,
    filter_: Filter = "auto",
) -> np.ndarray:
    """Return an image of `height` x `width` pixels; see `ImageRules` for the rules and the filters."""
    if filter_ == "auto":
        filter_ = "linear" if rule == "stretch" else "area"
    if rule == "stretch":
        return _scaled(pixels, height, width, filter_)
    if rule == "fit":
        return _fit(pixels, height, width, filter_)
    return _crop(pixels, height, width, shorter_side, filter_)


def _fit(pixels: np.ndarray, height: int, width: int, filter_: Filter) -> np.ndarray:
    """Keep the ratio of the sides; what is missing is black, as much on either side."""
    factor = min(height / pixels.shape[0], width / pixels.shape[1])
    tall, wide = _between(factor * pixels.shape[0], height), _between(factor * pixels.shape[1], width)
    inner = _scaled(pixels, tall, wide, filter_)
    top, left = (height - inner.shape[0]) // 2, (width - inner.shape[1]) // 2
    bottom, right = height - inner.shape[0] - top, width - inner.shape[1] - left
    framed: np.ndarray = cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_CONSTANT, value=0)
    return framed


class _Size(NamedTuple):
    height: int
    width: int


def _crop(pixels: np.ndarray, height: int, width: int, shorter_side: int | None, filter_: Filter) -> np.ndarray:
    """Take the middle, as torchvision's Resize and CenterCrop do; never less than the image covers."""
    whole = _covering(_Size(*pixels.shape[:2]), _Size(height, width), shorter_side)
    top, left = round((whole.height - height) / 2), round((whole.width - width) / 2)
    if filter_ == "antialias":
        rows, columns = Window(whole.height, top, height), Window(whole.width, left, width)
        return antialiased(pixels, rows, columns)
    if whole.height * whole.width <= _MOST_WHOLE:
        scaled = _scaled(pixels, whole.height, whole.width, filter_)
        return scaled[top : top + height, left : left + width]
    down = _Part.around(pixels.shape[0], Window(whole.height, top, height))
    across = _Part.around(pixels.shape[1], Window(whole.width, left, width))
    part = pixels[down.start : down.end, across.start : across.end]
    scaled = _scaled(part, down.size, across.size, filter_)
    return scaled[down.first : down.first + height, across.first : across.first + width]


class _Part(NamedTuple):
    """Part of an image's side, `start` to `end`: it becomes `size` pixels, of which those from `first` are wanted."""

    start: int
    end: int
    size: int
    first: int

    @classmethod
    def around(cls, side: int, window: Window) -> _Part:
        """Return what of a side is seen in a window, and one or two pixels more, from which the next ones are made."""
        factor = window.size / side
        start = max(int(window.first / factor) - 1, 0)
        end = min(int((window.first + window.wanted) / factor) + 3, side)
        # Of the next ones, those that lie at whole pixels of the result: then each pixel stays where it was.
        start = min(range(max(start - _LOOK, 0), start + 1), key=lambda at: abs(at * factor - round(at * factor)))
        end = min(range(end, min(end + _LOOK, side) + 1), key=lambda at: abs(at * factor - round(at * factor)))
        before = min(round(start * factor), window.first)
        return cls(
            start, end, max(round(end * factor) - before, window.first + window.wanted - before), window.first - before
        )


def pixels_between(
    size: tuple[int, int], wanted: tuple[int, int], rule: str, shorter_side: int | None, filter_: Filter
) -> int:
    """Return how many pixels an image of this height and width takes on its way to the wanted ones, besides both."""
    if filter_ == "antialias":
        # A transposed copy, then those rows that are seen of fewer pixels, or in a very tall image fewer rows.
        tall = _covering(_Size(*size), _Size(*wanted), shorter_side).height if rule == "crop" else wanted[0]
        seen = min(size[0], int((wanted[0] + 2) * size[0] / tall) + 4)
        first = wanted[0] * size[1] if size[0] > 100 * size[1] and tall < size[0] else seen * wanted[1]
        return size[0] * size[1] + 2 * first
    if rule != "crop":
        return 0
    whole = _covering(_Size(*size), _Size(*wanted), shorter_side)
    if whole.height * whole.width <= _MOST_WHOLE:
        return whole.height * whole.width
    sides = (
        _Part.around(side, Window(*of)) for side, of in zip(size, zip(whole, (0, 0), wanted, strict=True), strict=True)
    )
    tall, wide = (part.size + 4 * (whole.height // size[0] + 1) for part in sides)
    return tall * wide


def _covering(size: _Size, wanted: _Size, shorter_side: int | None) -> _Size:
    """Return the size that an image is brought to before its middle is taken."""
    least = max(wanted.height / size.height, wanted.width / size.width)
    factor = max(least, (shorter_side or 0) / min(size))
    return _Size(
        max(wanted.height, int(factor * size.height + 1e-6)), max(wanted.width, int(factor * size.width + 1e-6))
    )


def _scaled(pixels: np.ndarray, height: int, width: int, filter_: Filter) -> np.ndarray:
    """Return the whole image in another size. Only `linear` skips pixels where the image shrinks."""
    if filter_ == "antialias":
        return antialiased(pixels, Window(height, 0, height), Window(width, 0, width))
    shrinks = height < pixels.shape[0] or width < pixels.shape[1]
    area = filter_ == "area" and shrinks
    scaled: np.ndarray = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR)
    return scaled


def _between(size: float, most: int) -> int:
    return max(1, min(most, round(size)))
