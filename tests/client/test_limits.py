"""What the client refuses before anything is queued, because no service could take it; and waits of any length."""

import asyncio
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from beam_serving.client import AsyncInputQueue, AsyncOutputQueue, InputError, InputQueue, OutputQueue
from beam_serving.client import ResultTimeoutError as Late
from beam_serving.client.requests import checked, make_request
from beam_serving.encryption.gcm import Key, Keys
from beam_serving.protocol import decode_request
from beam_serving.records import Answer, Payload, ProtocolVersion
from tests.client.conftest import STREAM, StandIn, best

OnceSubscribed = Callable[[bytes, Callable[[], object]], threading.Thread]


def refusal(*given: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        make_request(*given, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("uri", "encoded"),
    [
        ("a", b"a"),
        (b"\xff", b"\xff"),
        (5, b"5"),
        (-5, b"-5"),
        (np.int64(7), b"7"),
        (Path("p/q.jpg"), b"p/q.jpg"),
        ("\udcff", b"\xff"),
        ("u" * 4096, b"u" * 4096),
    ],
)
async def test_a_result_is_found_under_the_uri_as_it_was_given(
    uri: Any, encoded: bytes, url: str, service: StandIn
) -> None:
    with InputQueue(url) as queue, OutputQueue(url) as results:
        queue.enqueue(uri, [1.0])
        queue.enqueue_image(uri, b"file")
        assert [payload.uri for payload in service.payloads()] == [encoded, encoded]
        service.answer_all(best((1, 0.5)))
        assert results.query(uri) == results.query(uri, timeout_s=5) == {1: 0.5}
        assert results.query_many([uri]) == {uri: {1: 0.5}}
    async with AsyncInputQueue(url) as queue, AsyncOutputQueue(url) as results:
        await queue.enqueue(uri, [1.0])
        assert await results.query(uri) == {1: 0.5}


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "uri is empty, wanted is a name for the request"),
        (b"", "uri is empty, wanted is a name for the request"),
        ("u" * 4097, "uri is 4097 bytes, at most 4096 are served"),
        ("ü" * 2049, "uri is 4098 bytes, at most 4096 are served"),
        ("\ud800", r"uri '\ud800' has half of a surrogate pair, which is no text"),
        (None, "uri is NoneType, wanted is str, bytes, int or Path"),
        (1.5, "uri is float, wanted is str, bytes, int or Path"),
        (bytearray(b"a"), "uri is bytearray, wanted is str, bytes, int or Path"),
        (True, "uri is bool, wanted is str, bytes, int or Path"),
    ],
)
async def test_a_uri_that_no_service_takes_is_refused(uri: Any, said: str, url: str, valkey: redis.Redis) -> None:
    assert refusal(uri, [1.0]) == said
    with InputQueue(url) as queue, InputQueue(host=url) as old, OutputQueue(url) as results:
        for ask in (queue.enqueue, queue.enqueue_image, old.enqueue):
            with pytest.raises(InputError):
                ask(uri, b"file")
        with pytest.raises(InputError):
            results.query(uri)
    async with AsyncInputQueue(url) as queue:
        with pytest.raises(InputError):
            await queue.enqueue(uri, [1.0])
    assert not valkey.exists(STREAM)


def test_limits_of_the_protocol_are_named() -> None:
    assert refusal("a", {"n" * 257: [1.0]}) == "input name is 257 bytes, at most 256 are served"
    assert refusal("a", {"\ud800": [1.0]}) == r"input name '\ud800' has half of a surrogate pair, which is no text"
    assert refusal("a", {1: [1.0]}) == "the name of an input is int, wanted is str"
    assert refusal("a", {f"x{index}": [1.0] for index in range(85)}) == (
        "request has 257 fields, at most 256 are served"
    )
    assert refusal("a", np.zeros((1,) * 33)) == "input '' has 33 dimensions, at most 32 are served"
    assert refusal("a", np.zeros((2, 0))) == "input '' is empty, its shape is [2, 0]"
    assert refusal("a", ["a", np.array(["b"])]).startswith("input '' is list, wanted is ")
    assert refusal("a", "x" * (16 << 20)).endswith("its text is 16777218 bytes of JSON, at most 16777216 are served")


