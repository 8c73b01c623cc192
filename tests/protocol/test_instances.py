"""JSON bodies on the stream, as the HTTP front end of Cluster Serving 2.x puts them there."""

import base64
import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.errors import RequestError
from beam_serving.protocol import Limits, decode_request
from beam_serving.records import Image, ProtocolVersion

JSON = some.recursive(
    some.none() | some.booleans() | some.floats() | some.integers() | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=10,
)


def request(body: bytes) -> dict[bytes, bytes]:
    return {b"uri": b"a", b"data": body, b"serde": b"stream"}


def instance(value: Any) -> dict[bytes, bytes]:
    return request(json.dumps({"instances": [{"x": value}]}).encode())


def refusal(fields: dict[bytes, bytes], limits: Limits | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        decode_request(fields, limits or Limits())
    return str(caught.value)


def test_lists_are_tensors_and_text_is_an_image() -> None:
    body = {"instances": [{"x": [[1, 2.5]], "i": base64.b64encode(b"jpeg").decode()}]}
    payload = decode_request(request(json.dumps(body).encode()))
    assert payload.protocol == ProtocolVersion.ARROW
    assert payload.inputs["i"] == Image(b"jpeg")
    tensor = payload.inputs["x"]
    assert isinstance(tensor, np.ndarray)
    assert (tensor.dtype, tensor.tolist()) == (np.float64, [[1, 2.5]])


@pytest.mark.parametrize(
    ("text", "dtype", "values"),
    [
        ("[16777217]", "int64", [16777217]),
        ("[9007199254740993, -1]", "int64", [2**53 + 1, -1]),
        ("[18446744073709551615]", "uint64", [2**64 - 1]),
        ("[true, false]", "bool", [True, False]),
        ("[16777217, 0.5]", "float64", [16777217, 0.5]),
        ("[1e300]", "float64", [1e300]),
        ("[100000000000000000000]", "float64", [1e20]),
        ("[NaN, -Infinity]", "float64", [None, -np.inf]),
        ("7", "int64", 7),
    ],
)
def test_numbers_of_json_are_what_they_are(text: str, dtype: str, values: Any) -> None:
    tensor: Any = decode_request(request(b'{"instances":[{"x":%s}]}' % text.encode())).inputs["x"]
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor, np.array(values, dtype))


@pytest.mark.parametrize(
    ("value", "whole", "as_float"),
    [
        ("[9007199254740993, 0.5]", "9007199254740993", "9007199254740992.0"),
        ("[9223372036854775809, -1]", "9223372036854775809", "9.223372036854776e+18"),
    ],
)
def test_a_whole_number_that_what_is_beside_it_would_change_is_refused(value: str, whole: str, as_float: str) -> None:
    assert refusal(request(b'{"instances":[{"x":%s}]}' % value.encode())) == (
        f"request 'a': input 'x': value is no regular list of numbers: it has the whole number {whole} beside others, "
        f"and the one type for all, float64, has none such; write it as a float, {as_float}, or leave the others out"
    )


@given(some.lists(some.integers(-(2**63), 2**63 - 1), min_size=1))
def test_whole_numbers_of_json_stay_exact(sent: list[int]) -> None:
    assert decode_request(instance(sent)).inputs["x"].tolist() == sent  # type: ignore[union-attr]


def test_texts_of_json_are_texts() -> None:
    text: Any = decode_request(instance("no base64!")).inputs["x"]
    texts: Any = decode_request(instance([["a", "ü"], ["", "|"]])).inputs["x"]
    assert (text.shape, text.item()) == ((), "no base64!")
    assert (texts.dtype, texts.tolist()) == (object, [["a", "ü"], ["", "|"]])


def test_a_tensor_of_32_dimensions_is_not_too_deep() -> None:
    assert decode_request(instance(json.loads("[" * 32 + "1" + "]" * 32))).inputs["x"].ndim == 32


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[" * 100_000, "JSON is nested deeper than 35"),
        (b'{"instances":[{"x":1},{"x":2}]}', "JSON has 2 instances, wanted is one per request"),
        (b"[1]", 'JSON is of another form than {"instances": [{"<input>": <value>}]}'),
        (b'{"instances":[{}]}', 'JSON is of another form than {"instances": [{"<input>": <value>}]}'),
        (b'{"instances":[{"x":[]}]}', "input 'x': list is empty"),
        (b'{"instances":[{"x":{}}]}', "input 'x': value is no regular list of numbers: it is of type object"),
        (b'{"instances":[{"x":[1,"2"]}]}', "input 'x': value is no regular list of numbers: it is of type <U21"),
        (
            b'{"instances":[{"x":["1",2]}]}',
            "input 'x': value is no regular list of texts: it has 2, of type int, among its texts",
        ),
        (
            b'{"instances":[{"x":["1",["2"]]}]}',
            "input 'x': value is no regular list of texts: it has ['2'], of type list, among its texts",
        ),
        (b'{"instances":[{"x":null}]}', "input 'x': value is no regular list of numbers: it is of type object"),
        (b'{"instances":[{"x":1e999999}', "payload is not JSON: Expecting ',' delimiter: line 1 column 29 (char 28)"),
    ],
)
def test_what_is_no_instance_is_refused(body: bytes, message: str) -> None:
    assert refusal(request(body)) == f"request 'a': {message}"


def test_brackets_within_text_are_not_nesting() -> None:
    text = "[" * 50 + '"' + "\\"
    assert decode_request(instance(text)).inputs["x"].item() == text  # type: ignore[union-attr]


def test_a_text_of_many_quotes_is_scanned_once() -> None:
    assert refusal(request(b'"' + b'\\"' * 2_000_000)).startswith("request 'a': payload is not JSON: ")


def test_json_above_its_limit_is_not_parsed() -> None:
    assert refusal(instance([1.0] * 10), Limits(max_json_bytes=20)) == (
        "request 'a': JSON is 74 bytes, at most 20 are served"
    )


def test_an_unknown_serde_is_named() -> None:
    assert refusal({**request(b"{}"), b"serde": b"pickle"}) == (
        "request 'a': serde is 'pickle', wanted is 'arrow' or 'stream'"
    )


@given(some.dictionaries(some.text(), JSON).map(lambda body: {"instances": [body]}) | JSON)
def test_any_json_raises_nothing_but_request_error(body: Any) -> None:
    with contextlib.suppress(RequestError):
        decode_request(request(json.dumps(body).encode()))


@given(some.binary())
def test_garbage_raises_nothing_but_request_error(body: bytes) -> None:
    with pytest.raises(RequestError):
        decode_request(request(body))
