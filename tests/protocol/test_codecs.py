"""The table of codecs: one per protocol version, and each entry is read by one of them, whatever it holds."""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_serving.protocol import (
    CODECS,
    DEFAULT_LIMITS,
    codecs,
    columns,
    decode_request,
    encode_result,
    identify,
    native,
)
from beam_serving.protocol.codec import Codec
from beam_serving.records import Answer, Failure, Origin, ProtocolVersion, Result

JPEG = base64.b64encode(b"\xff\xd8\xff\xe0")

NAMES = st.sampled_from([b"uri", b"image", b"data", b"serde", b"tensor:", b"x"])
FIELDS = st.dictionaries(NAMES, st.binary(max_size=8))


def test_each_protocol_version_has_one_codec() -> None:
    protocols = [codec.protocol for codec in CODECS]
    assert len(set(protocols)) == len(protocols)
    assert set(ProtocolVersion) <= set(protocols)


def test_one_more_version_is_a_row_and_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose module would hold what stands here."""
    upper = Codec(
        "upper",
        lambda names: b"UPPER" in names,
        lambda fields, _: {"x": np.frombuffer(fields[b"UPPER"], np.uint8)},
        lambda answer: {b"UPPER": str(*answer.outputs).upper().encode()},
        lambda reason: {b"UPPER": reason.upper().encode()},
    )
    monkeypatch.setattr(codecs, "CODECS", (upper, *CODECS))
    monkeypatch.setattr(codecs, "_BY_PROTOCOL", {codec.protocol: codec for codec in codecs.CODECS})

    payload = decode_request({b"uri": b"a", b"UPPER": b"ab"})
    origin = Origin(b"s", b"1-1", payload.uri, payload.protocol)

    assert (payload.protocol, payload.inputs["x"].tolist()) == ("upper", [97, 98])  # type: ignore[union-attr]
    assert encode_result(Result(origin, Answer({"y": np.ones(1)})))[b"UPPER"] == b"Y"
    assert encode_result(Result(origin, Failure("no")))[b"UPPER"] == b"NO"
    assert decode_request({b"uri": b"a", b"image": JPEG}).protocol == ProtocolVersion.IMAGE


def test_what_one_more_version_reads_is_not_decoded_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = [b"uri", b"a", b"tensor:x", bytes(4), b"dtype:x", b"float32", b"shape:x", b"1"]
    marked = [*entry, b"v", b"2"]
    second = Codec("second", lambda names: b"v" in names, native.decode_inputs, native.encode_answer, lambda _: {})
    monkeypatch.setattr(codecs, "CODECS", (second, *CODECS))
    columns._form.cache_clear()

    groups, rest = columns.decode_alike([marked, entry, marked, entry], DEFAULT_LIMITS)

    assert [group.places for group in groups] == [[1, 3]]
    assert rest == [0, 2]
    assert decode_request(dict(zip(marked[::2], marked[1::2], strict=True))).protocol == "second"
    columns._form.cache_clear()


@given(fields=FIELDS)
def test_whoever_matches_first_is_whose_request_it_is(fields: dict[bytes, bytes]) -> None:
    expected = (
        ProtocolVersion.IMAGE
        if b"image" in fields
        else ProtocolVersion.ARROW
        if b"data" in fields
        else ProtocolVersion.NATIVE
    )

    assert next(codec for codec in CODECS if codec.matches(fields)).protocol == expected
    assert identify(fields).protocol == expected


@given(reason=st.text(min_size=1), version=st.sampled_from(ProtocolVersion))
def test_a_failure_has_an_error_for_every_client(reason: str, version: ProtocolVersion) -> None:
    origin = Origin(b"s", b"1-1", b"u", version)

    assert encode_result(Result(origin, Failure(reason)))[b"error"]
