"""The format of Cluster Serving 0.7 and 0.8."""

import base64
import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.errors import RequestError
from beam_serving.protocol import decode_request, encode_result, image
from beam_serving.protocol.replies import decode_reply
from beam_serving.records import Answer, Failure, Image, Origin, Payload, ProtocolVersion, Result, TopClasses

ORIGIN = Origin(b"image_stream", b"1-1", b"a", ProtocolVersion.IMAGE)
TOP = TopClasses(np.array([7, 2]), np.array([0.75, 0.125], np.float32))


@given(some.binary(min_size=1))
def test_an_image_comes_back_as_it_was_sent(encoded: bytes) -> None:
    fields = image.encode_request(b"a", b"id1", Image(encoded))
    assert decode_request(fields) == Payload(b"a", {"": Image(encoded)}, ProtocolVersion.IMAGE, b"id1")


@given(some.binary())
def test_garbage_raises_nothing_but_request_error(text: bytes) -> None:
    with contextlib.suppress(RequestError):
        decode_request({b"uri": b"a", b"image": text})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r"^request 'a': field 'image' is empty$"),
        (b"====", r"^request 'a': field 'image' is not base64: "),
        (b"QUJD\n", r"^request 'a': field 'image' is not base64: "),
        (b"QUJ*", r"^request 'a': field 'image' is not base64: "),
        (b"QUJ", r"^request 'a': field 'image' is not base64: "),
    ],
)
def test_what_is_no_strict_base64_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        decode_request({b"uri": b"a", b"image": text})


def test_a_request_of_two_generations_is_refused() -> None:
    fields = {b"uri": b"a", b"image": base64.b64encode(b"x"), b"data": b"x"}
    with pytest.raises(RequestError, match=r"^request 'a': both 'image' and 'data' are there, wanted is one of them$"):
        decode_request(fields)


def test_best_classes_are_an_object_of_strings_best_first() -> None:
    assert encode_result(Result(ORIGIN, Answer({"p": TOP}))) == {b"value": b'{"7":"0.75","2":"0.125"}'}


def test_several_outputs_go_by_name() -> None:
    value = image.encode_answer(Answer({"p": TOP, "q": np.array([[0.5]], np.float32)}))[b"value"]
    assert value == b'{"p":{"7":"0.75","2":"0.125"},"q":{"0":"0.5"}}'
    assert decode_reply({b"value": value}) == {"p": {7: 0.75, 2: 0.125}, "q": {0: 0.5}}


def test_where_0_8_is_asked_for_the_text_is_lists() -> None:
    pairs = image.encode_answer(Answer({"p": TOP}, as_lists=True))[b"value"]
    assert pairs == b"[[7,0.75],[2,0.125]]"
    assert decode_reply({b"value": pairs}) == {7: 0.75, 2: 0.125}
    both = image.encode_answer(Answer({"p": TOP, "q": np.ones(1)}, as_lists=True))[b"value"]
    assert both == b'{"p":[[7,0.75],[2,0.125]],"q":[1.0]}'


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2), (3,), (2, 0), (1, 1)])
def test_a_tensor_is_nested_lists(shape: tuple[int, ...], dtype: type) -> None:
    tensor = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    value = image.encode_answer(Answer({"p": tensor}, as_lists=True))[b"value"]
    assert json.loads(value) == tensor.tolist()
    np.testing.assert_array_equal(decode_reply({b"value": value}), tensor)


def test_numbers_in_nested_lists_are_short_and_valid_json() -> None:
    tensor = np.array([[0.1, np.nan], [np.inf, 1e-10]], np.float32)
    value = image.encode_answer(Answer({"p": tensor}, as_lists=True))[b"value"]
    assert value == b"[[0.1,null],[null,1e-10]]"


@pytest.mark.parametrize(("number", "text"), [(2.0, b"[2.0]"), (float("nan"), b"[null]")])
def test_a_number_that_stands_alone_is_a_list_of_one(number: float, text: bytes) -> None:
    fields = image.encode_answer(Answer({"p": np.array(number)}, as_lists=True))
    assert fields == {b"value": text}
    np.testing.assert_array_equal(decode_reply(fields), [number])  # type: ignore[arg-type]


def test_scores_that_are_no_numbers_are_strings_that_clients_can_parse() -> None:
    top = TopClasses(np.arange(3), np.array([np.inf, -np.inf, np.nan]))
    value = image.encode_answer(Answer({"p": top}))[b"value"]
    assert value == b'{"0":"Infinity","1":"-Infinity","2":"NaN"}'
    reply = decode_reply({b"value": value})
    assert isinstance(reply, dict)
    assert str(list(reply.values())) == "[inf, -inf, nan]"


def test_a_failure_is_json_with_its_reason() -> None:
    fields = encode_result(Result(ORIGIN, Failure('no "image"')))
    assert json.loads(fields[b"value"]) == {"error": 'no "image"'}
    assert fields[b"error"] == b'no "image"'
