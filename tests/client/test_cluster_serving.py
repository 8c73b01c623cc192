"""Code that was written for Cluster Serving 0.9 and later, with another import line."""

import base64
import json
import logging
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from beam_serving.client import (
    ClientError,
    ConnectError,
    InputError,
    InputQueue,
    OutputQueue,
    QueueFullError,
    ResultError,
)
from beam_serving.client import ResultTimeoutError as Late
from beam_serving.records import Answer, Failure, Image, ProtocolVersion
from tests.client.conftest import STREAM, StandIn, best

OnceSubscribed = Callable[[bytes, Callable[[], object]], threading.Thread]


@pytest.fixture
def place(port: int, valkey: redis.Redis) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": str(port)}


@pytest.fixture
def queue(place: dict[str, Any]) -> Iterator[InputQueue]:
    with InputQueue(**place) as queue:
        yield queue


@pytest.fixture
def results(place: dict[str, Any]) -> Iterator[OutputQueue]:
    with OutputQueue(**place) as results:
        yield results


def test_every_kind_of_input_is_sent_in_their_format(queue: InputQueue, service: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "cat.jpg"
    file.write_bytes(b"\xff\xd8jpeg")
    indices, values, shape = np.array([[0, 1], [2, 0]]), np.array([5, 6]), np.array([2, 3])
    request_id = queue.enqueue(
        "a:b",
        t=np.arange(6, dtype=np.int64).reshape(2, 3),
        path=str(file),
        named={"path": str(file)},
        b64={"b64": base64.b64encode(b"\xff\xd8png").decode()},
        texts=["one", "two"],
        sparse=[indices, values, shape],
        scalar=2.5,
        numbers=[[1, 2]],
    )
    (payload,) = service.payloads()
    assert (payload.protocol, payload.uri, payload.request_id) == (ProtocolVersion.ARROW, b"a:b", request_id.encode())
    inputs = payload.inputs
    assert (inputs["t"].dtype, inputs["t"].tolist()) == (np.float32, [[0, 1, 2], [3, 4, 5]])
    assert inputs["path"] == inputs["named"] == Image(b"\xff\xd8jpeg")
    assert inputs["b64"] == Image(b"\xff\xd8png")
    assert inputs["texts"].tolist() == ["one", "two"]
    assert inputs["sparse"].tolist() == [[0, 0, 5], [6, 0, 0]]
    assert (inputs["scalar"].shape, inputs["scalar"].item()) == ((), 2.5)
    assert inputs["numbers"].tolist() == [[1, 2]]


def test_a_result_can_be_compared_with_what_stands_for_none(
    queue: InputQueue, results: OutputQueue, service: StandIn
) -> None:
    queue.enqueue("a", t=np.zeros(1))
    service.answer_all(Answer({"p": np.array([1, 2], np.float32)}))
    result = results.query("a")
    assert result != "[]"
    assert not result == "[]"  # noqa: SIM201 - both operators are meant
    assert (result == [1, 3]).tolist() == [True, False]
    assert (result != [1, 3]).tolist() == [False, True]
    assert results.dequeue()["a"] != "NaN"


def test_the_stream_goes_by_name(place: dict[str, Any], valkey: redis.Redis) -> None:
    with InputQueue(name="mine", **place) as queue, OutputQueue(name="mine", **place) as results:
        queue.enqueue("a", t=np.zeros(1))
        StandIn(valkey, "mine").answer_all(Answer({"p": np.ones(2, np.float32)}))
        assert results.query("a").tolist() == [1, 1]


def test_a_result_is_an_array_and_stays_until_it_is_deleted(
    queue: InputQueue, results: OutputQueue, service: StandIn
) -> None:
    assert results.query("a") == "[]"
    queue.enqueue("a", t=np.zeros(1))
    service.answer_all(Answer({"p": np.ones((1, 1, 2), np.float32)}))
    assert results.query("a").shape == (1, 1, 2)
    assert results.query_and_delete("a").shape == (1, 1, 2)
    assert results.query("a") == results.query("a", True) == "[]"


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (2, 0), (1, 1, 1, 1)])
def test_a_result_keeps_its_shape(
    queue: InputQueue, results: OutputQueue, service: StandIn, shape: tuple[int, ...]
) -> None:
    queue.enqueue("a", t=np.zeros(1))
    service.answer_all(Answer({"p": np.ones(shape, np.float32), "q": np.zeros(3)}))
    assert [output.shape for output in results.query("a")] == [shape, (3,)]


def test_best_classes_are_rows_that_can_be_read(queue: InputQueue, results: OutputQueue, service: StandIn) -> None:
    queue.enqueue("a", t=np.zeros(1))
    service.answer_all(best((3, 0.75), (1, 0.25)))
    assert results.query("a").tolist() == [[3, 0.75], [1, 0.25]]


