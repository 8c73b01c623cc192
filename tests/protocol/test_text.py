"""Texts of the native format: what a client writes is what the service reads, and back."""

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.encryption.gcm import OLDEST, Key, Keys
from beam_serving.encryption.records import Decryptor
from beam_serving.errors import ModelError, RequestError
from beam_serving.protocol import Limits, decode_request, encode_result, image, native
from beam_serving.protocol.encrypted import seal_fields
from beam_serving.protocol.replies import decode_reply
from beam_serving.records import Answer, Image, Origin, ProtocolVersion, Result, TopClasses

TEXTS = some.text(some.characters(exclude_categories=["Cs"]), max_size=8)
SHAPES = some.lists(some.integers(1, 3), max_size=3).map(tuple)
KEY = Key(b"k" * 16)
KEYS = Keys(Key(b"o" * 16, OLDEST), KEY)


@some.composite
def text_arrays(draw: some.DrawFn, shapes: some.SearchStrategy[tuple[int, ...]] = SHAPES) -> np.ndarray:
    """Arrays of text, also of no dimension."""
    array = np.empty(draw(shapes), object)
    array.reshape(-1)[:] = [draw(TEXTS) for _ in range(array.size)]
    return array


def texts(*values: Any) -> np.ndarray:
    return np.array(values, object)


def request(raw: bytes, name: bytes = b"x") -> dict[bytes, bytes]:
    return {b"uri": b"a", b"text:" + name: raw}


def refusal(fields: dict[bytes, bytes], limits: Limits | None = None, decryptor: Decryptor | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        decode_request(fields, limits or Limits(), decryptor)
    return str(caught.value)


def same(came: Any, sent: np.ndarray) -> bool:
    return bool(came.dtype == object and came.shape == sent.shape and came.tolist() == sent.tolist())


@given(some.dictionaries(TEXTS, text_arrays(), min_size=1, max_size=3))
def test_texts_come_back_as_they_were_sent_also_encrypted(inputs: dict[str, np.ndarray]) -> None:
    fields = native.encode_request(b"a", b"i", inputs)
    for payload in (decode_request(fields), decode_request(seal_fields(fields, KEY), Limits(), Decryptor(KEYS, True))):
        assert payload.protocol == ProtocolVersion.NATIVE
        assert list(payload.inputs) == list(inputs)
        assert all(same(payload.inputs[name], sent) for name, sent in inputs.items())


@given(text_arrays(some.lists(some.integers(0, 3), min_size=1, max_size=3).map(tuple)))
def test_an_output_of_text_reads_back_with_its_shape(output: np.ndarray) -> None:
    assert same(decode_reply(native.encode_answer(Answer({"p": output}))), output)


def test_an_output_of_one_text_without_dimensions_is_a_str() -> None:
    fields = native.encode_answer(Answer({"p": np.array("größer", object)}))
    assert fields == {b"text:p": '"größer"'.encode()}
    assert decode_reply(fields) == "größer"


def test_bytes_and_arrays_of_fixed_width_are_text() -> None:
    for output in (texts("ü".encode(), b"b"), np.array(["ü", "b"]), np.array(["ü".encode(), b"b"])):
        assert decode_reply(native.encode_answer(Answer({"p": output}))).tolist() == ["ü", "b"]  # type: ignore[union-attr]


def test_texts_come_beside_best_classes_and_tensors() -> None:
    top = TopClasses(np.array([1]), np.array([0.5], np.float32))
    answer = Answer({"label": texts("cat"), "p": top, "t": np.ones(2)}, labels=("dog", "cat"))
    reply: Any = decode_reply(native.encode_answer(answer))
    assert (reply["label"].tolist(), reply["p"], reply["t"].tolist()) == (["cat"], {1: 0.5}, [1, 1])


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (texts("a", b"\xff\xd8"), r"it has bytes that are no UTF-8 text, b'\xff\xd8'"),
        (texts("a", None), "it has None, of type NoneType, among its texts"),
        (texts(1), "it has 1, of type int, among its texts"),
        (texts("a\ud800"), r"it has half of a surrogate pair, which is no text, in 'a\ud800'"),
    ],
)
@pytest.mark.parametrize("protocol", [ProtocolVersion.NATIVE, ProtocolVersion.IMAGE])
def test_an_output_that_is_no_text_is_a_model_error(output: np.ndarray, said: str, protocol: ProtocolVersion) -> None:
    with pytest.raises(ModelError) as caught:
        encode_result(Result(Origin(b"s", b"1-1", b"a", protocol), Answer({"p": output})))
    assert str(caught.value) == f"output 'p' cannot be sent: {said}; name the others in model: outputs"


