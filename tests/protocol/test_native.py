"""The native format: what a client writes is what the service reads, and back."""

import contextlib

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.errors import ModelError, RequestError
from beam_serving.protocol import Limits, decode_request, encode_result, native
from beam_serving.protocol.replies import decode_reply
from beam_serving.protocol.tensors import DTYPES
from beam_serving.records import Answer, Failure, Image, Origin, ProtocolVersion, Result, TopClasses

ORIGIN = Origin(b"s", b"1-1", b"a", ProtocolVersion.NATIVE, b"id1")
NAMES = some.text(some.characters(exclude_categories=["Cs"]), max_size=20)
TENSORS = arrays.arrays(
    some.sampled_from(list(DTYPES.values())), arrays.array_shapes(min_dims=0, max_dims=4, max_side=4)
)


def top(classes: list[int], scores: list[float], dtype: str = "float32") -> TopClasses:
    return TopClasses(np.array(classes, np.int64), np.array(scores, dtype))


def tensor_request(**changes: bytes) -> dict[bytes, bytes]:
    """Gives the fields of a good request of two float32 values, with some of them changed."""
    fields = {"uri": b"a", "tensor:": bytes(8), "dtype:": b"float32", "shape:": b"2"}
    return {name.encode(): value for name, value in {**fields, **changes}.items()}


def refusal(fields: dict[bytes, bytes], limits: Limits | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        decode_request(fields, limits or Limits())
    return str(caught.value)


@given(some.dictionaries(NAMES, TENSORS | some.binary(min_size=1).map(Image), min_size=1, max_size=4))
def test_inputs_come_back_as_they_were_sent(inputs: dict[str, Image | np.ndarray]) -> None:
    payload = decode_request(native.encode_request(b"a", b"id1", inputs))
    assert (payload.uri, payload.request_id, payload.protocol) == (b"a", b"id1", ProtocolVersion.NATIVE)
    assert list(payload.inputs) == list(inputs)
    for name, sent in inputs.items():
        came = payload.inputs[name]
        if isinstance(sent, Image) or isinstance(came, Image):
            assert came == sent
        else:
            assert came.dtype == sent.dtype
            np.testing.assert_array_equal(came, sent)


@given(some.binary(min_size=1, max_size=50))
def test_a_uri_is_any_bytes(uri: bytes) -> None:
    assert decode_request(native.encode_request(uri, b"", {"": np.zeros(1)})).uri == uri


@given(
    some.dictionaries(
        some.sampled_from([b"uri", b"tensor:", b"dtype:", b"shape:", b"image:x", b"tensor:\xff"]) | some.binary(),
        some.sampled_from([b"float32", b"1", b"2,2", b"object", b"-1"]) | some.binary(),
    )
)
def test_garbage_raises_nothing_but_request_error(fields: dict[bytes, bytes]) -> None:
    with contextlib.suppress(RequestError):
        decode_request(fields)


def test_a_tensor_is_a_view_on_the_bytes_that_came() -> None:
    raw = np.arange(6, dtype="<f4").tobytes()
    tensor = decode_request(tensor_request(**{"tensor:": raw, "shape:": b"2,3"})).inputs[""]
    assert tensor.base is raw
    assert not tensor.flags.writeable


def test_an_empty_shape_is_a_scalar() -> None:
    tensor = decode_request(tensor_request(**{"tensor:": bytes(4), "shape:": b""})).inputs[""]
    assert tensor.shape == ()


def test_bytes_of_a_bool_become_true_or_false() -> None:
    fields = tensor_request(**{"tensor:": b"\x00\x02", "dtype:": b"bool"})
    assert decode_request(fields).inputs[""].view(np.uint8).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensor:": bytes(7)}, "request 'a': payload is 7 bytes, float32[2] needs 8"),
        ({"tensor:": b""}, "request 'a': payload is 0 bytes, float32[2] needs 8"),
        (
            {"shape:": b"0,3"},
            "request 'a': shape is '0,3', every dimension must be at least 1",
        ),
        ({"shape:": b"-2"}, "request 'a': shape is '-2', wanted are whole numbers from 1 joined by commas"),
        ({"shape:": b"1_0"}, "request 'a': shape is '1_0', wanted are whole numbers from 1 joined by commas"),
        (
            {"shape:": b"999999999999999999,999999999999999999"},
            "request 'a': payload is 8 bytes, float32[999999999999999999,999999999999999999] "
            "needs 3999999999999999992000000000000000004",
        ),
        ({"shape:": b",".join([b"1"] * 33)}, "request 'a': shape has 33 dimensions, at most 32 are served"),
    ],
)
def test_a_tensor_that_is_not_what_its_fields_say_is_refused(changes: dict[str, bytes], message: str) -> None:
    assert refusal(tensor_request(**changes)) == message


@pytest.mark.parametrize("dtype", [b">f4", b"object", b"O", b"float128", b"complex64", b"U8", b"", b"M8[s]"])
def test_only_plain_little_endian_numbers_are_read(dtype: bytes) -> None:
    assert refusal(tensor_request(**{"dtype:": dtype})) == (
        f"request 'a': dtype is {dtype.decode()!r}, wanted is one of bool, int8, int16, int32, int64, "
        "uint8, uint16, uint32, uint64, float16, float32, float64"
    )


