"""Writes BigDL model files field by field, also such as the library never would."""

import struct
from collections.abc import Iterable
from pathlib import Path

PACKAGE = "com.intel.analytics.bigdl.nn."
INT32, STRING, TENSOR, MODULE, NAME_ATTR_LIST, ARRAY = 0, 4, 10, 13, 14, 15


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(encoded) + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, contents: bytes | str) -> bytes:
    contents = contents.encode() if isinstance(contents, str) else contents
    return varint(field << 3 | 2) + varint(len(contents)) + contents


def integer(value: int) -> bytes:
    return number(1, INT32) + number(3, value)


def integers(values: Iterable[int]) -> bytes:
    packed = b"".join(varint(value) for value in values)
    return number(1, ARRAY) + block(15, number(2, INT32) + block(3, packed))


def texts(values: Iterable[str]) -> bytes:
    return number(1, ARRAY) + block(15, number(2, STRING) + b"".join(block(7, value) for value in values))


def attributes(values: dict[str, bytes], field: int = 8) -> bytes:
    return b"".join(block(field, block(1, key) + block(2, value)) for key, value in values.items())


def tensor(
    sizes: Iterable[int],
    strides: Iterable[int],
    storage_id: int,
    values: Iterable[float] | None = None,
    offset: int = 1,
) -> bytes:
    """A BigDLTensor; with `values` its storage holds the data, as in files of BigDL 0.5."""
    data = b"" if values is None else b"".join(struct.pack("<f", value) for value in values)
    storage = number(1, 2) + (block(2, data) if data else b"") + number(9, storage_id)
    packed = [b"".join(varint(value) for value in axis) for axis in (sizes, strides)]
    return number(1, 2) + block(2, packed[0]) + block(3, packed[1]) + number(4, offset) + block(8, storage)


def module(
    kind: str,
    name: str = "",
    children: Iterable[bytes] = (),
    attrs: dict[str, bytes] | None = None,
    before: Iterable[str] = (),
    more: bytes = b"",
) -> bytes:
    contents = block(1, name) + block(7, PACKAGE + kind) + attributes(attrs or {}) + more
    contents += b"".join(block(2, child) for child in children)
    return contents + b"".join(block(5, predecessor) for predecessor in before)


def write(path: Path, contents: bytes) -> Path:
    path.write_bytes(contents)
    return path
