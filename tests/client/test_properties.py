"""What holds of every argument and every result, whatever it is: one property for each kind."""

import asyncio
import copy
import inspect
import io
import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import beam_serving.errors
from beam_serving import AsyncInputQueue, AsyncOutputQueue, BeamServingError, InputError, InputQueue, OutputQueue
from beam_serving.client.arrow_inputs import inputs_of
from beam_serving.client.images import as_image
from beam_serving.client.requests import decode_uri, encode_uri, make_request
from beam_serving.protocol import decode_request, encode_result
from beam_serving.protocol.replies import decode_reply
from beam_serving.records import Answer, Origin, ProtocolVersion, Result, TopClasses
from tests.client.conftest import STREAM

ON_A_SERVER = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
WHOLE = st.integers(-(2**63), 2**64 - 1)


@given(
    st.one_of(
        st.text(max_size=5000),
        st.binary(max_size=5000),
        st.integers(),
        st.builds(lambda p: 10**p, st.integers(0, 9000)),
    )
)
def test_a_uri_is_sent_whole_or_refused(uri: Any) -> None:
    try:
        encoded = encode_uri(uri)
    except InputError:
        text = uri if isinstance(uri, str | bytes) else ""
        raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        assert not raw or len(raw) > 4096 or any("\ud800" <= char <= "\udfff" for char in str(text)), uri
        return
    assert 0 < len(encoded) <= 4096
    if isinstance(uri, bytes):
        assert encoded == uri
    else:
        assert decode_uri(encoded) == (uri if isinstance(uri, str) else str(uri))


class BytesPath(os.PathLike[bytes]):
    def __fspath__(self) -> bytes:
        return b"a/\xff"


def test_paths_of_bytes_are_uris() -> None:
    assert encode_uri(BytesPath()) == b"a/\xff"  # type: ignore[arg-type]


def sent(value: object) -> np.ndarray:
    (array,) = decode_request(make_request("a", {"x": value}).fields).inputs.values()
    assert isinstance(array, np.ndarray)
    return array


def refusal(value: object) -> str:
    try:
        make_request("a", value)
    except InputError as err:
        return str(err)
    return ""


@given(st.one_of(WHOLE, st.lists(WHOLE, min_size=1), st.lists(st.lists(WHOLE, min_size=2, max_size=2), min_size=1)))
def test_whole_numbers_stay_what_they_are_from_python_and_from_json(value: Any) -> None:
    """Or are refused, where no one type has them all."""
    for given_value in (value, inputs_of(json.dumps({"instances": [{"x": value}]}), as_columns=False)["x"]):
        if refused := refusal(given_value):
            assert "whole number" in refused
            continue
        array = sent(given_value)
        assert array.tolist() == value
        assert array.dtype.kind in "iu" or all(float(one) == one for one in np.ravel(np.array(value, object)))


@given(
    hnp.arrays(
        st.one_of(hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.boolean_dtypes(), hnp.floating_dtypes()),
        hnp.array_shapes(max_dims=4, max_side=4),
    )
)
def test_arrays_keep_type_shape_and_values(array: np.ndarray) -> None:
    if array.dtype.newbyteorder("=").name not in ("float16", "float32", "float64") and array.dtype.kind == "f":
        return
    arrived = sent(array)
    assert (arrived.dtype.newbyteorder("="), arrived.shape) == (array.dtype.newbyteorder("="), array.shape)
    np.testing.assert_array_equal(arrived, array)


@given(
    st.recursive(st.just(np.ma.array([1.0, 2.0], mask=[0, 1])), lambda inner: st.lists(inner, min_size=1, max_size=2))
)
def test_masked_arrays_are_refused_however_deep_they_are(value: Any) -> None:
    for ask in (lambda: make_request("a", value), lambda: InputQueue().data_to_b64(x=value)):
        with pytest.raises(InputError, match="is a masked array, whose mask cannot be sent"):
            ask()


@settings(deadline=None)
@given(
    pixels=hnp.arrays(np.uint8, st.tuples(st.integers(5, 9), st.integers(5, 9), st.sampled_from((1, 3, 4)))),
    data=st.data(),
)
def test_an_image_is_the_same_in_each_form(pixels: np.ndarray, data: st.DataObject, tmp_path_factory: Any) -> None:
    file = cv2.imencode(".png", pixels)[1].tobytes()
    path = tmp_path_factory.getbasetemp() / "image.png"
    path.write_bytes(file)
    forms: list[Callable[[], object]] = [
        lambda: file,
        lambda: bytearray(file),
        lambda: memoryview(file),
        lambda: io.BytesIO(file),
        lambda: path,
        lambda: str(path),
        lambda: pixels,
        lambda: pixels.transpose(2, 0, 1),
        lambda: PIL.Image.open(io.BytesIO(file)),
    ]
    encoded = as_image(data.draw(st.sampled_from(forms))(), "png").encoded
    read = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read.reshape(pixels.shape), pixels)


