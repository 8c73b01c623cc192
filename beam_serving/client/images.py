"""Whatever a Python program holds as an image, as the file that is sent."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from beam_serving.errors import ClientError, ImageFileError, InputError, brief
from beam_serving.records import Image

_EXTENSIONS = {"jpeg": ".jpg", "png": ".png"}
_JPEG_QUALITY = 95
_MOST_PIXELS_OF_JPEG = 65500
_CHANNELS = (1, 3, 4)
_NEVER_MASKED = frozenset((bool, int, float, str, bytes))
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_WANTED = "an array, the bytes or path of an image file, a file opened in binary mode, or a PIL image"
_WANTED_ARRAY = "uint8[height, width, 3] in the order blue, green, red, or uint8[height, width]"


def as_image(image: object, encoding: str) -> Image:
    """Make an image file of an image.

    Args:
        image: bytes, `bytearray` or `memoryview` of a file, its path, a file opened in binary mode, which is read from
            where it stands, a PIL image, which is sent as PNG, or an array: uint8, of shape (height, width),
            (height, width, channels) or (channels, height, width), of which 3 are in the order blue, green, red, as
            OpenCV has it, 4 have alpha behind them, and 1 is grey. The channels are the last axis where that has 1, 3
            or 4, else the first.
        encoding: what an array is encoded to, `jpeg` (quality 95) or `png` (lossless).

    Raises:
        InputError: it is none of these.
        ImageFileError: the file cannot be read.
        ClientError: OpenCV, which encodes arrays, is not installed.
    """
    if not isinstance(encoding, str) or encoding not in _EXTENSIONS:
        raise InputError(f"encoding is {brief(encoding)}, wanted is one of {', '.join(_EXTENSIONS)}")
    if isinstance(image, str):
        return image_of_path(image)
    found = image_file(image)
    if found is not None:
        return found
    if isinstance(image, memoryview) or hasattr(image, "__array__") or hasattr(image, "__array_interface__"):
        return _encoded(image, encoding)
    raise InputError(f"image is {type(image).__name__}, wanted is {_WANTED}")


def image_file(value: object) -> Image | None:
    """Make an image file of what is one already, or of a PIL image; give None for anything else.

    Raises:
        InputError: it is empty, or a file that was opened as text, or a PIL image that PNG does not have.
        ImageFileError: the file cannot be read.
    """
    if isinstance(value, Image):
        return image_of_bytes(value.encoded)
    if isinstance(value, bytes | bytearray):
        return image_of_bytes(bytes(value))
    if isinstance(value, memoryview) and value.ndim == 1 and value.format == "B":
        return image_of_bytes(value.tobytes())
    if isinstance(value, os.PathLike):
        return image_of_path(value)
    if isinstance(getattr(value, "mode", None), str) and hasattr(value, "save"):
        return _png_of_pil(value)
    return _read(value) if hasattr(value, "read") else None


def image_of_bytes(encoded: bytes) -> Image:
    """Make an image file of its bytes.

    Raises:
        InputError: there are none.
    """
    if not encoded:
        raise InputError("image is empty, of no bytes")
    return Image(encoded)


def image_of_path(path: str | os.PathLike[str]) -> Image:
    """Read an image file.

    Raises:
        ImageFileError: it cannot be read.
    """
    try:
        return image_of_bytes(Path(path).read_bytes())
    except (OSError, ValueError) as err:
        if isinstance(err, InputError):
            raise
        reason = err.strerror if isinstance(err, OSError) else err
        raise ImageFileError(f"the image file {os.fspath(path)!r} cannot be read: {reason}") from err


def refuse_masked(value: object, name: str) -> None:
    """Refuse arrays with a mask: what it hides would be sent as numbers.

    Raises:
        InputError: it is one, or a list of such.
    """
    if _has_masked(value):
        raise InputError(f"{name} is a masked array, whose mask cannot be sent; choose the values with .filled(...)")


def _has_masked(value: object) -> bool:
    pending, seen = [value], set[int]()
    while pending:
        one = pending.pop()
        if isinstance(one, np.ma.MaskedArray):
            return True
        # A list may hold itself, and others many times: each is looked into once.
        if isinstance(one, list | tuple) and id(one) not in seen:
            seen.add(id(one))
            # Of millions of numbers none is asked for more than its type.
            pending += [member for member in one if type(member) not in _NEVER_MASKED]
    return False


def _read(file: Any) -> Image:
    try:
        encoded = file.read()
    except (OSError, ValueError) as err:  # closed, or not opened for reading; a text file that is no text
        raise ImageFileError(f"the image cannot be read from its file: {err}") from err
    if isinstance(encoded, str):
        raise InputError("image is a file opened as text, wanted is one in binary mode: open(path, 'rb')")
    if not isinstance(encoded, bytes | bytearray | memoryview):
        raise InputError(f"image is {type(file).__name__}, whose read() gave {type(encoded).__name__}; wanted is bytes")
    if not encoded:
        raise InputError("image is a file that stands at its end, or is empty; use file.seek(0) before")
    return Image(bytes(encoded))


def _png_of_pil(image: Any) -> Image:
    if image.mode not in _PNG_MODES:
        raise InputError(
            f"image has the mode {image.mode!r} of PIL, which PNG does not have; use image.convert('RGB'), "
            "or send the file itself"
        )
    file = io.BytesIO()
    try:
        image.save(file, "PNG", exif=b"")  # pixels as PIL has them: no orientation that would turn them once more
    except (OSError, ValueError) as err:
        raise ImageFileError(f"the PIL image cannot be written as PNG: {err}") from err
    return Image(file.getvalue())


def _encoded(image: object, encoding: str) -> Image:
    refuse_masked(image, "image")
    pixels = np.asarray(image)
    shown = f"image is {pixels.dtype}{list(pixels.shape)}"
    if has_channels_first(pixels):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.size == 0:
        raise InputError(f"{shown}, wanted is {_WANTED_ARRAY}")
    if pixels.ndim == 3 and pixels.shape[2] not in _CHANNELS:
        raise InputError(f"{shown}, of {pixels.shape[2]} channels; wanted is {_WANTED_ARRAY}")
    if encoding == "jpeg" and max(pixels.shape) > _MOST_PIXELS_OF_JPEG:
        raise InputError(f"{shown}, JPEG has at most {_MOST_PIXELS_OF_JPEG} pixels a side; wanted is encoding='png'")
    try:
        import cv2
    except ImportError as err:
        raise ClientError("an array needs OpenCV: pip install 'opencv-python-headless>=4.14,<5'") from err
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if encoding == "jpeg" else []
    done, encoded = cv2.imencode(_EXTENSIONS[encoding], np.ascontiguousarray(pixels), quality)
    if not done:
        raise InputError(f"{shown}, which OpenCV cannot encode as {encoding}")
    return Image(encoded.tobytes())


def has_channels_first(pixels: np.ndarray) -> bool:
    """Return whether an array has its channels in front, and none at its end; two are a mistake of another kind."""
    return pixels.ndim == 3 and pixels.shape[0] in _CHANNELS and pixels.shape[2] not in (*_CHANNELS, 2)
