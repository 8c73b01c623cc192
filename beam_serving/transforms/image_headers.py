"""The announced size, and whether the file is whole, of the image formats that are not met most: TIFF, GIF and others.

Each function takes a file that begins as its format does and gives (width, height). It raises `RequestError` where the
header is broken or the end is missing, and `struct.error` where the file ends within the header. Every loop is bounded
by a constant or by the length of the file, whatever the header announces. What these functions do not see, as the end
of compressed pixels, the decoder does.

Facts from the TIFF 6.0 and BigTIFF, GIF89a and Netpbm specifications, and the file formats of Sun, Radiance and
OpenEXR. JPEG 2000 has a module of its own.
"""

from __future__ import annotations

import os
import re
from struct import calcsize, error, iter_unpack, unpack_from
from typing import NamedTuple

import numpy as np

from beam_serving.errors import RequestError

_HEADER_BYTES = 1 << 16
"""Bytes in which the header of a text format must end."""
_BIG_TIFF = 43
_MOST_ENTRIES = 4096
_MOST_BLOCKS = 1_000_000


class Announced(NamedTuple):
    """What a header says: the sides in pixels, and as `ImageSize` what the decoder will do for them."""

    width: int
    height: int
    deep: bool = False
    kept_bytes: int = 0
    scans: int = 1