SCORES = st.floats(allow_nan=False, allow_infinity=False, width=32)
TOPS = st.lists(st.tuples(st.integers(0, 999), SCORES), unique_by=lambda pair: pair[0], max_size=6).map(
    lambda pairs: TopClasses(np.array([c for c, _ in pairs], int), np.array([s for _, s in pairs], np.float64))
)
TENSORS = hnp.arrays(st.sampled_from((np.float32, np.int64, np.uint8)), hnp.array_shapes(max_dims=3, max_side=3))
NAMES = st.text("abc", min_size=1, max_size=2)
LABELS = st.one_of(st.just(()), st.just(tuple(f"class {index % 7}" for index in range(500))))


def decoded(outputs: dict[str, Any], labels: tuple[str, ...], by_label: bool = False) -> Any:
    origin = Origin(b"s", b"1-1", b"a", ProtocolVersion.NATIVE, b"id")
    return decode_reply(encode_result(Result(origin, Answer(outputs, labels))), by_label)


def label_of(index: int, labels: tuple[str, ...]) -> str | None:
    return labels[index] if index < len(labels) else None


@given(TOPS, LABELS, st.booleans())
def test_best_classes_are_a_dict_and_say_their_labels(top: TopClasses, labels: tuple[str, ...], by_label: bool) -> None:
    reply = decoded({"p": top}, labels, by_label)
    pairs = list(zip(top.classes.tolist(), top.scores.tolist(), strict=True))
    expected: dict[Any, float] = {}
    for index, score in pairs:
        name = label_of(index, labels) if by_label and labels else index
        expected.setdefault(str(index) if name is None else name, score)
    assert reply == expected == dict(reply)
    assert (repr(reply), list(reply), isinstance(reply, dict)) == (repr(expected), list(expected), True)
    assert json.loads(json.dumps(reply)) == {str(key): score for key, score in expected.items()}
    assert [tuple(best) for best in reply.top] == [(index, score, label_of(index, labels)) for index, score in pairs]
    assert reply.tensors == {}
    again = copy.deepcopy(reply)
    assert (again, again.top) == (reply, reply.top)


@given(NAMES, TENSORS)
def test_a_tensor_is_an_array_and_has_its_name(name: str, array: np.ndarray) -> None:
    reply = decoded({name: array}, ())
    assert (type(np.asarray(reply)), repr(reply), reply.dtype) == (np.ndarray, repr(array), array.dtype)
    np.testing.assert_array_equal(reply, array)
    assert list(reply.tensors) == [name]
    np.testing.assert_array_equal(reply.tensors[name], array)
    assert [type(made) for made in (reply + 1, np.exp(reply), reply.sum(), reply.max())] == [
        type(made) for made in (array + 1, np.exp(array), array.sum(), array.max())
    ]
    for missing in ("top", "text"):
        with pytest.raises(beam_serving.errors.ResultError):
            getattr(reply, missing)
    # As another process gets it.
    make, parts = reply.__reduce__()
    for again in (copy.deepcopy(reply), copy.copy(reply), make(*parts)):
        np.testing.assert_array_equal(again, array)
        assert list(again.tensors) == [name]


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_a_text_is_a_str(text: str) -> None:
    reply = decoded({"t": np.array(text, object)}, ())
    assert (reply, repr(reply), reply.text, str(reply)) == (text, repr(text), text, text)
    assert (reply.tensors["t"].shape, reply.tensors["t"].item()) == ((), text)