@pytest.mark.parametrize("key", [None, Keys(Key(b"o" * 16), Key(b"k" * 16))])
def test_a_request_is_as_large_as_the_service_takes(key: Keys | None) -> None:
    size = len(b"".join(name + value for name, value in make_request("a", bytes(100), key).fields.items()))
    assert make_request("a", bytes(100), key, size)
    assert refusal("a", bytes(101), key, size) == f"request is {size + 1} bytes, at most {size} are served"


def test_what_redis_cannot_hold_is_refused_whatever_the_service_takes() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return (512 << 20) + 1

    request = make_request("a", b"file")
    with pytest.raises(
        InputError, match=r"^an input is 536870913 bytes as it is sent, at most 536870912 fit into Redis$"
    ):
        checked(request._replace(fields={**request.fields, b"image:": Huge(b"x")}), 1 << 40)


async def test_every_queue_refuses_what_is_too_large(url: str, valkey: redis.Redis) -> None:
    large = np.zeros(1000, np.uint8)
    said = r"bytes, at most 1000 are served"
    with InputQueue(url, max_request_bytes=1000) as queue, InputQueue(host=url, max_request_bytes=1000) as old:
        for enqueue in (queue.enqueue, old.enqueue):
            with pytest.raises(InputError, match=said):
                enqueue("a", large)
        with pytest.raises(InputError, match=said + "; the first 0 requests were queued$"):
            queue.enqueue_many([("a", large)])
        with pytest.raises(InputError, match=said):
            queue.enqueue_image("a", large.tobytes())
    async with AsyncInputQueue(url, max_request_bytes=1000) as queue:
        with pytest.raises(InputError, match=said):
            await queue.enqueue("a", large)
    assert not valkey.exists(STREAM)


async def test_one_bad_request_of_many_says_how_many_are_queued(url: str, service: StandIn) -> None:
    requests = [*((f"u{index}", [1.0]) for index in range(200)), ("bad", {})]
    said = r"^request 'bad' has no input; the first 128 requests were queued$"
    with InputQueue(url) as queue, pytest.raises(InputError, match=said):
        queue.enqueue_many(requests)
    assert len(service.payloads()) == 128
    async with AsyncInputQueue(url) as queue:
        with pytest.raises(InputError, match=said):
            await queue.enqueue_many(requests)


@pytest.mark.parametrize("timeout_s", [None, math.inf, 1e300, 1e9, 3e6, 10**12])
async def test_a_wait_may_be_of_any_length(
    timeout_s: float | None, url: str, service: StandIn, once_subscribed: OnceSubscribed
) -> None:
    payload = Payload(b"a", {}, ProtocolVersion.NATIVE, b"id1")
    for ask in ("query", "query_many"):
        writer = once_subscribed(b"cluster-serving_serving_stream:a", lambda: service.write(payload, best((1, 0.5))))
        with OutputQueue(url) as results:
            if ask == "query":
                assert results.query("a", timeout_s=timeout_s, delete=True) == {1: 0.5}
            else:
                assert results.query_many(["a"], timeout_s, delete=True) == {"a": {1: 0.5}}
        writer.join()
    async with AsyncOutputQueue(url) as results:
        waiting = asyncio.create_task(results.query("a", timeout_s=timeout_s))
        while not service.valkey.pubsub_channels():
            await asyncio.sleep(0)
        service.write(payload, best((1, 0.5)))
        assert await waiting == {1: 0.5}


async def test_a_time_in_the_past_is_no_wait_and_no_number_is_refused(url: str, valkey: redis.Redis) -> None:
    said = r"^timeout_s is .*, wanted is a number of seconds, or None for no limit$"
    with OutputQueue(url) as results:
        with pytest.raises(Late):
            results.query("a", timeout_s=-5)
        for timeout_s in (math.nan, "5"):
            with pytest.raises(InputError, match=said):
                results.query("a", timeout_s=timeout_s)
    async with AsyncOutputQueue(url) as results:
        with pytest.raises(Late):
            await results.query("a", timeout_s=-5)
        with pytest.raises(InputError, match=said):
            await results.query("a", timeout_s=math.nan)


