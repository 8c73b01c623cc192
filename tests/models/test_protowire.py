"""The wire reader gives what was written, as views, and names the place of whatever is broken."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_serving.models.formats.protowire import MAX_DEPTH, Field, ProtoError, Span, fields, map_file

int64 = st.integers(-(1 << 63), (1 << 63) - 1)
float32 = st.floats(width=32, allow_nan=False)


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(encoded) + bytes([value])


def block(field: int, contents: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(contents)) + contents


def read(message: bytes) -> list[Field]:
    return list(fields(Span(memoryview(message))))


@given(st.integers(1, (1 << 29) - 1), int64)
def test_an_integer_comes_back(field: int, value: int) -> None:
    (item,) = read(varint(field << 3) + varint(value))
    assert (item.number, item.integer(), item.boolean()) == (field, value, value != 0)


@given(st.lists(int64, max_size=50))
def test_packed_integers_come_back(values: list[int]) -> None:
    (item,) = read(block(3, b"".join(varint(value) for value in values)))
    assert item.integers().tolist() == values


@given(st.lists(float32, min_size=1, max_size=50), st.integers(1, 5000))
def test_floats_come_back_packed_and_one_by_one(values: list[float], field: int) -> None:
    encoded = [struct.pack("<f", value) for value in values]
    (packed,) = read(block(field, b"".join(encoded)))
    (single,) = read(b"".join(varint(field << 3 | 5) + value for value in encoded))
    assert packed.floats().tolist() == single.floats().tolist() == values
    assert single.float32() == values[-1]


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=50))
def test_doubles_come_back_packed_and_one_by_one(values: list[float]) -> None:
    encoded = [struct.pack("<d", value) for value in values]
    (packed,) = read(block(3, b"".join(encoded)))
    (single,) = read(b"".join(varint(3 << 3 | 1) + value for value in encoded))
    assert packed.doubles().tolist() == single.doubles().tolist() == values


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_one_error(message: bytes) -> None:
    offsets = []
    try:
        offsets.extend(item.offset for item in fields(Span(memoryview(message), 1000)))
    except ProtoError as err:
        offsets.append(err.offset)
    assert all(1000 <= offset <= 1000 + len(message) for offset in offsets)


def test_fields_come_in_order_with_their_offsets() -> None:
    items = read(b"\x08\x01" + block(2, b"abc") + b"\x15\x00\x00\x80\x3f" + b"\x08\x02")
    assert [(item.number, item.offset) for item in items] == [(1, 0), (2, 2), (2, 7), (1, 12)]
    assert items[1].text() == "abc"
    assert items[2].float32() == 1.0


def test_weights_are_views_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(block(2, np.arange(1000, dtype="<f4").tobytes()))
    (item,) = list(fields(map_file(path)))
    values = item.floats()
    assert not values.flags.owndata
    assert not values.flags.writeable
    assert values.tolist() == list(range(1000))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x08", "unfinished varint at byte 1"),
        (b"\x08" + b"\xff" * 11, "unfinished varint at byte 1"),
        (b"\x00\x01", "field number 0 at byte 0"),
        (b"\x0b", "wire type 3 of field 1 at byte 0"),
        (b"\x0f", "wire type 7 of field 1 at byte 0"),
        (b"\x08\x01\x12\x05ab", "field 2 ends 3 bytes behind its message at byte 2"),
        (b"\x0d\x00\x00", "field 1 ends 2 bytes behind its message at byte 0"),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "field 2 ends 9223372036854775807 bytes behind its message"),
        (b"\x8d\x00\x00\x00\x00\x00", "overlong tag of field 1 at byte 0"),
    ],
)
def test_broken_bytes_are_named(message: bytes, reason: str) -> None:
    with pytest.raises(ProtoError, match=reason):
        read(message)


def test_a_value_of_another_kind_is_refused() -> None:
    number, text = read(b"\x08\x01" + block(2, b"\xff\xfe"))
    with pytest.raises(ProtoError, match="field 1 has wire type 0, not 2 at byte 0"):
        number.text()
    with pytest.raises(ProtoError, match="field 2 has wire type 2, not an integer at byte 2"):
        text.integer()
    with pytest.raises(ProtoError, match="field 2 is not UTF-8 text"):
        text.text()
    with pytest.raises(ProtoError, match="field 2 holds 2 bytes of float32"):
        text.floats()


def test_more_packed_integers_than_expected_are_refused() -> None:
    (item,) = read(block(1, b"\x01" * 100))
    with pytest.raises(ProtoError, match="100 packed integers, at most 99 are expected"):
        item.integers(limit=99)


def test_an_overlong_packed_integer_is_refused() -> None:
    (item,) = read(block(1, b"\xff" * 10 + b"\x01"))
    with pytest.raises(ProtoError, match="overlong varint"):
        item.integers()


def test_nesting_is_limited() -> None:
    message = b""
    for _ in range(MAX_DEPTH + 1):
        message = block(2, message)
    span = Span(memoryview(message))
    for _ in range(MAX_DEPTH):
        (item,) = fields(span)
        span = item.message()
    (item,) = fields(span)
    with pytest.raises(ProtoError, match=f"nested deeper than {MAX_DEPTH}"):
        item.message()


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    with pytest.raises(ProtoError, match="the file is empty"):
        map_file(path)
