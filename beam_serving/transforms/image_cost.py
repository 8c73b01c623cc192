"""What decoding an image takes, known before it is decoded: memory and passes over its pixels.

Decoders cannot be interrupted, and a small file may make them work long or keep much. The numbers are upper bounds of
what was measured with OpenCV 4.14 and libheif, `tests/transforms/test_worst_requests.py` measures them again.
"""

from __future__ import annotations

from typing import NamedTuple

from beam_serving.errors import RequestError
from beam_serving.transforms.image_file import JPEG, ImageSize, image_size

_MOST_VISITS = 1_000_000_000
"""Pixels times scans, of which a progressive file has about ten: 2 s of one core (AMD EPYC, 2026-11-30)."""
_LEAST_VISITS = 1 << 20
"""A scan of a small image counts as one of so many pixels."""


_LONG_VISITS = 1_000_000
"""Pixels times scans that take about 10 ms."""
_FAST = 32
"""JPEG files are decoded in a part of their size where that is enough."""
_MANY_SCANS = 32
"""A scan takes some time however few pixels it has; a progressive file has about ten."""
_SLOW = 10
_SLOW_FORMATS = frozenset({"AVIF", "HEIC", "JPEG 2000"})


class _PerPixel(NamedTuple):
    """Bytes per pixel that a decoder takes with its result: for 1 or 3 channels, and for 4; of deep files also."""

    color: int
    alpha: int
    deep_color: int
    deep_alpha: int


_PER_PIXEL = {
    "": _PerPixel(6, 8, 7, 16),
    "TIFF": _PerPixel(8, 12, 12, 18),
    "GIF": _PerPixel(8, 11, 8, 11),
    "AVIF": _PerPixel(24, 40, 24, 40),
    "HEIC": _PerPixel(12, 16, 12, 16),
    "JPEG 2000": _PerPixel(6, 8, 6, 8),
    "PNM": _PerPixel(6, 8, 12, 14),
    "PAM": _PerPixel(8, 8, 8, 8),
    "PFM": _PerPixel(18, 20, 18, 20),
    "Sun raster": _PerPixel(6, 8, 6, 8),
    "Radiance HDR": _PerPixel(16, 20, 16, 20),
    "OpenEXR": _PerPixel(40, 44, 40, 44),
}
"""By the format of `ImageSize`; the four without a name are OpenCV's JPEG, PNG, BMP and WebP."""


class _Work(NamedTuple):
    """Nanoseconds of one core per pixel and per byte of the file, of those files that take most."""

    pixel: int = 20
    byte: int = 30


_WORK = {"AVIF": _Work(byte=90), "HEIC": _Work(byte=60), "JPEG 2000": _Work(byte=110)}
"""By the format of `ImageSize`; noise that is kept exactly takes most (AMD EPYC, 2026-11-30)."""
_SCAN_NS, _SMOOTHING_NS = 2, 40
_MOST_NS_PER_PIXEL = 80
_LEAST_MAX_PIXELS = 50_000_000
"""A service that takes smaller images only has no less time for one: 4 s."""


def work_ns(size: ImageSize, encoded_bytes: int, *, antialias: bool = False) -> int:
    """Return about the most time that a file takes one core, to its resized pixels."""
    rate = _WORK.get(size.format, _Work())
    each = rate.pixel + _SCAN_NS * (size.scans - 1) + (_SMOOTHING_NS if antialias else 0)
    return size.width * size.height * each + encoded_bytes * rate.byte


def check_work(needed_ns: int, max_pixels: int, what: str) -> None:
    """Refuse what would take longer than one request may.

    Raises:
        RequestError: it would.
    """
    if needed_ns > _MOST_NS_PER_PIXEL * max(max_pixels, _LEAST_MAX_PIXELS):
        raise RequestError(
            f"{what} take about {needed_ns / 1e9:.1f} s to decode: more work than is done for one request; "
            "send fewer bytes or pixels, or the service needs a larger data: max_pixels"
        )


def check_scans(size: ImageSize) -> None:
    """Refuse a file whose scans make a decoder go over its pixels too often.

    Raises:
        RequestError: its pixels times its scans are too many.
    """
    if size.scans * max(size.width * size.height, _LEAST_VISITS) > _MOST_VISITS and size.scans > 1:
        raise RequestError(
            f"image of {size.width}x{size.height} pixels in {size.scans} scans: more work than is done for one; "
            "send it with fewer scans or pixels"
        )


def takes_long(encoded: bytes) -> bool:
    """Return whether decoding an image may take more than some milliseconds; of one that is refused it does not."""
    try:
        size = image_size(encoded)
    except RequestError:
        return False
    visits = size.scans * size.width * size.height
    if encoded.startswith(JPEG):
        return visits >= _LONG_VISITS * _FAST or size.scans > _MANY_SCANS
    return visits * (_SLOW if size.format in _SLOW_FORMATS else 1) >= _LONG_VISITS


def decoding_bytes(size: ImageSize, channels: int) -> int:
    """Return the most memory that OpenCV and the other decoders take for a file, with the pixels that they give."""
    rates = _PER_PIXEL[size.format]
    if size.deep:
        rate = rates.deep_alpha if channels == 4 else rates.deep_color
    else:
        rate = rates.alpha if channels == 4 else rates.color
    return size.width * size.height * rate + size.kept_bytes


def check_memory(needed: int, most: int, what: str) -> None:
    """Refuse what would take more memory than one request may.

    Raises:
        RequestError: it would; the message names the limit.
    """
    if needed > most:
        raise RequestError(
            f"{what} takes {-(-needed >> 20)} MB to decode, at most {most >> 20} MB are given to one request; "
            "send less, or the service needs a larger data: max_decode_mb"
        )