def test_a_failure_is_nan_and_its_reason_is_in_the_log(
    queue: InputQueue, results: OutputQueue, service: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    queue.enqueue("a", t=np.zeros(1))
    service.answer_all(Failure("no such input"))
    with caplog.at_level(logging.WARNING):
        assert results.query("a") == "NaN"
    assert "request 'a' failed: no such input" in caplog.messages
    assert results.dequeue() == {"a": "NaN"}


def test_dequeue_gives_whole_uris(queue: InputQueue, results: OutputQueue, service: StandIn) -> None:
    queue.enqueue("a:b:c", t=np.zeros(1))
    service.answer_all(Answer({"p": np.ones(2, np.float32)}))
    taken = results.dequeue()
    assert {uri: result.tolist() for uri, result in taken.items()} == {"a:b:c": [1, 1]}
    assert results.dequeue() == {}


@pytest.mark.parametrize(
    "request_data",
    [np.array([[1.0, 2.0]]), {"t": np.array([[1, 2]])}, '{"instances": [{"t": [[1, 2]]}]}'],
    ids=["array", "dict", "json"],
)
def test_predict_waits_for_the_result_and_deletes_it(queue: InputQueue, valkey: redis.Redis, request_data: Any) -> None:
    stop = threading.Event()
    service = StandIn(valkey)

    def serve() -> None:
        while not stop.is_set():
            for payload in service.payloads():
                service.write(payload, Answer({"p": payload.inputs["t"] * 2}))
                valkey.delete(STREAM)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert queue.predict(request_data, timeout=30).tolist() == [[2, 4]]
    finally:
        stop.set()
        thread.join()
    assert valkey.keys() == []


def test_predict_waits_for_seconds_and_gives_up_as_theirs(queue: InputQueue, url: str, valkey: redis.Redis) -> None:
    assert queue.predict(np.zeros(1), timeout=0.05) == "[]"
    with (
        InputQueue(url) as ours,
        pytest.raises(Late, match=r"no result within 0.05 s; no service reads the stream 'serving_stream'"),
    ):
        ours.predict({"x": np.zeros(1)}, timeout=0.05)


def test_what_cannot_be_sent_is_told_before_anything_is_queued(queue: InputQueue, valkey: redis.Redis) -> None:
    with pytest.raises(ClientError, match=r"^input 't': the image file 'none.jpg' cannot be read: No such file or dir"):
        queue.enqueue("a", t="none.jpg")
    with pytest.raises(TypeError, match=r"^input 't' is a dict, wanted is \{'path': ...\} or \{'b64': ...\}$"):
        queue.enqueue("a", t={"b64": "%"})
    with pytest.raises(TypeError, match=r"^input 't' has 2 arrays, a sparse tensor is \[indices, values, shape\]$"):
        queue.enqueue("a", t=[np.zeros(1), np.zeros(1)])
    with pytest.raises(
        TypeError,
        match=r"^input 't' is object, wanted are numbers, texts or the path of an image: it is of type object$",
    ):
        queue.enqueue("a", t=object())
    for mixed in (["a", 1], [1, "a"]):
        with pytest.raises(
            InputError, match=r"^input 't' is list, wanted are numbers, texts or the path of an image: it"
        ):
            queue.enqueue("a", t=mixed)
    with pytest.raises(ValueError, match=r"^a request needs at least one input$"):
        queue.enqueue("a")
    with pytest.raises(ValueError, match=r"^JSON has another number of instances than one$"):
        queue.predict('{"instances": []}')
    assert not valkey.exists(STREAM)


def test_a_full_queue_is_told(queue: InputQueue, valkey: redis.Redis) -> None:
    valkey.config_set("maxmemory-policy", "noeviction")
    valkey.config_set("maxmemory", 1)
    try:
        with pytest.raises(QueueFullError, match=r"nothing was queued$"):
            queue.enqueue("a", t=np.zeros(1))
    finally:
        valkey.config_set("maxmemory", 0)


def test_data_to_b64_is_what_is_queued(queue: InputQueue, valkey: redis.Redis) -> None:
    queue.enqueue("a", t=np.arange(3))
    ((_, fields),) = valkey.xrange(STREAM)
    assert fields[b"data"].decode() == queue.data_to_b64(t=np.arange(3))


def test_a_queue_without_arguments_is_that_of_cluster_serving() -> None:
    assert OutputQueue()._place.like_cluster_serving
    assert InputQueue(frontend_url=None, name="x")._place.like_cluster_serving
    assert not OutputQueue("localhost")._place.like_cluster_serving
    assert not InputQueue(stream="x")._place.like_cluster_serving


def test_arguments_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^unknown argument 'hots'$"):
        InputQueue(hots="a")
    with pytest.raises(TypeError, match=r"^an address is given, and host='b' too; they mean the same$"):
        InputQueue("a", host="b")
    with pytest.raises(TypeError, match=r"^stream is given, and name='b' too; they mean the same$"):
        OutputQueue(stream="a", name="b")


class _FrontEnd(BaseHTTPRequestHandler):
    """Answers as the front end of Cluster Serving does; `bad` gets a 400."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "bad" in body["instances"][0]:
            self._answer(400, b"wrong body")
            return
        tensor = {"data": body["instances"][0]["t"], "shape": [1, 2]}
        value = {"value": json.dumps(tensor if self.path == "/predict" else "NaN")}
        self._answer(200, json.dumps({"predictions": [json.dumps(value)]}).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def front_end() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _FrontEnd)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_predict_goes_over_http_where_there_is_a_front_end(front_end: str) -> None:
    for queue in (InputQueue(front_end), InputQueue(frontend_url=front_end)):
        assert queue.predict({"t": np.array([1.0, 2.0])}).tolist() == [[1, 2]]
    assert queue.predict('{"instances": [{"t": [1, 2]}]}').tolist() == [[1, 2]]
    assert queue.predict({"t": [2**24 + 1, 2]}, timeout=math.inf).tolist() == [[2**24 + 1, 2]]
    assert queue.predict({"t": [1.0, 2.0], "image": b"file"}).dtype == np.float32
    with pytest.raises(ClientError, match=r"^front end http://.*: status 400: wrong body$"):
        queue.predict({"bad": "x"})
    with pytest.raises(ResultError, match=r"no readable prediction"):
        InputQueue(f"{front_end}/other").predict({"t": [1.0, 2.0]})
    with pytest.raises(ConnectError, match=r"^front end http://127.0.0.1:1: "):
        InputQueue("http://127.0.0.1:1").predict({"t": [1.0]})