def tiff_size(encoded: bytes) -> Announced:
    """Read the first page. Where a tile is larger than the page, its sides are given: they are what is decoded."""
    order = "<" if encoded.startswith(b"I") else ">"
    big = unpack_from(order + "H", encoded, 2)[0] == _BIG_TIFF
    tags = _tiff_tags(encoded, order, big)
    width, height = (_one(encoded, tags, tag) for tag in (256, 257))
    bits = int(_numbers(encoded, tags, 258, default=1).max())
    if bits > 16:
        raise RequestError("TIFF of more than 16 bits per sample: not supported")
    packing = _one(encoded, tags, 259, default=1)
    if method := _TIFF_METHODS.get(packing):
        raise RequestError(f"TIFF compressed with {method}: not supported")
    if 347 in tags:  # tables of a JPEG
        _numbers(encoded, tags, 347)
    most_parts = 1
    for starts, lengths in ((273, 279), (324, 325)):
        if starts in tags and lengths in tags:
            most_parts = max(
                most_parts, _check_parts(encoded, _numbers(encoded, tags, starts), _numbers(encoded, tags, lengths))
            )
    tile = [_one(encoded, tags, tag, default=0) for tag in (322, 323)]
    scans = -(-encoded.count(b"\xff\xda") // most_parts) if packing in _TIFF_JPEG else 1
    # A strip or tile is kept beside the page, of as many bytes as there are samples in a pixel.
    rows = _one(encoded, tags, 278, default=height)
    part = tile[0] * tile[1] or width * min(rows, height)
    samples = _one(encoded, tags, 277, default=1)
    kept_bytes = part * max(samples - 4, 0) * (2 if bits > 8 else 1)
    return Announced(max(width, tile[0]), max(height, tile[1]), bits > 8, kept_bytes, max(scans, 1))


_TIFF_JPEG = (6, 7)


_TIFF_METHODS = {
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
"""What OpenCV's libtiff is built without."""
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}


class _Entry:
    """Where the numbers of a tag stand."""

    __slots__ = ("at", "count", "dtype")

    def __init__(self, dtype: str, count: int, at: int) -> None:
        self.dtype, self.count, self.at = dtype, count, at


def _tiff_tags(encoded: bytes, order: str, big: bool) -> dict[int, _Entry]:
    """Read where the numbers of each tag stand; of a tag that is there twice the first counts, as for libtiff."""
    start = unpack_from(order + ("Q" if big else "I"), encoded, 8 if big else 4)[0]
    if start > len(encoded):
        raise error
    count_format, entry_format, inline = ("Q", "HHQQ", 8) if big else ("H", "HHII", 4)
    entries = unpack_from(order + count_format, encoded, start)[0]
    if not 0 < entries <= _MOST_ENTRIES:
        raise RequestError(f"corrupt TIFF: a directory of {entries} entries")
    start += calcsize(order + count_format)
    size = calcsize(order + entry_format)
    if start + entries * size > len(encoded):
        raise error
    tags: dict[int, _Entry] = {}
    table = encoded[start : start + entries * size]
    for index, (tag, kind, count, value) in enumerate(iter_unpack(order + entry_format, table)):
        if kind in _TIFF_TYPES:
            dtype = order + _TIFF_TYPES[kind]
            is_inline = count * calcsize(dtype) <= inline
            tags.setdefault(tag, _Entry(dtype, count, start + index * size + size - inline if is_inline else value))
    return tags


def _numbers(encoded: bytes, tags: dict[int, _Entry], tag: int, default: int | None = None) -> np.ndarray:
    if tag not in tags:
        if default is None:
            raise RequestError(f"corrupt TIFF: no tag {tag} in its first directory")
        return np.array([default])
    entry = tags[tag]
    if not entry.count:
        raise RequestError(f"corrupt TIFF: tag {tag} is empty")
    if entry.at + entry.count * calcsize(entry.dtype) > len(encoded):
        raise error
    return np.frombuffer(encoded, np.dtype(entry.dtype), entry.count, entry.at)


def _one(encoded: bytes, tags: dict[int, _Entry], tag: int, default: int | None = None) -> int:
    number = int(_numbers(encoded, tags, tag, default)[0])
    if number < 0:
        raise RequestError(f"corrupt TIFF: tag {tag} is {number}")
    return number


def _check_parts(encoded: bytes, starts: np.ndarray, lengths: np.ndarray) -> int:
    """Return the number of strips or tiles, but 1 where some share their bytes: each may have all there is."""
    count = min(len(starts), len(lengths))
    ends = starts[:count].astype(np.float64) + lengths[:count].astype(np.float64)
    if (end := int(ends.max())) > len(encoded):
        raise RequestError(f"truncated TIFF: {len(encoded)} bytes, its header says {end}")
    return count if lengths[:count].astype(np.float64).sum() <= len(encoded) else 1


_GIF_END, _GIF_EXTENSION, _GIF_FRAME = b";!,"


def gif_size(encoded: bytes) -> tuple[int, int]:
    """Read the canvas, and goes through the blocks to the end of the file."""
    width, height, flags = unpack_from("<HHB", encoded, 6)
    at, in_parts = 13 + _gif_colors(flags), False
    for _ in range(_MOST_BLOCKS):
        if at >= len(encoded):
            raise RequestError(f"truncated GIF: {len(encoded)} bytes without an end")
        kind = encoded[at]
        if in_parts:
            at, in_parts = at + 1 + kind, kind > 0
        elif kind == _GIF_END:
            return width, height
        elif kind == _GIF_EXTENSION:
            at, in_parts = at + 2, True
        elif kind == _GIF_FRAME:
            at, in_parts = at + 11 + _gif_colors(unpack_from("B", encoded, at + 9)[0]), True
        else:
            raise RequestError(f"corrupt GIF: no block at byte {at} of {len(encoded)}")
    raise RequestError(f"corrupt GIF: more than {_MOST_BLOCKS} blocks")


def _gif_colors(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PNM = re.compile(rb"P[1-6]" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})(?:" + _GAP + rb"(\d{1,9}))?\s")
_PFM = re.compile(rb"P[Ff]\s(\d{1,9})\s(\d{1,9})\s[-+.\deE]{1,30}\s")


def pnm_size(encoded: bytes) -> Announced:
    """Read a PBM, PGM or PPM file, of text or bytes."""
    kind = encoded[1:2]
    # A bitmap has no greatest value, and its text begins right after the height.
    header = _PNM.match(encoded, 0, _HEADER_BYTES)
    if header is None or (kind not in b"14" and header[3] is None):
        raise RequestError(f"corrupt PNM: no whole header in {len(encoded)} bytes")
    width, height = int(header[1]), int(header[2])
    samples = width * height * (3 if kind in b"36" else 1)
    if kind == b"4":
        return Announced(*_held("PNM", encoded, header.end(2) + 1, (width + 7) // 8 * height, (width, height)))
    deep = kind in b"2356" and int(header[3]) > 255
    if kind in b"56":
        return Announced(*_held("PNM", encoded, header.end(), samples * (1 + deep), (width, height)), deep)
    # Text: a digit each, and between numbers of more than one digit something else.
    start = header.end(2) + 1 if kind == b"1" else header.end()
    return Announced(*_held("PNM", encoded, start, samples if kind == b"1" else 2 * samples - 1, (width, height)), deep)


def _held(name: str, encoded: bytes, start: int, needed: int, size: tuple[int, int]) -> tuple[int, int]:
    if start + needed > len(encoded):
        raise RequestError(f"truncated {name}: {len(encoded)} bytes, its header says {start + needed}")
    return size


class PamHeader(NamedTuple):
    """What a PAM file says of its pixels: `depth` channels of 0 to `most`, from byte `start` on."""

    width: int
    height: int
    depth: int
    most: int
    start: int


def pam_header(encoded: bytes) -> PamHeader:
    """Read the header, which is lines of a name and a value."""
    end = encoded.find(b"ENDHDR\n", 0, _HEADER_BYTES)
    if end < 0:
        raise RequestError(f"corrupt PAM: no whole header in {len(encoded)} bytes")
    lines = (line.split() for line in encoded[:end].split(b"\n"))
    values = {line[0]: int(line[1][:9]) for line in lines if len(line) == 2 and line[1].isdigit()}
    width, height, depth, most = (values.get(name, 0) for name in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
    return PamHeader(width, height, depth, most, end + 7)


def pam_size(encoded: bytes) -> Announced:
    """Read a PAM file."""
    width, height, depth, most, start = pam_header(encoded)
    size = _held("PAM", encoded, start, width * height * depth * (1 + (most > 255)), (width, height))
    # Values of another range than 0..255 are multiplied and divided in wider types.
    return Announced(*size, most > 255, width * height * depth * (0 if most == 255 else 3 if most < 255 else 7))


def pfm_size(encoded: bytes) -> tuple[int, int]:
    """Read a PFM file: floats, one or three per pixel."""
    header = _PFM.match(encoded, 0, _HEADER_BYTES)
    if header is None:
        raise RequestError(f"corrupt PFM: no whole header in {len(encoded)} bytes")
    width, height = int(header[1]), int(header[2])
    needed = width * height * (12 if encoded.startswith(b"PF") else 4)
    return _held("PFM", encoded, header.end(), needed, (width, height))


def sun_size(encoded: bytes) -> tuple[int, int]:
    """Read a Sun raster file."""
    width, height, bits, length, kind, _, palette_bytes = unpack_from(">7I", encoded, 4)
    # Rows are padded to two bytes; compressed ones (kind 2) have the length in the header.
    needed = length if kind == 2 else (width * bits + 15) // 16 * 2 * height
    return _held("Sun raster", encoded, 32 + palette_bytes, needed, (width, height))


def hdr_size(encoded: bytes) -> tuple[int, int]:
    """Read a Radiance file: lines of text, an empty line, the size, and rows of pixels that may be compressed."""
    end = encoded.find(b"\n\n", 0, _HEADER_BYTES)
    size = re.compile(rb"-Y (\d{1,9}) \+X (\d{1,9})\n").match(encoded, end + 2)
    if end < 0 or size is None:
        raise RequestError(f"corrupt Radiance HDR: no whole header of rows from top to bottom in {len(encoded)} bytes")
    # OpenCV reads lines of at most 127 bytes, and takes the rest of a longer one for another line.
    if max(map(len, encoded[:end].split(b"\n"))) > 126:
        raise RequestError("corrupt Radiance HDR: a line of more than 126 bytes in its header")
    width, height = int(size[2]), int(size[1])
    least = min(4 * width, 4 + 8 * -(-width // 127)) * height
    return _held("Radiance HDR", encoded, size.end(), least, (width, height))


def exr_size(encoded: bytes) -> tuple[int, int]:
    """Read an OpenEXR file, where the operator lets OpenCV read these.

    OpenCV's copy of OpenEXR is old and has known faults, so that it wants to be asked for.
    """
    if os.environ.get("OPENCV_IO_ENABLE_OPENEXR", "").lower() not in ("1", "true"):
        raise RequestError(
            "OpenEXR is not supported unless OPENCV_IO_ENABLE_OPENEXR=1 is in the environment of the service"
        )
    at = 8
    for _ in range(_MOST_ENTRIES):
        name_end = encoded.find(b"\0", at, at + 256)
        kind_end = encoded.find(b"\0", name_end + 1, name_end + 257)
        if name_end <= at or kind_end < 0:
            break
        length = unpack_from("<I", encoded, kind_end + 1)[0]
        if encoded[at:name_end] == b"dataWindow" and length == 16:
            left, top, right, bottom = unpack_from("<4i", encoded, kind_end + 5)
            return max(right - left + 1, 0), max(bottom - top + 1, 0)
        at = kind_end + 5 + length
    raise RequestError(f"corrupt OpenEXR: no data window in the header of {len(encoded)} bytes")
