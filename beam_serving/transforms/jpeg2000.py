"""The announced size of JPEG 2000 files, and what their decoder would have to keep for them (ITU T.800).

The decoder keeps half a kilobyte for each block of coefficients and more for each tile, and looks for a packet of each
layer in each precinct of each component. A file of 200 bytes may announce millions of them: these are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import error, unpack_from
from typing import NamedTuple

from beam_serving.errors import RequestError
from beam_serving.transforms.image_headers import Announced

_MOST_BOXES = 4096
_MOST_SEGMENTS = 1 << 18
_MOST_BLOCKS = 1_000_000
"""More than 50 million pixels of three colours have in blocks of 16 x 16; 32 x 32 and 64 x 64 are usual."""
_MOST_PACKETS = 8_000_000
"""Above the 100,000 of large files with many layers; a packet without data takes 125 ns (AMD EPYC, 2026-11-30)."""
_MOST_LEVELS = 32
_TILE_BYTES = 12_288
_BLOCK_BYTES = 512
_SIZE, _STYLE, _COMPONENT_STYLE, _TILE, _DATA, _END = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_TILE_HEADER_BYTES = 14


def jp2_size(encoded: bytes) -> Announced:
    """Read the code stream in the boxes of a JP2 file."""
    at = 0
    for _ in range(_MOST_BOXES):
        length, kind = unpack_from(">I4s", encoded, at)
        start = at + 8
        if length == 1:
            length, start = unpack_from(">Q", encoded, at + 8)[0], at + 16
        if kind == b"jp2c":
            return j2k_size(encoded, start)
        if length < 8:
            raise RequestError(f"corrupt JPEG 2000: a box of {length} bytes at byte {at}")
        at += length
        if at > len(encoded):
            raise error
    raise RequestError(f"corrupt JPEG 2000: no code stream in {_MOST_BOXES} boxes")


def j2k_size(encoded: bytes, start: int = 0) -> Announced:
    """Read a bare code stream of JPEG 2000."""
    if unpack_from(">HH", encoded, start) != (0xFF4F, _SIZE):
        raise RequestError(f"corrupt JPEG 2000: no code stream at byte {start}")
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = unpack_from(">8I", encoded, start + 8)
    if left >= right or top >= bottom or not tile_width or not tile_height:
        raise RequestError("corrupt JPEG 2000: an area without pixels")
    tiles = -((tile_left - right) // tile_width) * -((tile_top - bottom) // tile_height)
    if tiles * _TILE_HEADER_BYTES > len(encoded):
        raise RequestError(f"truncated JPEG 2000: {len(encoded)} bytes for {tiles} tiles")
    width, height = right - left, bottom - top
    components = unpack_from(">H", encoded, start + 40)[0]
    most_blocks, packets, layers, kept_bytes = 0, 0, 1, 0
    tile = min(tile_width, width), min(tile_height, height)
    for segment in _segments(encoded, start + 2):
        if segment.marker == _STYLE:
            layers = max(layers, unpack_from(">H", encoded, segment.start + 2)[0])
            blocks = _blocks(encoded, segment.start + 5, segment.end, encoded[segment.start], (width, height))
            packets = _precincts(encoded, segment.start + 5, segment.end, encoded[segment.start], tile)
        elif segment.marker == _COMPONENT_STYLE:
            style = segment.start + (1 if components < 257 else 2)
            blocks = _blocks(encoded, style + 1, segment.end, encoded[style], (width, height))
            packets = _precincts(encoded, style + 1, segment.end, encoded[style], tile)
        else:
            continue
        if blocks * components > _MOST_BLOCKS:
            raise RequestError(f"JPEG 2000 of {blocks * components} blocks: more than the {_MOST_BLOCKS} allowed")
        if packets * components * layers * tiles > _MOST_PACKETS:
            raise RequestError(
                f"JPEG 2000 of {packets * components * layers * tiles} packets: more than the {_MOST_PACKETS} allowed"
            )
        most_blocks = max(most_blocks, blocks * components)
        # Which packets of a tile were met: two bytes each, as many for every level as the level of most has.
        kept_bytes = max(kept_bytes, 2 * (_MOST_LEVELS + 1) * packets * components * layers)
    # Coefficients are of four bytes, and there is a copy of some components at the end.
    kept_bytes += 4 * components * width * height + _TILE_BYTES * tiles + _BLOCK_BYTES * most_blocks
    return Announced(width, height, kept_bytes=kept_bytes)


class _Segment(NamedTuple):
    marker: int
    start: int
    end: int


def _segments(encoded: bytes, at: int) -> Iterator[_Segment]:
    """Yield the segments of the header and those of each part of a tile, to the end of the code stream."""
    part_end = 0
    for _ in range(_MOST_SEGMENTS):
        if at + 2 > len(encoded):
            raise RequestError(f"truncated JPEG 2000: {len(encoded)} bytes without an end-of-codestream marker")
        marker = unpack_from(">H", encoded, at)[0]
        if marker == _END:
            return
        if marker == _DATA:
            # A part without a length is the last; the two bytes that end the code stream are in no packet.
            end = part_end or encoded.rfind(b"\xff\xd9", at)
            at = end if end > at else len(encoded)
            continue
        length = unpack_from(">H", encoded, at + 2)[0]
        if marker < 0xFF00 or length < 2:
            raise RequestError(f"corrupt JPEG 2000: no segment at byte {at} of {len(encoded)}")
        if marker == _TILE:
            part = unpack_from(">I", encoded, at + 6)[0]
            part_end = at + part if part else 0
        if at + 2 + length > len(encoded):
            raise error
        yield _Segment(marker, at + 4, at + 2 + length)
        at += 2 + length
    raise RequestError(f"corrupt JPEG 2000: more than {_MOST_SEGMENTS} segments")


def _precincts(encoded: bytes, at: int, end: int, style: int, tile: tuple[int, int]) -> int:
    """Count the precincts of one component of a tile, each of which has a packet per layer."""
    levels = min(encoded[at], _MOST_LEVELS)
    precincts = 0
    for level in range(levels + 1):
        precinct = encoded[at + 5 + level] if style & 1 and at + 5 + level < end else 0xFF
        across, down = ((-(-side >> levels - level) or 1) for side in tile)
        # One more on each side where a tile does not begin with a precinct.
        precincts += ((across - 1 >> (precinct & 15)) + 2) * ((down - 1 >> (precinct >> 4)) + 2)
    return precincts


def _blocks(encoded: bytes, at: int, end: int, style: int, size: tuple[int, int]) -> int:
    """Count the blocks of one component as its coding style, whose levels stand at `at`, divides it."""
    levels, wide, tall = unpack_from(">3B", encoded, at)
    levels, wide, tall = min(levels, _MOST_LEVELS), (wide & 15) + 2, (tall & 15) + 2
    blocks = 0
    for level in range(levels + 1):
        shrunk = levels - level
        # A precinct limits its blocks; above the lowest level it lies over bands of half the size.
        precinct = encoded[at + 5 + level] if style & 1 and at + 5 + level < end else 0xFF
        limits = [max(limit - (level > 0), 0) for limit in (precinct & 15, precinct >> 4)]
        width, height = min(wide, limits[0]), min(tall, limits[1])
        across, down = (-(-side >> shrunk) or 1 for side in size)
        blocks += -(-across >> width) * -(-down >> height)
    return blocks
