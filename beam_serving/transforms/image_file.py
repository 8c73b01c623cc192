"""What an image file says of itself before anything of it is decoded: its size, and whether it is whole.

OpenCV fills the missing part of a truncated JPEG or PNG with grey and says nothing, and a small file may announce
billions of pixels; both are seen here at the cost of a few microseconds. Facts from the JPEG (ITU T.81), PNG (W3C),
BMP and WebP (RFC 9649) specifications; `image_headers` and `image_boxes` have the other formats.
"""

import re
from collections.abc import Callable
from struct import error as struct_error
from typing import NamedTuple

from beam_serving.errors import RequestError
from beam_serving.transforms import image_headers as headers
from beam_serving.transforms.image_boxes import boxed_size, brand_format
from beam_serving.transforms.image_headers import Announced
from beam_serving.transforms.jpeg2000 import j2k_size, jp2_size
from beam_serving.transforms.unsupported import unsupported_format

JPEG = b"\xff\xd8\xff"
"""How a JPEG file begins."""
_PNG = b"\x89PNG\r\n\x1a\n"
_FILL = re.compile(rb"\xff+")
_MOST_SEGMENTS = 4096
"""Of a JPEG file, in front of its first scan; a colour profile takes 255 of them at most."""
_MOST_CHUNKS = 65_536
"""Of a PNG file, whose pixels stand in chunks of 4 KB or more."""
_TEXTS = (b"zTXt", b"iTXt")
_DEFLATED_TIMES, _MOST_TEXT_BYTES, _MOST_TEXTS_BYTES = 1032, 8 << 20, 256 << 20
"""What deflate makes of a byte at most, where libpng ends a text of a PNG file, and of all texts: 1 s of work."""
_SIZES_AT = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""JPEG markers SOF0..SOF15 without DHT, JPG and DAC: the segments that hold the frame's size."""
_STAND_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_BMP_PLAIN = (0, 3)
"""BI_RGB and BI_BITFIELDS: rows of pixels that are not compressed."""
_START_OF_SCAN = 0xDA
_APP1 = 0xE1
"""The segment that EXIF (and XMP) stands in."""
_SCAN = b"\xff\xda"
_END_OF_IMAGE = b"\xff\xd9"


class ImageSize(NamedTuple):
    """Width and height in pixels, as the header announces them.

    A `plain_jpeg` is grey or of three colours and has no EXIF part, which could ask for another orientation.
    `format` is empty for JPEG, PNG, BMP and WebP. `deep` files have more than 8 bits per channel. `kept_bytes` is what
    the decoder keeps beside pixels, and `scans` how often it goes over them.
    """

    width: int
    height: int
    plain_jpeg: bool = False
    format: str = ""
    deep: bool = False
    kept_bytes: int = 0
    scans: int = 1


class _Format(NamedTuple):
    name: str
    begins: re.Pattern[bytes]
    size: Callable[[bytes], Announced | tuple[int, int]]


_FORMATS = tuple(
    _Format(name, re.compile(begins, re.DOTALL), size)
    for name, begins, size in (
        ("TIFF", rb"II[*+]\0|MM\0[*+]", headers.tiff_size),
        ("GIF", rb"GIF8[79]a", headers.gif_size),
        ("JPEG 2000", rb"\0\0\0\x0cjP  \r\n\x87\n", jp2_size),
        ("JPEG 2000", rb"\xffO\xffQ", j2k_size),
        ("PNM", rb"P[1-6][\s#]", headers.pnm_size),
        ("PAM", rb"P7\s", headers.pam_size),
        ("PFM", rb"P[Ff]\s", headers.pfm_size),
        ("Sun raster", rb"Y\xa6j\x95", headers.sun_size),
        ("Radiance HDR", rb"#\?(?:RADIANCE|RGBE)\n", headers.hdr_size),
        ("OpenEXR", rb"v/1\x01", headers.exr_size),
    )
)
_SUPPORTED = "JPEG, PNG, BMP, WebP, TIFF, GIF, AVIF, HEIC, JPEG 2000, PNM, PAM, PFM, Sun raster or Radiance HDR"


