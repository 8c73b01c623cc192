"""As much of protobuf's encoding as Caffe's and BigDL's files need.

Source: protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterable


def varint(value: int) -> bytes:
    """Encode a whole number from 0."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def number(field: int, value: int) -> bytes:
    """Encode a field that holds a whole number."""
    return varint(field << 3) + varint(value)


def block(field: int, contents: bytes | str) -> bytes:
    """Encode a field that holds a text, a message, or packed values."""
    contents = contents.encode() if isinstance(contents, str) else contents
    return varint(field << 3 | 2) + varint(len(contents)) + contents


def numbers(field: int, values: Iterable[int]) -> bytes:
    """Encode a field that holds whole numbers, packed."""
    return block(field, b"".join(map(varint, values)))
