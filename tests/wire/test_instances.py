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
from beam_serving.records import Generation, Image
from beam_serving.wire import Limits, decode_request

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


def test_lists_are_float32_and_text_is_an_image() -> None:
    body = {"instances": [{"x": [[1, 2.5]], "i": base64.b64encode(b"jpeg").decode()}]}
    payload = decode_request(request(json.dumps(body).encode()))
    assert payload.generation is Generation.ARROW
    assert payload.inputs["i"] == Image(b"jpeg")
    tensor = payload.inputs["x"]
    assert isinstance(tensor, np.ndarray)
    assert (tensor.dtype, tensor.tolist()) == (np.float32, [[1, 2.5]])


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
        (b'{"instances":[{"x":null}]}', "input 'x': value is no regular list of numbers: it is of type object"),
        (b'{"instances":[{"x":1e999999}', "payload is not JSON: Expecting ',' delimiter: line 1 column 29 (char 28)"),
    ],
)
def test_what_is_no_instance_is_refused(body: bytes, message: str) -> None:
    assert refusal(request(body)) == f"request 'a': {message}"


def test_brackets_within_text_are_not_nesting() -> None:
    assert refusal(instance("[" * 50 + '"' + "\\")).startswith("request 'a': input 'x': text is not base64: ")


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
