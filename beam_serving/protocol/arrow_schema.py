"""What an Arrow schema and record batch say, read before pyarrow builds anything of them.

Both are flatbuffers, in which any number of places may name one table, text or vector: a kilobyte can stand for a tree
of billions of fields, and every field may have the same name of a megabyte. So they are walked as the trees that
pyarrow would build, and only what a request may hold is passed on. Facts from Message.fbs and Schema.fbs of the Arrow
format; whatever lies outside of the bytes is a `struct.error`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from struct import error, unpack_from

import numpy as np

from beam_serving.errors import RequestError
from beam_serving.protocol.limits import Limits

_MOST_REMEMBERED_BYTES = 8192
_MOST_PAIRS = 64
_MOST_METADATA_BYTES = 1 << 20
_MOST_BUFFERS = 32
"""Per column: a tensor of four lists has 13, a text 3."""
_TIMESTAMP, _UNION = 10, 14
_LARGE_KINDS = frozenset({_TIMESTAMP, _UNION})
"""Types that have texts or numbers of any length themselves, a time zone and codes."""
_MOST_CHILDREN = (0, 16, 4, 1)
"""By depth: a column that is a struct has four lists, and each list one kind of number; others get a better message."""


class Table:
    """A table of a flatbuffer."""

    __slots__ = ("_at", "_data", "_slots", "_vtable")

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._vtable = at - unpack_from("<i", data, at)[0]
        if self._vtable < 0:
            raise error("a vtable before the start")
        self._slots = unpack_from("<H", data, self._vtable)[0]

    def place(self, index: int) -> int | None:
        """Return where a field is stored, None where it is absent."""
        slot = 4 + 2 * index
        offset = unpack_from("<H", self._data, self._vtable + slot)[0] if slot < self._slots else 0
        return self._at + offset if offset else None

    def byte(self, index: int) -> int:
        """Return a field of one byte; 0 where it is absent."""
        place = self.place(index)
        return unpack_from("<B", self._data, place)[0] if place is not None else 0

    def table(self, index: int) -> Table | None:
        """Return a field that is a table."""
        place = self.place(index)
        return None if place is None else Table(self._data, place + unpack_from("<I", self._data, place)[0])

    def text_bytes(self, index: int) -> int:
        """Return the length of a field that is text."""
        return self.vector(index)[1]

    def vector(self, index: int) -> tuple[int, int]:
        """Return where the items of a vector (or the bytes of a text) start, and how many there are."""
        place = self.place(index)
        if place is None:
            return 0, 0
        at = place + unpack_from("<I", self._data, place)[0]
        return at + 4, unpack_from("<I", self._data, at)[0]

    def tables(self, index: int, most: int, what: str) -> Iterator[Table]:
        """Yield the tables of a vector.

        Raises:
            RequestError: there are more than `most`.
        """
        start, count = self.vector(index)
        if count > most:
            raise RequestError(f"Arrow schema has {count} {what}, at most {most} are served")
        for at in range(start, start + 4 * count, 4):
            yield Table(self._data, at + unpack_from("<I", self._data, at)[0])


def root(message: bytes) -> Table:
    """Return the header of a message: its schema or record batch.

    Raises:
        RequestError: it has none.
    """
    header = Table(message, unpack_from("<I", message, 0)[0]).table(2)
    if header is None:
        raise RequestError("Arrow message has no header")
    return header


def check_schema(message: bytes, limits: Limits) -> None:
    """Refuse a schema, see `_check_schema`; clients send few different ones, which are remembered."""
    if len(message) <= _MOST_REMEMBERED_BYTES:
        _check_known(message, limits)
    else:
        _check_schema(message, limits)


def _check_schema(message: bytes, limits: Limits) -> None:
    """Refuse a schema of which pyarrow would build more than a request may hold.

    Raises:
        RequestError: too many fields or texts, a name that is too long, or a type that no request has.
        struct.error: it is no schema.
    """
    schema = root(message)
    metadata = _check_pairs(schema, 2, 0)
    _, count = schema.vector(1)
    if not 0 < count <= limits.max_fields:
        raise RequestError(f"Arrow schema has {count} columns, wanted are 1 to {limits.max_fields}")
    for field in schema.tables(1, limits.max_fields, "columns"):
        metadata = _check_field(field, limits, 1, metadata)


_check_known = lru_cache(maxsize=64)(_check_schema)


def _check_field(field: Table, limits: Limits, depth: int, metadata: int) -> int:
    if (size := field.text_bytes(0)) > limits.max_name_bytes:
        raise RequestError(f"input name is {size} bytes, at most {limits.max_name_bytes} are served")
    if field.byte(2) in _LARGE_KINDS or field.place(4) is not None:
        raise RequestError("Arrow schema has a column of a type that is no string and no struct of lists of numbers")
    metadata = _check_pairs(field, 6, metadata)
    most = _MOST_CHILDREN[depth] if depth < len(_MOST_CHILDREN) else 0
    for child in field.tables(5, most, "fields in one field"):
        metadata = _check_field(child, limits, depth + 1, metadata)
    return metadata


def _check_pairs(table: Table, index: int, seen_bytes: int) -> int:
    for pair in table.tables(index, _MOST_PAIRS, "pairs of metadata"):
        seen_bytes += pair.text_bytes(0) + pair.text_bytes(1)
        if seen_bytes > _MOST_METADATA_BYTES:
            raise RequestError(f"Arrow schema has metadata of more than {_MOST_METADATA_BYTES} bytes")
    return seen_bytes


def check_batch(message: bytes, body_bytes: int, columns: int) -> None:
    """Refuse a record batch that is compressed, or whose buffers are more than its body: those that share bytes.

    Raises:
        RequestError: it is one of these.
        struct.error: it is no record batch.
    """
    batch = root(message)
    if batch.place(3) is not None:
        raise RequestError("Arrow record batch is compressed, wanted is an uncompressed one")
    start, count = batch.vector(2)
    if count > _MOST_BUFFERS * columns:
        raise RequestError(f"Arrow record batch has {count} buffers, {columns} columns have fewer")
    lengths = np.frombuffer(message, "<i8", 2 * count, start)[1::2] if count else np.zeros(0)
    if (lengths < 0).any() or float(lengths.astype(np.float64).sum()) > body_bytes:
        raise RequestError(f"Arrow record batch has buffers of {int(lengths.sum())} bytes, its body is {body_bytes}")