def image_size(encoded: bytes) -> ImageSize:
    """Read the size from the header and check that the file is not cut off, as far as the header allows.

    Raises:
        RequestError: the format is not supported, the header is broken, or the end is missing.
    """
    if encoded.startswith(JPEG):
        return _jpeg(encoded)
    if encoded.startswith(_PNG):
        return _png(encoded)
    if encoded.startswith(b"BM"):
        return _bmp(encoded)
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return _webp(encoded)
    return _of_other_format(encoded)


def _of_other_format(encoded: bytes) -> ImageSize:
    name, size = _format_of(encoded)
    try:
        announced = Announced(*size(encoded))
    except struct_error as err:
        raise RequestError(f"truncated {name}: {len(encoded)} bytes without a whole header") from err
    width, height, deep, kept_bytes, scans = announced
    return ImageSize(width, height, format=name, deep=deep, kept_bytes=kept_bytes, scans=scans)


def _format_of(encoded: bytes) -> tuple[str, Callable[[bytes], Announced | tuple[int, int]]]:
    for known in _FORMATS:
        if known.begins.match(encoded):
            return known.name, known.size
    if encoded[4:8] == b"ftyp" and (name := brand_format(encoded)):
        return name, lambda file: boxed_size(file, name)
    if not encoded:
        raise RequestError(f"an image of 0 bytes; wanted a file of {_SUPPORTED}")
    if name := unsupported_format(encoded):
        raise RequestError(f"{name}: this format is not supported; wanted a file of {_SUPPORTED}")
    raise RequestError(
        f"this format is not supported: {len(encoded)} bytes that start with {encoded[:8]!r}; "
        f"wanted a file of {_SUPPORTED}"
    )


def _int(encoded: bytes, start: int, order: str = "big", *, signed: bool = False, length: int = 4) -> int:
    return int.from_bytes(encoded[start : start + length], "little" if order == "little" else "big", signed=signed)


def _jpeg(encoded: bytes) -> ImageSize:
    at, size, exif, frame = 2, None, False, 0
    for _ in range(_MOST_SEGMENTS):
        if at + 4 > len(encoded):
            break
        fill = _FILL.match(encoded, at)
        if fill is None:
            raise RequestError(f"corrupt JPEG: no marker at byte {at} of {len(encoded)}")
        at = fill.end() - 1
        if at + 4 > len(encoded):
            break
        marker = encoded[at + 1]
        if marker in _STAND_ALONE:
            at += 2
            continue
        length = _int(encoded, at + 2, length=2)
        if length < 2:
            raise RequestError(f"corrupt JPEG: a segment of {length} bytes at byte {at}")
        if marker in _SIZES_AT:
            if length < 8 or at + 9 > len(encoded):
                break
            plain = encoded[at + 9 : at + 10] in (b"\x01", b"\x03")
            size = ImageSize(_int(encoded, at + 7, length=2), _int(encoded, at + 5, length=2), plain)
            frame = at
        exif = exif or marker == _APP1
        if marker == _START_OF_SCAN:
            # Inside a scan a 0xFF of the data is followed by 0, so this pair can only be the end.
            if size is None or encoded.rfind(_END_OF_IMAGE, at + length) < 0:
                break
            size = size._replace(plain_jpeg=size.plain_jpeg and not exif)
            return _of_several_scans(encoded, frame, at, size)
        at += 2 + length
    else:
        raise RequestError(f"corrupt JPEG: more than {_MOST_SEGMENTS} segments before its pixels")
    raise RequestError(f"truncated JPEG: {len(encoded)} bytes without an end-of-image marker")


