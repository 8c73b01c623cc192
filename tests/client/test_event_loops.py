"""Queues for asyncio may be made anywhere, and used by one event loop after another, or by several at a time."""

import asyncio
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import redis

from beam_serving.client import AsyncInputQueue, AsyncOutputQueue, ResultError, ResultTimeoutError
from beam_serving.records import Failure
from tests.client.conftest import StandIn, best


async def round_trip(queue: AsyncInputQueue, results: AsyncOutputQueue, uri: str) -> object:
    request_id = await queue.enqueue(uri, [1.0])
    return await results.query(uri, timeout_s=20, request_id=request_id, delete=True)


class Answering:
    """A stand-in that answers whatever is queued, until it is left."""

    def __init__(self, service: StandIn, outcome: Any = None) -> None:
        self._service, self._outcome = service, outcome or best((1, 0.5))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._answer)

    def _answer(self) -> None:
        valkey, stream = self._service.valkey, self._service.stream
        while not self._ended.is_set():
            for (entry_id, _), payload in zip(valkey.xrange(stream), self._service.payloads(), strict=False):
                outcome = self._outcome(payload) if callable(self._outcome) else self._outcome
                self._service.write(payload, outcome)
                valkey.xdel(stream, entry_id)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def test_a_queue_that_is_made_outside_serves_one_loop_after_another(url: str, service: StandIn) -> None:
    queue, results = AsyncInputQueue(url), AsyncOutputQueue(url)
    with Answering(service):
        for turn in range(3):
            assert asyncio.run(round_trip(queue, results, f"u{turn}")) == {1: 0.5}

    async def close() -> None:
        await queue.close()
        await results.close()

    asyncio.run(close())
    with Answering(service):
        assert asyncio.run(round_trip(queue, results, "again")) == {1: 0.5}


def test_several_loops_at_a_time_have_connections_of_their_own(url: str, service: StandIn) -> None:
    queue, results = AsyncInputQueue(url), AsyncOutputQueue(url)
    with Answering(service), ThreadPoolExecutor(4) as threads:
        uris = [f"u{index}" for index in range(12)]
        replies = list(threads.map(lambda uri: asyncio.run(round_trip(queue, results, uri)), uris))
    assert replies == [{1: 0.5}] * 12


def test_loops_that_are_gone_leave_no_open_connections(url: str, service: StandIn, valkey: redis.Redis) -> None:
    queue, results = AsyncInputQueue(url), AsyncOutputQueue(url)
    with Answering(service):
        asyncio.run(round_trip(queue, results, "first"))
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for turn in range(10):
            asyncio.run(round_trip(queue, results, f"u{turn}"))
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before + 4


@pytest.mark.parametrize("value", [5, 2.5, np.float32(1), [1.0, 2.0], {"x": [1.0]}, {"": 3}, "text", b"file"])
async def test_predict_takes_a_single_value(value: Any, url: str, service: StandIn) -> None:
    async with AsyncInputQueue(url) as queue:
        with Answering(service):
            reply = await queue.predict(value, timeout=20)
    assert reply == {1: 0.5}
    assert [tuple(one) for one in reply.top] == [(1, 0.5, None)]
    assert not service.valkey.keys("cluster-serving_*")


async def test_predict_tells_what_went_wrong(url: str, service: StandIn) -> None:
    async with AsyncInputQueue(url) as queue:
        with pytest.raises(ResultTimeoutError):
            await queue.predict([1.0], timeout=0.01)
        service.valkey.flushall()
        with Answering(service, Failure("no such input")), pytest.raises(ResultError, match=r"^no such input$"):
            await queue.predict([1.0], timeout=20)