@given(st.dictionaries(NAMES, st.one_of(TOPS, TENSORS), min_size=2, max_size=4), LABELS)
def test_several_outputs_are_a_dict_of_them(outputs: dict[str, Any], labels: tuple[str, ...]) -> None:
    reply = decoded(outputs, labels)
    assert isinstance(reply, dict)
    assert set(reply) == set(outputs)
    whole = {name: one for name, one in outputs.items() if isinstance(one, np.ndarray)}
    assert set(reply.tensors) == set(whole)
    for name, array in whole.items():
        np.testing.assert_array_equal(reply.tensors[name], array)
    tops = {name: one for name, one in outputs.items() if isinstance(one, TopClasses)}
    for name, top in tops.items():
        expected = zip(top.classes.tolist(), top.scores.tolist(), strict=True)
        assert [tuple(best) for best in reply[name].top] == [(c, s, label_of(c, labels)) for c, s in expected]
    if len(tops) == 1:
        assert reply.top == reply[next(iter(tops))].top
    else:
        with pytest.raises(beam_serving.errors.ResultError, match=r"wanted is one of them, as result\[name\].top$"):
            _ = reply.top


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**5000),
    st.floats(),
    st.text(max_size=5),
    st.just("\ud800"),
    st.just('{"instances": [[1]]}'),
    st.just("[" * 100_000),
    st.binary(max_size=5),
    st.builds(object),
    st.builds(set),
    st.just([1, [2]]),
    st.just({1: 2}),
    st.just({}),
    st.just([("a",)]),
    st.just(np.array(["1990-01-01"], "datetime64[D]")),
    st.just(np.array([1j])),
    st.just(np.ma.masked),
    st.just(math),
    st.just(Path("no such file")),
)
CALLS = {
    "enqueue": lambda queue, results, a, b: queue.enqueue(a, b),
    "enqueue named": lambda queue, results, a, b: queue.enqueue("a", x=a, y=b),
    "enqueue_image": lambda queue, results, a, b: queue.enqueue_image(a, b),
    "enqueue_image name": lambda queue, results, a, b: queue.enqueue_image("a", b"file", name=a, encoding=b),
    "enqueue_many": lambda queue, results, a, b: queue.enqueue_many(a),
    "enqueue_many pair": lambda queue, results, a, b: queue.enqueue_many([(a, b)]),
    "predict": lambda queue, results, a, b: queue.predict(a, timeout=0),
    "predict timeout": lambda queue, results, a, b: queue.predict([1.0], timeout=b if b is not None else 0),
    "query": lambda queue, results, a, b: results.query(a, request_id=b),
    "query_many": lambda queue, results, a, b: results.query_many([a, b], 0),
    "query_many ids": lambda queue, results, a, b: results.query_many(["a", "a"], request_ids=[a, b]),
    "query_many uris": lambda queue, results, a, b: results.query_many(a),
    "dequeue": lambda queue, results, a, b: results.dequeue(timeout_s=a),
}


def short(value: object) -> bool:
    """Whether a value given as a time to wait is no wait."""
    return not isinstance(value, int | float) or isinstance(value, bool) or not value > 0.01


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_whatever_is_given_is_taken_or_refused_with_an_error_of_ours(
    call: str, legacy: bool, url: str, valkey: redis.Redis
) -> None:
    queue = InputQueue(host=url) if legacy else InputQueue(url)
    results = OutputQueue(host=url) if legacy else OutputQueue(url)

    @ON_A_SERVER
    @given(ODD, ODD)
    def check(one: Any, other: Any) -> None:
        if call != "predict timeout" or short(other):
            with suppress(BeamServingError):
                CALLS[call](queue, results, one, other)

    with queue, results:
        check()


@pytest.mark.parametrize("call", [name for name in CALLS if name != "enqueue_many"])
def test_coroutines_refuse_with_errors_of_ours_too(call: str, url: str, valkey: redis.Redis) -> None:
    queue, results = AsyncInputQueue(url), AsyncOutputQueue(url)

    @settings(ON_A_SERVER, max_examples=25)
    @given(ODD, ODD)
    def check(one: Any, other: Any) -> None:
        async def ask() -> None:
            async with queue, results:  # of this event loop, one after the other
                with suppress(BeamServingError):
                    await CALLS[call](queue, results, one, other)

        if call != "predict timeout" or short(other):
            asyncio.run(ask())

    check()


@pytest.mark.parametrize("kind", [InputQueue, OutputQueue, AsyncInputQueue, AsyncOutputQueue])
def test_constructors_refuse_with_errors_of_ours(kind: Any) -> None:
    @settings(max_examples=200, deadline=None)
    @given(
        st.sampled_from([name for name in inspect.signature(kind.__init__).parameters if name not in ("self", "old")]),
        st.one_of(ODD, st.sampled_from(["redis://h:1?x=1", "redis://h:99999", "http://", "redis+cluster://h", "h:p"])),
    )
    def check(name: str, value: Any) -> None:
        with suppress(BeamServingError):
            kind(**{name: value})

    check()


def test_errors_have_one_base() -> None:
    named = {name: one for name, one in vars(beam_serving.errors).items() if isinstance(one, type)}
    assert all(issubclass(one, BeamServingError) for one in named.values())
    assert set(named) <= set(beam_serving.__all__)


def test_streams_are_not_changed_by_what_is_refused(url: str, valkey: redis.Redis) -> None:
    with InputQueue(url) as queue:
        for wrong in ("", "u" * 4097, None):
            with pytest.raises(InputError):
                queue.enqueue(wrong, [1.0])  # type: ignore[arg-type]
    assert not valkey.exists(STREAM)