def test_a_named_input_is_named_in_the_message() -> None:
    fields = {b"uri": b"a", b"tensor:x": bytes(7), b"dtype:x": b"float32", b"shape:x": b"2"}
    assert refusal(fields) == "request 'a': input 'x': payload is 7 bytes, float32[2] needs 8"
    del fields[b"shape:x"]
    assert refusal(fields) == "request 'a': input 'x': field 'shape:<name>' of the tensor is missing"


def test_what_is_missing_is_said() -> None:
    assert refusal({b"tensor:": b""}) == "request without uri: field 'uri' is missing, the fields are 'tensor:'"
    assert refusal({}) == "request without uri: field 'uri' is missing, the fields are none"
    assert refusal({b"uri": b"", b"image:": b"x"}) == "request without uri: field 'uri' is empty"
    assert refusal({b"uri": b"a", b"foo": b""}) == (
        "request 'a': payload is missing, wanted is a field 'image:<name>', 'tensor:<name>', 'text:<name>', 'image' or "
        "'data', the fields are 'uri', 'foo'"
    )
    assert refusal({b"uri": b"a", b"image:x": b""}) == "request 'a': input 'x': image is empty"


def test_an_input_cannot_be_an_image_and_a_tensor() -> None:
    assert refusal({**tensor_request(), b"image:": b"x"}) == (
        "request 'a': more than one of an image, a tensor and a text, wanted is one"
    )


def test_limits_are_named() -> None:
    fields = tensor_request()
    assert refusal(fields, Limits(max_fields=3)) == "request 'a': request has 4 fields, at most 3 are served"
    assert refusal(fields, Limits(max_payload_bytes=30)) == "request 'a': request is 39 bytes, at most 30 are served"
    assert refusal({**fields, b"uri": b"u" * 9}, Limits(max_uri_bytes=8)) == (
        "request 'uuuuuuuuu': uri is 9 bytes, at most 8 are served"
    )
    assert refusal({**fields, b"id": bytes(257)}) == "request 'a': field 'id' is 257 bytes, at most 256 are served"
    assert refusal({b"uri": b"a", b"image:" + b"n" * 257: b"x"}) == (
        "request 'a': input name is 257 bytes, at most 256 are served"
    )


def test_what_a_client_sent_is_shown_short_and_printable() -> None:
    message = refusal({b"uri": b"a\n\x00\xff" + "\u202e".encode() + b"z" * 4000})
    assert message.isprintable()
    assert len(message) < 300


def test_best_classes_are_pairs_in_their_order() -> None:
    fields = encode_result(Result(ORIGIN, Answer({"p": top([3, 0], [0.913, 1e-7])})))
    assert fields == {b"value": b"[[3,0.913],[0,1e-7]]", b"id": b"id1"}


def test_best_classes_of_several_outputs_go_by_name() -> None:
    answer = Answer({'p"': top([1], [0.5]), "q": top([2], [0.25])})
    assert native.encode_answer(answer) == {b"value": b'{"p\\"":[[1,0.5]],"q":[[2,0.25]]}'}


def test_scores_that_are_no_numbers_are_null() -> None:
    fields = native.encode_answer(Answer({"p": top([5, 6, 7, 8], [np.inf, 0.5, -np.inf, np.nan])}))
    assert fields[b"value"] == b"[[5,null],[6,0.5],[7,null],[8,null]]"


def test_integer_and_bool_scores_are_numbers() -> None:
    assert native.encode_answer(Answer({"p": top([5], [3], "uint8")}))[b"value"] == b"[[5,3.0]]"
    assert native.encode_answer(Answer({"p": top([5], [1], "bool")}))[b"value"] == b"[[5,1.0]]"


def test_labels_are_those_of_the_classes_sent() -> None:
    answer = Answer({"p": top([1, 2], [0.5, 0.25])}, labels=("cat", 'a "dog"'))
    assert native.encode_answer(answer)[b"labels"] == b'["a \\"dog\\"",null]'


def test_a_failure_has_an_error_and_no_value() -> None:
    assert encode_result(Result(ORIGIN, Failure("no such input"))) == {b"error": b"no such input", b"id": b"id1"}


def test_an_output_that_no_client_could_read_is_a_model_error() -> None:
    with pytest.raises(ModelError, match=r"^output cannot be sent: tensor 'p' has dtype complex64, wanted is one of b"):
        native.encode_answer(Answer({"p": np.array([1], np.complex64)}))


@given(arrays.arrays(np.float32, some.integers(1, 20), elements=some.floats(width=32, allow_nan=False)))
def test_a_score_reads_back_exactly(scores: np.ndarray) -> None:
    reply = decode_reply(native.encode_answer(Answer({"p": TopClasses(np.arange(scores.size), scores)})))
    assert isinstance(reply, dict)
    finite = np.isfinite(scores)
    np.testing.assert_array_equal(np.array(list(reply.values()), np.float32)[finite], scores[finite])
    assert list(reply) == list(range(scores.size))


@given(arrays.arrays(some.sampled_from(list(DTYPES.values())), arrays.array_shapes(min_dims=0, min_side=0)))
def test_a_whole_output_reads_back_exactly(output: np.ndarray) -> None:
    reply = decode_reply(native.encode_answer(Answer({"p": output})))
    assert isinstance(reply, np.ndarray)
    assert reply.dtype == output.dtype
    np.testing.assert_array_equal(reply, output)


def test_big_endian_and_strided_outputs_are_sent_in_the_order_of_the_wire() -> None:
    output = np.arange(6, dtype=">f4").reshape(2, 3).T
    np.testing.assert_array_equal(decode_reply(native.encode_answer(Answer({"p": output}))), output)
