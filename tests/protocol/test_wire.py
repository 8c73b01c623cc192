"""Where a result goes, whose a request is, and how hashes are read back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.errors import ResultError
from beam_serving.protocol import Identity, Limits, encode_result, identify, result_key
from beam_serving.protocol.replies import decode_reply
from beam_serving.records import Answer, Origin, ProtocolVersion, Result, TopClasses

NAME_OF_FIELD = some.sampled_from([b"value", b"labels", b"tensor:", b"dtype:", b"shape:"])
VALUE = some.sampled_from([b"float32", b"2", b"[[1]]", b'{"a":1}', b'{"1":"x"}', b"[1,2]", b"NaN", b"null"])


def test_every_generation_finds_its_result() -> None:
    assert result_key(ProtocolVersion.IMAGE, b"image_stream", b"a:b") == b"result:a:b"
    assert result_key(ProtocolVersion.IMAGE, b"other", b"a:b") == b"cluster-serving_other:a:b"
    for protocol in (ProtocolVersion.ARROW, ProtocolVersion.NATIVE):
        assert result_key(protocol, b"s", b"a:b") == b"cluster-serving_s:a:b"


def test_a_request_is_identified_without_being_decoded() -> None:
    assert identify({b"uri": b"a", b"image": b"", b"id": b"1"}) == Identity(b"a", ProtocolVersion.IMAGE, b"1")
    assert identify({b"uri": b"a", b"data": b""}) == Identity(b"a", ProtocolVersion.ARROW, b"")
    assert identify({b"image:": b""}) == Identity(b"", ProtocolVersion.NATIVE, b"")
    assert identify({b"uri": b"abc"}, Limits(max_uri_bytes=2)) == Identity(b"", ProtocolVersion.NATIVE, b"")


@pytest.mark.parametrize("protocol", list(ProtocolVersion))
def test_a_result_repeats_the_id_of_its_request(protocol: ProtocolVersion) -> None:
    answer = Answer({"p": TopClasses(np.array([1]), np.array([0.5], np.float32))})
    origin = Origin(b"s", b"1-1", b"a", protocol, b"id1")
    assert encode_result(Result(origin, answer))[b"id"] == b"id1"
    assert b"id" not in encode_result(Result(origin._replace(request_id=b""), answer))


def test_classes_go_by_label_where_asked_for() -> None:
    fields = {b"value": b"[[2,0.5],[0,0.25],[9,0.1]]", b"labels": b'["cat","dog",null]'}
    assert decode_reply(fields) == {2: 0.5, 0: 0.25, 9: 0.1}
    assert decode_reply(fields, by_label=True) == {"cat": 0.5, "dog": 0.25, "9": 0.1}
    del fields[b"labels"]
    assert decode_reply(fields, by_label=True) == {2: 0.5, 0: 0.25, 9: 0.1}


def test_labels_of_several_outputs_go_by_name() -> None:
    fields = {b"value": b'{"p":[[0,0.5]],"q":[[1,0.5]]}', b"labels": b'{"p":["cat"],"q":["dog"]}'}
    assert decode_reply(fields, by_label=True) == {"p": {"cat": 0.5}, "q": {"dog": 0.5}}


def test_best_classes_and_whole_outputs_come_together() -> None:
    answer = Answer({"p": TopClasses(np.array([1]), np.array([0.5], np.float32)), "q": np.arange(2)})
    reply = decode_reply(encode_result(Result(Origin(b"s", b"1-1", b"a", ProtocolVersion.NATIVE), answer)))
    assert isinstance(reply, dict)
    assert reply["p"] == {1: 0.5}  # type: ignore[index]
    assert reply["q"].tolist() == [0, 1]  # type: ignore[index, union-attr]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({b"error": b"no image"}, "no image"),
        ({b"error": b"no image", b"value": b"NaN"}, "no image"),
        ({b"value": b"NaN"}, "the service failed on this request and gave no reason"),
        ({b"x": b""}, "result is not readable: it has no value, its fields are [b'x']"),
        ({b"tensor:": bytes(3), b"dtype:": b"int8", b"shape:": b"4"},
         "result is not readable: payload is 3 bytes, int8[4] needs 4"),
    ],
)  # fmt: skip
def test_what_is_no_result_is_an_error(fields: dict[bytes, bytes], message: str) -> None:
    with pytest.raises(ResultError) as caught:
        decode_reply(fields)
    assert str(caught.value) == message


@given(some.dictionaries(NAME_OF_FIELD, VALUE | some.binary()), some.booleans())
def test_a_hash_of_garbage_raises_nothing_but_result_error(fields: dict[bytes, bytes], by_label: bool) -> None:
    try:
        decode_reply(fields, by_label)
    except ResultError as err:
        assert str(err)  # noqa: PT017 - most garbage is refused, some of it is a result
