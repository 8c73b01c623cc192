"""The table of codecs: one per protocol version, and each entry is read by one of them, whatever it holds."""

from hypothesis import given
from hypothesis import strategies as st

from beam_serving.protocol import CODECS, encode_result, identify
from beam_serving.records import Failure, Origin, ProtocolVersion, Result

NAMES = st.sampled_from([b"uri", b"image", b"data", b"serde", b"tensor:", b"x"])
FIELDS = st.dictionaries(NAMES, st.binary(max_size=8))


def test_each_generation_has_one_codec() -> None:
    assert sorted(codec.protocol.value for codec in CODECS) == sorted(known.value for known in ProtocolVersion)


@given(fields=FIELDS)
def test_whoever_matches_first_is_whose_request_it_is(fields: dict[bytes, bytes]) -> None:
    expected = (
        ProtocolVersion.IMAGE
        if b"image" in fields
        else ProtocolVersion.ARROW
        if b"data" in fields
        else ProtocolVersion.NATIVE
    )

    assert next(codec for codec in CODECS if codec.matches(fields)).protocol is expected
    assert identify(fields).protocol is expected


@given(reason=st.text(min_size=1), protocol=st.sampled_from(ProtocolVersion))
def test_a_failure_has_an_error_for_every_client(reason: str, protocol: ProtocolVersion) -> None:
    origin = Origin(b"s", b"1-1", b"u", protocol)

    assert encode_result(Result(origin, Failure(reason)))[b"error"]