def _of_several_scans(encoded: bytes, frame: int, scan: int, size: ImageSize) -> ImageSize:
    """Add what a file takes whose pixels come in several scans, as those of a progressive one do.

    The decoder keeps all coefficients, two bytes each, and goes over all of them with every scan, however little that
    holds. A file that is not progressive and has all components in its first scan has no other.
    """
    components = encoded[frame + 9]
    if encoded[frame + 1] & 3 != 2 and encoded[scan + 4] >= components:
        return size
    factors = [(packed >> 4, packed & 15) for packed in encoded[frame + 11 : frame + 10 + 3 * components : 3]]
    widest, tallest = (max(1, *sides) for sides in zip(*factors, strict=True)) if factors else (1, 1)
    units = -(-size.width // (8 * widest)) * -(-size.height // (8 * tallest))
    blocks = units * sum(across * down for across, down in factors)
    return size._replace(kept_bytes=128 * blocks, scans=encoded.count(_SCAN, scan))


def _png(encoded: bytes) -> ImageSize:
    if len(encoded) < 33 or encoded[12:16] != b"IHDR":
        raise RequestError(f"truncated PNG: {len(encoded)} bytes without a whole header")
    at, texts_bytes = 8, 0
    for _ in range(_MOST_CHUNKS):
        if at + 12 > len(encoded):
            break
        kind, length = encoded[at + 4 : at + 8], _int(encoded, at)
        if kind == b"IEND":
            return ImageSize(_int(encoded, 16), _int(encoded, 20), deep=encoded[24] > 8)
        if kind in _TEXTS:
            texts_bytes += min(_DEFLATED_TIMES * length, _MOST_TEXT_BYTES)
            if texts_bytes > _MOST_TEXTS_BYTES:
                raise RequestError(f"PNG with compressed texts of more than {_MOST_TEXTS_BYTES >> 20} MB")
        at += 12 + length
    else:
        raise RequestError(f"corrupt PNG: more than {_MOST_CHUNKS} chunks")
    raise RequestError(f"truncated PNG: {len(encoded)} bytes without an end chunk")


def _bmp(encoded: bytes) -> ImageSize:
    if len(encoded) < 34:
        raise RequestError(f"truncated BMP: {len(encoded)} bytes without a whole header")
    if _int(encoded, 14, "little") == 12:  # the header of OS/2
        size = ImageSize(_int(encoded, 18, "little", length=2), _int(encoded, 20, "little", length=2))
        bits, compression = _int(encoded, 24, "little", length=2), 0
    else:
        size = ImageSize(_int(encoded, 18, "little"), abs(_int(encoded, 22, "little", signed=True)))
        bits, compression = _int(encoded, 28, "little", length=2), _int(encoded, 30, "little")
    end = _int(encoded, 2, "little")
    if compression in _BMP_PLAIN:
        # Rows are padded to four bytes; the file size in the header is not always filled in.
        end = _int(encoded, 10, "little") + (size.width * bits + 31) // 32 * 4 * size.height
    if len(encoded) < end:
        raise RequestError(f"truncated BMP: {len(encoded)} bytes, its header says {end}")
    return size


def _webp(encoded: bytes) -> ImageSize:
    if len(encoded) < 30 or _int(encoded, 4, "little") + 8 > len(encoded):
        raise RequestError(f"truncated WebP: {len(encoded)} bytes, its header says {_int(encoded, 4, 'little') + 8}")
    kind = encoded[12:16]
    if kind == b"VP8X":
        return ImageSize(_int(encoded, 24, "little", length=3) + 1, _int(encoded, 27, "little", length=3) + 1)
    if kind == b"VP8L":
        bits = _int(encoded, 21, "little")
        return ImageSize((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind != b"VP8 ":
        raise RequestError(f"corrupt WebP: it starts with a chunk {kind!r}")
    return ImageSize(_int(encoded, 26, "little", length=2) & 0x3FFF, _int(encoded, 28, "little", length=2) & 0x3FFF)
