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
_MOST_UNITS = 4096
_SEQUENCE_BYTES = 512
"""More than the longest sequence header of AV1."""
_IN_BOX = 1
"""Construction method of an item whose data lies in the box `idat`; 0 is that of one in the file."""
_SEQUENCE_HEADER = 1
"""Kind of a unit of AV1."""
_AVIF = frozenset({b"avif", b"avis"})
_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def brand_format(encoded: bytes) -> str | None:
    """Return AVIF or HEIC, or None for another file of boxes, as a video."""
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
    """Return the sides of the largest image in a file of the format `name`, AVIF or HEIC.

    Raises:
        RequestError: there is none, or the data of one is not in the file.
    """
    top = _top(encoded)
    if b"meta" not in top:
        raise RequestError(f"{name} without a still image: not supported")
    meta = top[b"meta"]
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
    sizes += [av1_size(data, name) for data in _coded(encoded, inner, name)]
    if name == "AVIF" and b"moov" in top:
        sizes += [av1_size(data, name) for data in _first_samples(encoded, top[b"moov"])]
    if not sizes:
        raise RequestError(f"corrupt {name}: no image has a size")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return width, height


def _top(encoded: bytes) -> dict[bytes, _Box]:
    """Return the first box of each kind; what follows the still image may be anything."""
    found: dict[bytes, _Box] = {}
    try:
        for box in _boxes(encoded, 0, len(encoded)):
            found.setdefault(box.kind, box)
    except error:
        if b"meta" not in found:
            raise
    return found


def _coded(encoded: bytes, inner: list[_Box], name: str) -> Iterator[memoryview | bytes]:
    """Yield the data of each item that is AV1, put together of its parts, wherever these lie.

    Raises:
        RequestError: a part is not in the file, or items have more data together than there is.
    """
    kinds = (kind for box in inner if box.kind == b"iinf" for kind in _item_kinds(encoded, box))
    of_av1 = {number for number, kind in kinds if kind == b"av01"}
    stored = next((box for box in inner if box.kind == b"idat"), _Box(b"idat", 0, 0))
    left = 2 * len(encoded)
    for location in (box for box in inner if box.kind == b"iloc"):
        for item in _items(encoded, location):
            base, end = (stored.start, stored.end) if item.method == _IN_BOX else (0, len(encoded))
            for start, length in item.parts:
                if base + start + length > end:
                    needed = base + start + length
                    raise RequestError(f"truncated {name}: {len(encoded)} bytes, its header says {needed}")
            if item.number not in of_av1:
                continue
            if item.method > _IN_BOX:
                raise RequestError(f"{name} whose data is that of another item: not supported")
            parts = [
                memoryview(encoded)[base + start : base + start + length if length else end]
                for start, length in item.parts
            ]
            left -= sum(map(len, parts))
            if left < 0:
                raise RequestError(f"corrupt {name}: its items share their data")
            yield parts[0] if len(parts) == 1 else b"".join(parts)


def _item_kinds(encoded: bytes, box: _Box) -> Iterator[tuple[int, bytes]]:
    """Yield the number and kind of the items."""
    start = box.start + (8 if encoded[box.start] else 6)
    for entry in _boxes(encoded, start, box.end):
        version = encoded[entry.start]
        if entry.kind == b"infe" and version >= 2:
            yield unpack_from(">I2x4s" if version > 2 else ">H2x4s", encoded, entry.start + 4)


def _first_samples(encoded: bytes, moov: _Box) -> Iterator[memoryview]:
    """Yield the first frame of each track of a file of several frames, which the decoder may take for its image."""
    level = [moov]
    for kind in (b"trak", b"mdia", b"minf", b"stbl"):
        level = [inner for box in level for inner in _boxes(encoded, box.start, box.end) if inner.kind == kind]
    for table in level:
        boxes = [box for box in _boxes(encoded, table.start, table.end) if box.kind in (b"stsz", b"stco", b"co64")]
        lengths = [box for box in boxes if box.kind == b"stsz"]
        places = [box for box in boxes if box.kind != b"stsz"]
        if len(lengths) != 1 or len(places) != 1:
            raise RequestError("corrupt AVIF: a track without one table of the places and lengths of its frames")
        of_all, count = unpack_from(">II", encoded, lengths[0].start + 4)
        if count == 0:
            continue
        length = of_all or unpack_from(">I", encoded, lengths[0].start + 12)[0]
        start = unpack_from(">Q" if places[0].kind == b"co64" else ">I", encoded, places[0].start + 8)[0]
        if start + length > len(encoded):
            raise RequestError(f"truncated AVIF: {len(encoded)} bytes, its header says {start + length}")
        yield memoryview(encoded)[start : start + length]


def _boxes(encoded: bytes, at: int, end: int, stop: bytes = b"") -> Iterator[_Box]:
    """Yield the boxes between two places, up to one of kind `stop`."""
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


class _Item(NamedTuple):
    """Where the data of an item lies; parts are (start, length), of length 0 where it goes to the end."""

    number: int
    method: int
    parts: list[tuple[int, int]]


def _items(encoded: bytes, box: _Box) -> Iterator[_Item]:
    """Read the box of locations."""
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
        item = _Item(number(4 if long else 2), number(2) & 15 if version else 0, [])
        number(2)
        base = number(base_size)
        for _ in range(number(2)):
            left -= 1
            if not left:
                raise RequestError(f"corrupt AVIF or HEIC: more than {_MOST_EXTENTS} parts of images")
            number(index_size)
            item.parts.append((base + number(offset_size), number(length_size)))
        yield item


class _Bits:
    """Reads numbers of any number of bits, the first bit of a byte first; zeros follow the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data + bytes(64), "big"), 8 * (len(data) + 64)

    def take(self, count: int) -> int:
        self._left = max(self._left - count, 0)
        return self._value >> self._left & (1 << count) - 1


def av1_size(data: memoryview | bytes, name: str = "AVIF") -> tuple[int, int]:
    """Read the greatest size of a frame from all sequence headers of AV1 data: the decoder goes by the last.

    Raises:
        RequestError: it has none, or something else than units of AV1.
    """
    sizes, at = [], 0
    for _ in range(_MOST_UNITS):
        if at >= len(data):
            break
        kind, extended, sized = data[at] >> 3 & 15, data[at] >> 2 & 1, data[at] >> 1 & 1
        if data[at] & 0x81:
            raise RequestError(f"corrupt {name}: no unit of AV1 at byte {at} of {len(data)}")
        at += 1 + extended
        length = 0 if sized else len(data)
        for index in range(8 if sized else 0):
            byte = data[at] if at < len(data) else 0
            at += 1
            length |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                break
        if kind == _SEQUENCE_HEADER:
            sizes.append(_sequence_size(_Bits(bytes(data[at : at + min(length, _SEQUENCE_BYTES)]))))
        at += length
    else:
        raise RequestError(f"corrupt {name}: AV1 of more than {_MOST_UNITS} units")
    if not sizes:
        raise RequestError(f"corrupt {name}: AV1 without a sequence header")
    return max(sizes, key=lambda size: size[0] * size[1])


def _sequence_size(bits: _Bits) -> tuple[int, int]:
    """Read up to the size of `sequence_header_obu` of the AV1 specification, 5.5.1."""
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
    """Pass over the times; return the number of bits of a buffer's delay, 0 where there is none."""
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
