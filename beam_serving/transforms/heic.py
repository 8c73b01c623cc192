"""HEIC files, as telephones take them: OpenCV reads none, an extra does."""

from __future__ import annotations

import importlib
import io
from typing import Any

import cv2
import numpy as np

from beam_serving.errors import RequestError


def heic_pixels(encoded: bytes, channels: int, color: str) -> Any:
    """Decodes the primary image of a HEIC file, turned upright, to uint8; four channels are in BGRA order.

    Raises:
        RequestError: it cannot be decoded, or `pillow-heif` is not installed.
    """
    try:
        heif = importlib.import_module("pillow_heif")
    except ImportError as err:
        raise RequestError("HEIC is read where the service has pip install 'beam-serving[heif]'") from err
    try:
        pixels = np.asarray(heif.open_heif(io.BytesIO(encoded), convert_hdr_to_8bit=True))
    except (ValueError, RuntimeError, EOFError, OSError, SyntaxError) as err:
        raise RequestError(f"HEIC of {len(encoded)} bytes cannot be decoded: {err}") from err
    return _in_channels(np.ascontiguousarray(pixels), channels, color)


def _in_channels(pixels: Any, channels: int, color: str) -> Any:
    """Gives grey, colours or colours with alpha of pixels in RGB order."""
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    alpha = pixels.shape[2] == 4
    if channels == 1:
        return cv2.cvtColor(pixels, cv2.COLOR_RGBA2GRAY if alpha else cv2.COLOR_RGB2GRAY)
    if channels == 4:
        return cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA if alpha else cv2.COLOR_RGB2BGRA)
    if color == "rgb":
        return cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB) if alpha else pixels
    return cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGR if alpha else cv2.COLOR_RGB2BGR)
