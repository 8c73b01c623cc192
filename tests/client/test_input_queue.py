"""What the client puts on the stream."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import redis

from beam_serving.client import AsyncInputQueue, InputError, InputQueue, QueueFullError, ResultTimeoutError
from beam_serving.client.requests import chunked, make_request
from beam_serving.protocol import decode_request
from beam_serving.records import Image, ProtocolVersion
from tests.client.conftest import STREAM, StandIn

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


@pytest.fixture
def queue(url: str) -> Iterator[InputQueue]:
    with InputQueue(url) as queue:
        yield queue


@pytest.fixture
def full(valkey: redis.Redis) -> Iterator[redis.Redis]:
    """A server that has no memory left."""
    valkey.config_set("maxmemory-policy", "noeviction")
    valkey.config_set("maxmemory", 1)
    yield valkey
    valkey.config_set("maxmemory", 0)


def test_a_tensor_is_queued_under_its_uri_and_a_request_id(queue: InputQueue, service: StandIn) -> None:
    request_id = queue.enqueue("a:b/ü", np.array([[1, 2]], np.int16))
    (payload,) = service.payloads()
    assert payload.uri == "a:b/ü".encode()
    assert payload.request_id == request_id.encode()
    assert payload.protocol == ProtocolVersion.NATIVE
    assert (payload.inputs[""].dtype, payload.inputs[""].tolist()) == (np.int16, [[1, 2]])


def test_inputs_go_by_name(queue: InputQueue, service: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "cat.jpg"
    file.write_bytes(b"jpeg")
    queue.enqueue("a", uri=[[1.0, 2.0]], image=file, raw=b"png")
    (payload,) = service.payloads()
    assert payload.inputs["uri"].dtype == np.float32
    assert payload.inputs["image"] == Image(b"jpeg")
    assert payload.inputs["raw"] == Image(b"png")


def test_an_array_is_sent_as_an_image_file(queue: InputQueue, service: StandIn) -> None:
    queue.enqueue_image("a", PIXELS, encoding="png")
    queue.enqueue_image("b", PIXELS)
    png, jpeg = (payload.inputs[""].encoded for payload in service.payloads())
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), PIXELS)
    assert jpeg.startswith(b"\xff\xd8")


def test_an_image_file_is_sent_as_it_is(queue: InputQueue, service: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "cat.jpg"
    file.write_bytes(b"jpeg")
    queue.enqueue_image("a", str(file))
    queue.enqueue_image("b", b"bytes", name="pixels")
    first, second = service.payloads()
    assert first.inputs == {"": Image(b"jpeg")}
    assert second.inputs == {"pixels": Image(b"bytes")}


def test_many_requests_keep_their_order_and_have_an_id_each(queue: InputQueue, service: StandIn) -> None:
    request_ids = queue.enqueue_many((f"u{i}", np.float32(i)) for i in range(300))
    payloads = service.payloads()
    assert [payload.uri for payload in payloads] == [b"u%d" % i for i in range(300)]
    assert [payload.request_id.decode() for payload in payloads] == request_ids
    assert len(set(request_ids)) == 300


def test_many_requests_may_have_named_inputs_and_images(queue: InputQueue, service: StandIn) -> None:
    queue.enqueue_many([("a", {"x": [1.0], "y": b"png"}), ("b", b"jpeg")])
    first, second = service.payloads()
    assert (first.inputs["x"].tolist(), first.inputs["y"]) == ([1.0], Image(b"png"))
    assert second.inputs == {"": Image(b"jpeg")}


def test_chunks_end_by_number_and_by_size() -> None:
    small = [make_request("a", np.zeros(1)) for _ in range(130)]
    large = [make_request("a", np.zeros(100_000)) for _ in range(3)]
    assert [len(chunk) for chunk in chunked(small)] == [128, 2]
    assert [len(chunk) for chunk in chunked(large)] == [2, 1]


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"x": {1}}, TypeError, "input 'x' is set, wanted is a tensor of numbers, texts, or an image: its bytes, a "
         "Path, a file in binary mode or a PIL image: NumPy makes object of it"),
        ({"x": [[1], [1, 2]]}, ValueError, None),
        ({"x": np.zeros(1, np.complex64)}, TypeError, "tensor 'x' has dtype complex64, wanted is one of bool, int8, "
         "int16, int32, int64, uint8, uint16, uint32, uint64, float16, float32, float64"),
        ({"x": []}, ValueError, "input 'x' is empty, its shape is [0]"),
        ({"x": [2**53 + 1, 0.5]}, ValueError, None),
        ({"x": ["a", 1]}, TypeError, None),
        ({"x": ["a", ["b"]]}, TypeError, None),
        ({"x": "\ud800"}, ValueError, None),
        ({"x": [b"\xff"]}, TypeError, None),
        ({"x": np.array([b"\xff"])}, ValueError, None),
        ({}, ValueError, "request 'a' has no input"),
    ],
)  # fmt: skip
def test_what_is_no_input_is_refused(
    queue: InputQueue, valkey: redis.Redis, inputs: dict[str, object], error: type[Exception], message: str | None
) -> None:
    with pytest.raises(error) as caught:
        queue.enqueue("a", **inputs)
    assert isinstance(caught.value, InputError)
    assert str(caught.value) == message or message is None
    assert "'x'" in str(caught.value) or not inputs
    assert not valkey.exists(STREAM)


def test_an_array_that_is_no_image_is_refused(queue: InputQueue) -> None:
    with pytest.raises(
        ValueError, match=r"^image is float64\[4, 5, 3\], wanted is uint8\[height, width, 3\] in the order b"
    ):
        queue.enqueue_image("a", PIXELS.astype(float))
    with pytest.raises(ValueError, match=r"^encoding is 'bmp', wanted is one of jpeg, png$"):
        queue.enqueue_image("a", PIXELS, encoding="bmp")
    with pytest.raises(ValueError, match=r"^uri is empty, wanted is a name for the request$"):
        queue.enqueue_image("", PIXELS)


async def test_a_full_queue_is_told_and_takes_nothing(url: str, queue: InputQueue, full: redis.Redis) -> None:
    with pytest.raises(QueueFullError, match=r"has no memory for another request; nothing was queued$"):
        queue.enqueue("a", np.zeros(1))
    with pytest.raises(QueueFullError, match=r"has no memory for more; the first 0 requests were queued$"):
        queue.enqueue_many([("a", np.zeros(1)), ("b", np.zeros(1))])
    async with AsyncInputQueue(url) as async_queue:
        with pytest.raises(QueueFullError, match=r"nothing was queued$"):
            await async_queue.enqueue("a", np.zeros(1))
        with pytest.raises(QueueFullError, match=r"the first 0 requests were queued$"):
            await async_queue.enqueue_many([("a", np.zeros(1))])
    assert not full.exists(STREAM)


async def test_coroutines_queue_the_same(url: str, service: StandIn) -> None:
    async with AsyncInputQueue(url) as queue:
        request_ids = [
            await queue.enqueue("a", np.zeros(1)),
            await queue.enqueue_image("b", b"jpeg"),
            *await queue.enqueue_many((f"u{i}", [1.0]) for i in range(200)),
        ]
    payloads = service.payloads()
    assert [payload.request_id.decode() for payload in payloads] == request_ids
    assert payloads[1].inputs == {"": Image(b"jpeg")}


@pytest.mark.parametrize(
    ("request_data", "sent"),
    [
        (np.array([1.0, 2.0]), [1.0, 2.0]),
        ([3, 4], [3, 4]),
        ({"": [5.0]}, [5.0]),
        ('{"instances": [{"": [6.0]}]}', [6.0]),
        ('{"instances": [{"": "iVBORw0KGgo="}]}', Image(b"\x89PNG\r\n\x1a\n")),
    ],
    ids=["array", "list", "dict", "json", "image"],
)
def test_predict_sends_one_value_as_the_only_input(
    url: str, valkey: redis.Redis, request_data: object, sent: object
) -> None:
    with InputQueue(url) as queue:
        with pytest.raises(ResultTimeoutError):
            queue.predict(request_data, timeout=0.05)
        ((_, fields),) = valkey.xrange("serving_stream")
    ((name, value),) = decode_request(fields).inputs.items()
    assert name == ""
    assert (value if isinstance(value, Image) else list(value)) == sent


def test_predict_says_what_is_no_image_of_an_instance(url: str, valkey: redis.Redis) -> None:
    with InputQueue(url) as queue, pytest.raises(InputError, match=r"^a text of the instance is no base64 of an image"):
        queue.predict('{"instances": [{"x": "%"}]}')
    assert valkey.xlen("serving_stream") == 0