def test_the_arrow_format_carries_no_text_and_says_so() -> None:
    with pytest.raises(ModelError) as caught:
        encode_result(
            Result(Origin(b"s", b"1-1", b"a", ProtocolVersion.ARROW), Answer({"q": np.ones(2), "p": texts("a")}))
        )
    assert str(caught.value) == (
        "output 'p' is text, which the results of Cluster Serving 0.9 and later do not carry; name the others in "
        "model: outputs, or use the client of beam_serving"
    )


@pytest.mark.parametrize(
    ("answer", "value", "reply"),
    [
        (Answer({"p": texts("a", "ü")}), '{"0": "a", "1": "\\u00fc"}', {0: "a", 1: "ü"}),
        (Answer({"p": np.array("a", object)}), '{"0": "a"}', {0: "a"}),
        (Answer({"p": texts("a", "ü")}, as_lists=True), '["a","ü"]', ["a", "ü"]),
        (Answer({"p": np.array("a", object)}, as_lists=True), '["a"]', ["a"]),
    ],
)
def test_the_image_format_has_texts_where_numbers_would_stand(answer: Answer, value: str, reply: Any) -> None:
    fields = image.encode_answer(answer)
    assert fields == {b"value": value.encode()}
    came = decode_reply(fields)
    assert (came.tolist() if isinstance(came, np.ndarray) else came) == reply


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "text is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"hello", "text is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"\xff", "text is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"1", "text is no string and no regular list of strings: it has 1, of type int, among its texts"),
        (b'{"a":"b"}', "text is no string and no regular list of strings: it has {'a': 'b'}, of type dict, among its "
         "texts"),
        (b'["a",null]', "text is no string and no regular list of strings: it has None, of type NoneType, among its "
         "texts"),
        (b'[["a"],["b","c"]]', "text is no string and no regular list of strings: its lists differ in length or depth"),
        (b'[["a"],"b"]', "text is no string and no regular list of strings: its lists differ in length or depth"),
        (b'"\\ud800"', "text is no string and no regular list of strings: it has half of a surrogate pair, which is no "
         r"text, in '\ud800'"),
        (b"[[],[]]", "list of texts is empty"),
        (b"[" * 33 + b'"a"' + b"]" * 33, "text has 33 dimensions, at most 32 are served"),
        (b"[" * 100_000, "JSON is nested deeper than 35"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused(raw: bytes, said: str) -> None:
    assert refusal(request(raw)) == f"request 'a': input 'x': {said}"


def test_json_above_its_limit_is_not_parsed() -> None:
    said = "request 'a': input 'x': JSON is 102 bytes, at most 100 are served"
    assert refusal(request(b'"' + b"a" * 100 + b'"'), Limits(max_json_bytes=100)) == said


def test_an_input_is_one_thing_only() -> None:
    said = "request 'a': input 'x': more than one of an image, a tensor and a text, wanted is one"
    assert refusal({**request(b'"a"'), b"image:x": b"file"}) == said


def test_a_text_in_clear_is_refused_where_all_is_encrypted() -> None:
    said = "request 'a': input 'x': text is in clear, this service takes encrypted ones only"
    assert refusal(request(b'"a"'), decryptor=Decryptor(KEYS, everything=True)) == said
    assert decode_request(request(b'"a"'), Limits(), Decryptor(KEYS, everything=False)).inputs["x"].item() == "a"  # type: ignore[union-attr]


def test_a_text_is_sealed_under_its_name() -> None:
    sealed = seal_fields(native.encode_request(b"a", b"i", {"x": texts("a"), "y": texts("b")}), KEY)
    assert b"a" not in sealed[b"text:x"][12:-16] or len(sealed[b"text:x"]) == 28 + len(b'["a"]')
    sealed[b"text:x"], sealed[b"text:y"] = sealed[b"text:y"], sealed[b"text:x"]
    assert "input 'x': payload cannot be decrypted" in refusal(sealed, decryptor=Decryptor(KEYS, everything=True))


@given(some.binary(max_size=60) | some.text().map(str.encode))
def test_any_bytes_raise_nothing_but_request_error(raw: bytes) -> None:
    with contextlib.suppress(RequestError):
        decode_request(request(raw))


def test_images_and_texts_may_come_together() -> None:
    inputs = decode_request(native.encode_request(b"a", b"i", {"i": Image(b"file"), "t": texts("a")})).inputs
    assert inputs["i"] == Image(b"file")
    assert same(inputs["t"], texts("a"))
