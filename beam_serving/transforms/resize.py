"""How an image gets the size that a model takes."""

from __future__ import annotations

from typing import Any, Literal

import cv2


def resized(
    pixels: Any, height: int, width: int, rule: Literal["stretch", "fit", "crop"], shorter_side: int | None = None
) -> Any:
    """Gives an image of `height` x `width` pixels; see `ImageRules.resize` for the rules."""
    if rule == "stretch":
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    if rule == "fit":
        return _fit(pixels, height, width)
    return _crop(pixels, height, width, shorter_side)


def _fit(pixels: Any, height: int, width: int) -> Any:
    """Keeps the ratio of the sides; what is missing is black, as much on either side."""
    factor = min(height / pixels.shape[0], width / pixels.shape[1])
    inner = _scaled(pixels, _between(factor * pixels.shape[0], height), _between(factor * pixels.shape[1], width))
    top, left = (height - inner.shape[0]) // 2, (width - inner.shape[1]) // 2
    bottom, right = height - inner.shape[0] - top, width - inner.shape[1] - left
    return cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_CONSTANT, value=0)


def _crop(pixels: Any, height: int, width: int, shorter_side: int | None) -> Any:
    """Takes the middle, as torchvision's Resize and CenterCrop do; never less than the image covers."""
    least = max(height / pixels.shape[0], width / pixels.shape[1])
    factor = max(least, (shorter_side or 0) / min(pixels.shape[:2]))
    tall, wide = max(height, int(factor * pixels.shape[0] + 1e-6)), max(width, int(factor * pixels.shape[1] + 1e-6))
    scaled = _scaled(pixels, tall, wide)
    top, left = round((tall - height) / 2), round((wide - width) / 2)
    return scaled[top : top + height, left : left + width]


def _scaled(pixels: Any, height: int, width: int) -> Any:
    """Averages where the image shrinks, as PIL and torchvision do: plain interpolation would skip pixels."""
    shrinks = height < pixels.shape[0] or width < pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _between(size: float, most: int) -> int:
    return max(1, min(most, round(size)))
