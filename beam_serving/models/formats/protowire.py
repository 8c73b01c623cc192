"""Reads the protobuf wire format from a mapped file without copying and without generated classes.

    for field in fields(map_file(path)):
        if field.number == 1:
            name = field.text()
        elif field.number == 7:
            weights = field.floats()        # a numpy view of the file

Source: the protobuf encoding specification (varints, tags, packed and unpacked repeated fields). Whatever is wrong
with the bytes is a `ProtoError` that names the offset in the file. Nothing is allocated that the file does not hold:
big values are views, and decoded integers are limited by the caller.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

MAX_DEPTH = 100
"""Messages inside messages; protobuf's own limit, so the original libraries read nothing deeper either."""

MAX_INTEGERS = 1 << 20
"""Packed integers decoded from one field unless the caller asks for more: shapes and options are far smaller."""

_Number = TypeVar("_Number", np.float32, np.float64)
_MAX_FIELD_NUMBER = (1 << 29) - 1
_VARINT_BYTES = 10
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}


class ProtoError(ValueError):
    """The bytes are not a protobuf message, or not one of the expected kind; `offset` is the place in the file."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(f"{reason} at byte {offset}")
        self.offset = offset


class Span(NamedTuple):
    """A piece of the file, uncopied: `view` (bytes), `offset` of its first byte in the file, `depth` of nesting."""

    view: memoryview
    offset: int = 0
    depth: int = 0


class Field(NamedTuple):
    """One field of a message.

    `value` is an unsigned int for a varint, the contents for a length-delimited field, and for fixed-size values a
    run of one or more records (tag and value) of the same field: an unpacked repeated field is a single `Field`.
    """

    number: int
    wire_type: int
    value: int | Span
    offset: int

    def integer(self) -> int:
        """Return the value as a signed 64-bit integer (int32, int64, enum)."""
        value = self._varint()
        return value - (1 << 64) if value >= 1 << 63 else value

    def boolean(self) -> bool:
        return self._varint() != 0

    def message(self) -> Span:
        """Return the contents of a nested message.

        Raises ProtoError when it is nested deeper than `MAX_DEPTH`.
        """
        span = self._span(LENGTH)
        if span.depth >= MAX_DEPTH:
            raise ProtoError(f"messages nested deeper than {MAX_DEPTH}", self.offset)
        return span._replace(depth=span.depth + 1)

    def contents(self) -> memoryview:
        """Return the bytes of a length-delimited field."""
        return self._span(LENGTH).view

    def text(self) -> str:
        try:
            return str(self._span(LENGTH).view, "utf-8")
        except UnicodeDecodeError as err:
            raise ProtoError(f"field {self.number} is not UTF-8 text", self.offset) from err

    def float32(self) -> float:
        """Return the value of a single float; the last one of a run, as protobuf has it."""
        return float(self.floats()[-1])

    def float64(self) -> float:
        """Return the value of a single double; the last one of a run, as protobuf has it."""
        return float(self.doubles()[-1])

    def floats(self) -> npt.NDArray[np.float32]:
        """Repeated floats, packed or not, as a view of the file (maybe unaligned)."""
        return self._fixed(FIXED32, np.dtype(np.float32).newbyteorder("<"))

    def doubles(self) -> npt.NDArray[np.float64]:
        """Repeated doubles, packed or not, as a view of the file (maybe unaligned)."""
        return self._fixed(FIXED64, np.dtype(np.float64).newbyteorder("<"))

    def integers(self, limit: int = MAX_INTEGERS) -> npt.NDArray[np.int64]:
        """Repeated integers: those of a packed field, or the single one of an unpacked occurrence.

        Raises ProtoError for more than `limit` of them.
        """
        if self.wire_type == VARINT:
            return np.array([self.integer()], np.int64)
        return _unpack_varints(self._span(LENGTH), limit)

    def _varint(self) -> int:
        if isinstance(self.value, Span):
            raise ProtoError(f"field {self.number} has wire type {self.wire_type}, not an integer", self.offset)
        return self.value

    def _span(self, wire_type: int) -> Span:
        if not isinstance(self.value, Span) or self.wire_type != wire_type:
            raise ProtoError(f"field {self.number} has wire type {self.wire_type}, not {wire_type}", self.offset)
        return self.value

    def _fixed(self, wire_type: int, dtype: np.dtype[_Number]) -> npt.NDArray[_Number]:
        if self.wire_type == LENGTH:
            view = self._span(LENGTH).view
            if not view or len(view) % dtype.itemsize:
                raise ProtoError(f"field {self.number} holds {len(view)} bytes of {dtype.name}", self.offset)
            return np.frombuffer(view, dtype)
        view = self._span(wire_type).view
        tag_bytes = _tag_bytes(self.number)
        records = np.frombuffer(view, np.dtype([("tag", np.uint8, (tag_bytes,)), ("value", dtype)]))
        values: npt.NDArray[_Number] = records["value"]
        return values


def map_file(path: Path) -> Span:
    """Map a file into memory; the mapping lives as long as a view of it.

    Raises OSError, and ProtoError when the file is empty.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise ProtoError("the file is empty", 0)
        return Span(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


def fields(message: Span) -> Iterator[Field]:
    """Yield the fields of a message in the order of the file.

    Raises ProtoError for a broken tag, length or varint, and for the groups of protobuf 1.
    """
    view, base, depth = message
    position, end = 0, len(view)
    while position < end:
        start = position
        tag, position = _varint(view, position, base)
        number, wire_type = tag >> 3, tag & 7
        if not 1 <= number <= _MAX_FIELD_NUMBER:
            raise ProtoError(f"field number {number}", base + start)
        if wire_type == VARINT:
            value, position = _varint(view, position, base)
            yield Field(number, wire_type, value, base + start)
            continue
        if wire_type == LENGTH:
            size, first = _varint(view, position, base)
            position = first + size
        elif wire_type in _FIXED_BYTES:
            if position - start != _tag_bytes(number):
                raise ProtoError(f"overlong tag of field {number}", base + start)
            first = start
            position += _FIXED_BYTES[wire_type]
        else:
            raise ProtoError(f"wire type {wire_type} of field {number}", base + start)
        if position > end:
            raise ProtoError(f"field {number} ends {position - end} bytes behind its message", base + start)
        if wire_type != LENGTH:
            position = _end_of_run(view, first, position)
        yield Field(number, wire_type, Span(view[first:position], base + first, depth), base + start)


def _varint(view: memoryview, position: int, base: int) -> tuple[int, int]:
    """Decode an unsigned varint of at most 64 bits; return it and the position behind it."""
    value = 0
    for index, byte in enumerate(view[position : position + _VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position + index + 1
    raise ProtoError("unfinished varint", base + position)


def _tag_bytes(number: int) -> int:
    return max(1, ((number << 3).bit_length() + 6) // 7)


def _end_of_run(view: memoryview, first: int, second: int) -> int:
    """Where the run of records with the very same tag as the one in [first, second) ends.

    Writers before proto3 stored every float of a weight with a tag of its own: millions of fields, found here by
    comparing the tags' bytes with numpy, in blocks that grow.
    """
    record_bytes = second - first
    tag_bytes = record_bytes - (4 if view[first] & 7 == FIXED32 else 8)
    tag = np.frombuffer(view[first : first + tag_bytes], np.uint8)
    position, block = second, 1
    while (count := min(block, (len(view) - position) // record_bytes)) > 0:
        records = np.frombuffer(view[position : position + count * record_bytes], np.uint8).reshape(count, -1)
        same = (records[:, :tag_bytes] == tag).all(axis=1)
        if not same.all():
            return position + int(same.argmin()) * record_bytes
        position += count * record_bytes
        block = min(block * 8, 1 << 16)
    return position


def _unpack_varints(span: Span, limit: int) -> npt.NDArray[np.int64]:
    """Decode packed varints with numpy, all at once."""
    encoded = np.frombuffer(span.view, np.uint8)
    if len(encoded) == 0:
        return np.empty(0, np.int64)
    last = np.flatnonzero(encoded < 0x80)
    if len(last) > limit:
        raise ProtoError(f"{len(last)} packed integers, at most {limit} are expected", span.offset)
    if len(last) == 0 or last[-1] != len(encoded) - 1:
        raise ProtoError("unfinished varint", span.offset + len(encoded))
    first = np.concatenate(([0], last[:-1] + 1))
    sizes = last - first + 1
    if sizes.max() > _VARINT_BYTES:
        raise ProtoError("overlong varint", span.offset + int(first[sizes.argmax()]))
    values = np.zeros(len(last), np.uint64)
    for index in range(int(sizes.max())):
        longer = np.flatnonzero(sizes > index)
        part = encoded[first[longer] + index].astype(np.uint64) & np.uint64(0x7F)
        values[longer] |= part << np.uint64(7 * index)
    return values.view(np.int64)
