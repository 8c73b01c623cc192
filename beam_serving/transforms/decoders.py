"""Image formats that OpenCV does not read, or not rightly: HEIC, and PAM, whose red and blue it confuses."""

from __future__ import annotations

import importlib
import io

import cv2
import numpy as np

from beam_serving.errors import RequestError
from beam_serving.transforms.image_headers import pam_header


def pam_pixels(encoded: bytes, channels: int, color: str) -> np.ndarray:
    """Decode a PAM file of grey or red, green and blue, each also with alpha; see `heic_pixels`.

    Raises:
        RequestError: it has other channels, or a greatest value that is none.
    """
    header = pam_header(encoded)
    if not 0 < header.depth <= 4 or not 0 < header.most < 1 << 16 or not header.width * header.height:
        raise RequestError(
            f"PAM of {header.width}x{header.height} pixels, {header.depth} channels and a greatest value of "
            f"{header.most}: not supported"
        )
    shape = header.height, header.width, header.depth
    dtype = np.uint8 if header.most < 256 else np.dtype(">u2")
    values = np.frombuffer(encoded, dtype, header.height * header.width * header.depth, header.start).reshape(shape)
    if header.most < 255:
        values = np.minimum(values.astype(np.uint16) * 255 // header.most, 255)
    elif header.most > 255:
        values = np.minimum(values.astype(np.uint32) * 256 // (header.most + 1), 255)
    pixels = np.ascontiguousarray(values, np.uint8)
    if header.depth < 3:
        alpha = [pixels[:, :, 1:]] if header.depth == 2 else []
        pixels = np.concatenate([pixels[:, :, :1]] * 3 + alpha, axis=2)
    return _in_channels(pixels, channels, color)


def heic_pixels(encoded: bytes, channels: int, color: str) -> np.ndarray:
    """Decode the primary image of a HEIC file, turned upright, to uint8; four channels are in BGRA order.

    Raises:
        RequestError: it cannot be decoded, or `pillow-heif` is not installed.
    """
    try:
        heif = importlib.import_module("pillow_heif")
    except ImportError as err:
        raise RequestError("HEIC is read where the service has pip install 'beam-serving[heif]'") from err
    try:
        pixels = np.asarray(heif.open_heif(io.BytesIO(encoded), convert_hdr_to_8bit=True))
    except (EOFError, LookupError, OSError, RuntimeError, SyntaxError, ValueError) as err:
        raise RequestError(f"HEIC of {len(encoded)} bytes cannot be decoded: {err}") from err
    return _in_channels(np.ascontiguousarray(pixels), channels, color)


def _in_channels(pixels: np.ndarray, channels: int, color: str) -> np.ndarray:
    """Return grey, colours or colours with alpha of pixels in RGB order."""
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    alpha = pixels.shape[2] == 4
    if channels == 1:
        code = cv2.COLOR_RGBA2GRAY if alpha else cv2.COLOR_RGB2GRAY
    elif channels == 4:
        code = cv2.COLOR_RGBA2BGRA if alpha else cv2.COLOR_RGB2BGRA
    elif color == "rgb":
        if not alpha:
            return pixels
        code = cv2.COLOR_RGBA2RGB
    else:
        code = cv2.COLOR_RGBA2BGR if alpha else cv2.COLOR_RGB2BGR
    converted: np.ndarray = cv2.cvtColor(pixels, code)
    return converted


DECODERS = {"HEIC": heic_pixels, "PAM": pam_pixels}
