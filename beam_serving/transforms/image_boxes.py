"""The announced size of AVIF and HEIC files, which are boxes within boxes (ISO/IEC 14496-12 and 23008-12, AV1 in HEIF).

An image is an item; its size stands in a property of the item, and its data lies where the box of locations says. The
decoder of AV1 goes by the size in that data, so this is read too.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import error, unpack_from
from typing import NamedTuple

from beam_serving.errors import RequestError

_MOST_BOXES = 4096
_MOST_EXTENTS = 65_536
_SEQUENCE_BYTES = 512
"""More than the longest sequence header of AV1."""
_AVIF = frozenset({b"avif", b"avis"})
_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def brand_format(encoded: bytes) -> str | None:
    """Gives AVIF or HEIC, or None for another file of boxes, as a video."""
    length = int.from_bytes(encoded[:4], "big")
    brands = {encoded[8:12], *(encoded[at : at + 4] for at in range(16, min(length, len(encoded), 256), 4))}
    if brands & _AVIF:
        return "AVIF"
    return "HEIC" if brands & _HEIC else None


class _Box(NamedTuple):
    kind: bytes
    start: int
    end: int


def boxed_size(encoded: bytes, name: str) -> tuple[int, int]:
    """Gives the sides of the largest image in a file of the format `name`, AVIF or HEIC.

    Raises:
        RequestError: there is none, or the data of one is not in the file.
    """
    meta = next((box for box in _boxes(encoded, 0, len(encoded), stop=b"meta") if box.kind == b"meta"), None)
    if meta is None:
        raise RequestError(f"{name} without a still image: not supported")
    inner = list(_boxes(encoded, meta.start + 4, meta.end))
    sizes = [
        unpack_from(">II", encoded, size.start + 4)
        for properties in inner
        if properties.kind == b"iprp"
        for container in _boxes(encoded, properties.start, properties.end)
        if container.kind == b"ipco"
        for size in _boxes(encoded, container.start, container.end)
        if size.kind == b"ispe"
    ]
    for location in (box for box in inner if box.kind == b"iloc"):
        for start, length in _extents(encoded, location):
            if start + length > len(encoded):
                raise RequestError(f"truncated {name}: {len(encoded)} bytes, its header says {start + length}")
            if size := av1_size(encoded[start : start + min(length or _SEQUENCE_BYTES, _SEQUENCE_BYTES)]):
                sizes.append(size)
    if not sizes:
        raise RequestError(f"corrupt {name}: no image has a size")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return width, height


def _boxes(encoded: bytes, at: int, end: int, stop: bytes = b"") -> Iterator[_Box]:
    """Gives the boxes between two places, up to one of kind `stop`."""
    for _ in range(_MOST_BOXES):
        if at >= end:
            return
        length, kind = unpack_from(">I4s", encoded, at)
        start = at + 8
        if length == 1:
            length, start = unpack_from(">Q", encoded, start)[0], at + 16
        box_end = at + length if length else end
        if box_end > end or box_end < start:
            raise error
        yield _Box(kind, start, box_end)
        if kind == stop:
            return
        at = box_end
    raise RequestError(f"corrupt AVIF or HEIC: more than {_MOST_BOXES} boxes")


def _extents(encoded: bytes, box: _Box) -> Iterator[tuple[int, int]]:
    """Gives where the data of items lies in the file: (start, length), of length 0 where it goes to the end."""
    version, sizes = encoded[box.start], unpack_from(">H", encoded, box.start + 4)[0]
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    long = version == 2
    items = unpack_from(">I" if long else ">H", encoded, box.start + 6)[0]
    at = box.start + (10 if long else 8)
    left = _MOST_EXTENTS

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > box.end:
            raise error
        return int.from_bytes(encoded[at - size : at], "big")

    for _ in range(items):
        number(4 if long else 2)
        in_file = number(2) & 15 == 0 if version else True
        number(2)
        base = number(base_size)
        for _ in range(number(2)):
            left -= 1
            if not left:
                raise RequestError(f"corrupt AVIF or HEIC: more than {_MOST_EXTENTS} parts of images")
            number(index_size)
            start, length = base + number(offset_size), number(length_size)
            if in_file:
                yield start, length


class _Bits:
    """Reads numbers of any number of bits, the first bit of a byte first; zeros follow the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data + bytes(64), "big"), 8 * (len(data) + 64)

    def take(self, count: int) -> int:
        self._left = max(self._left - count, 0)
        return self._value >> self._left & (1 << count) - 1


def av1_size(data: bytes) -> tuple[int, int] | None:
    """Reads the greatest size of a frame from the sequence header that AV1 data starts with; None where it has none."""
    at = 0
    for _ in range(2):
        header = data[at : at + 1]
        if not header or header[0] & 0x81:
            return None
        kind, extended, sized = header[0] >> 3 & 15, header[0] >> 2 & 1, header[0] >> 1 & 1
        at += 1 + extended
        length = 0
        for index in range(8 if sized else 0):
            byte = data[at] if at < len(data) else 0
            at += 1
            length |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                break
        if kind == 1:
            return _sequence_size(_Bits(data[at:]))
        if kind != 2:  # a temporal delimiter may come first
            return None
        at += length
    return None


def _sequence_size(bits: _Bits) -> tuple[int, int]:
    """Reads up to the size of `sequence_header_obu` of the AV1 specification, 5.5.1."""
    bits.take(4)
    if bits.take(1):
        bits.take(5)
    else:
        delay_bits = _timing(bits)
        delays = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if delay_bits and bits.take(1):
                bits.take(2 * delay_bits + 1)
            if delays and bits.take(1):
                bits.take(4)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(width_bits) + 1, bits.take(height_bits) + 1


def _timing(bits: _Bits) -> int:
    """Passes over the times; gives the number of bits of a buffer's delay, 0 where there is none."""
    if not bits.take(1):
        return 0
    bits.take(64)
    if bits.take(1):
        zeros = 0
        while zeros < 32 and not bits.take(1):
            zeros += 1
        bits.take(zeros)
    if not bits.take(1):
        return 0
    delay_bits = bits.take(5) + 1
    bits.take(32 + 5 + 5)
    return delay_bits