def test_a_queue_may_have_no_timeout_of_its_own(url: str, service: StandIn) -> None:
    for timeout_s in (None, math.inf):
        with InputQueue(url, timeout_s=timeout_s) as queue, OutputQueue(url, timeout_s=timeout_s or 1e9) as results:
            queue.enqueue("a", [1.0])
            service.answer_all(best((1, 0.5)))
            assert results.query("a", timeout_s=5) == {1: 0.5}
    for wrong in (0, -1, math.nan, "5"):
        with pytest.raises(
            InputError, match=r"^timeout_s is .*, wanted is a number of seconds above 0, or None for no limit$"
        ):
            InputQueue(url, timeout_s=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([0.1, 2.5], "float32"),
        (0.5, "float32"),
        ([float(2**24)], "float32"),
        ([float(2**24 + 1)], "float64"),
        ([1e300, 0.5], "float64"),
        ([math.inf, math.nan], "float32"),
        ([2**40], "int64"),
        ([2**64 - 1], "uint64"),
        ([True], "bool"),
        (np.array([0.1]), "float64"),
        (np.float64(0.1), "float32"),
        (range(3), "int64"),
        (memoryview(np.arange(3, dtype=np.int16)), "int16"),
    ],
)
def test_numbers_are_sent_in_a_type_that_has_them(value: Any, dtype: str) -> None:
    sent: Any = decode_request(make_request("a", {"x": value}).fields).inputs["x"]
    assert sent.dtype == dtype
    np.testing.assert_array_equal(sent, np.array(value, dtype))


def test_masked_arrays_are_refused() -> None:
    masked = np.ma.array([1.0, 2.0], mask=[0, 1])
    said = "input 'x' is a masked array, whose mask cannot be sent; choose the values with .filled(...)"
    for value in (masked, [masked], np.ma.array([1.0])):
        assert refusal("a", {"x": value}) == said
    endless: list[Any] = []
    endless.append(endless)
    deep: list[Any] = [1.0]
    for _ in range(5000):
        deep = [deep]
    wide: list[Any] = []
    wide += [wide, wide]
    for value in (
        endless,
        deep,
        ["text", endless],
        [1, endless],
        [[b"bytes"], endless],
        wide,
        [1, wide],
        [[1, 1], wide],
    ):
        assert refusal("a", {"x": value}).startswith("input 'x'")
    with InputQueue() as old, pytest.raises(InputError) as caught:
        old.data_to_b64(x=masked)
    assert str(caught.value) == said


async def test_texts_go_in_and_come_out(url: str, service: StandIn) -> None:
    with InputQueue(url) as queue, OutputQueue(url) as results:
        queue.enqueue("a", "some text")
        queue.enqueue("b", ["x", "y"])
        queue.enqueue("c", title="t", body=[["ü"], [""]])
        queue.enqueue("d", np.array(["x", "yy"]))
        queue.enqueue("e", np.array(["x", "yy"], object))
        queue.enqueue("f", np.array([b"x", b"yy"]))
        queue.enqueue_many([("g", "many")])
        sent = [{name: value.tolist() for name, value in payload.inputs.items()} for payload in service.payloads()]
        assert sent == [
            {"": "some text"}, {"": ["x", "y"]}, {"title": "t", "body": [["ü"], [""]]}, {"": ["x", "yy"]},
            {"": ["x", "yy"]}, {"": ["x", "yy"]}, {"": "many"},
        ]  # fmt: skip
        service.answer_all(Answer({"label": np.array("größer", object)}))
        assert results.query("a") == "größer"
    async with AsyncInputQueue(url) as queue, AsyncOutputQueue(url) as results:
        await queue.enqueue("h", "some text")
        assert service.payloads()[0].inputs[""].item() == "some text"
        service.answer_all(Answer({"label": np.array(["x", "y"], object)}))
        reply: Any = await results.query("h")
        assert (reply.dtype, reply.tolist()) == (object, ["x", "y"])
        assert (await results.dequeue())["a"] == "größer"


def test_texts_are_encrypted_with_a_secret(url: str, valkey: redis.Redis) -> None:
    with InputQueue(url, secret="a secret of sixteen", salt="a salt of sixteen") as queue:  # noqa: S106
        queue.enqueue("a", "some text")
    ((_, fields),) = valkey.xrange(STREAM)
    assert (fields[b"cipher"], b"some text" in fields[b"text:"]) == (b"aes-gcm-2", False)
