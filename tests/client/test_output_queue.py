"""Fetching results: once, waiting, many, all; blocking and with coroutines."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import redis

from beam_serving.client import (
    AsyncInputQueue,
    AsyncOutputQueue,
    BeamServingError,
    ConnectError,
    InputQueue,
    OutputQueue,
    ResultError,
)
from beam_serving.client import ResultTimeoutError as Late
from beam_serving.launch.embedded_redis import embedded_redis
from beam_serving.records import Answer, Failure, Payload, ProtocolVersion
from tests.client.conftest import STREAM, StandIn, best

OnceSubscribed = Callable[[bytes, Callable[[], object]], threading.Thread]
KEY_OF_A = b"cluster-serving_serving_stream:a"
PAYLOAD = Payload(b"a", {}, ProtocolVersion.NATIVE, b"id1")


@pytest.fixture
def queue(url: str, valkey: redis.Redis) -> Iterator[InputQueue]:
    with InputQueue(url) as queue:
        yield queue


@pytest.fixture
def results(url: str, valkey: redis.Redis) -> Iterator[OutputQueue]:
    with OutputQueue(url) as results:
        yield results


@pytest.fixture
async def async_results(url: str, valkey: redis.Redis) -> AsyncIterator[AsyncOutputQueue]:
    async with AsyncOutputQueue(url) as results:
        yield results


def test_a_result_that_is_there_is_given_at_once(queue: InputQueue, results: OutputQueue, service: StandIn) -> None:
    queue.enqueue("a", np.zeros(1))
    service.answer_all(best((3, 0.75), (1, 0.25)))
    assert results.query("a") == {3: 0.75, 1: 0.25}
    assert list(results.query("a", timeout_s=5)) == [3, 1]


def test_a_result_that_is_not_there_is_none(results: OutputQueue) -> None:
    assert results.query("a") is None


def test_a_query_waits_for_the_result(results: OutputQueue, service: StandIn, once_subscribed: OnceSubscribed) -> None:
    writer = once_subscribed(KEY_OF_A, lambda: service.write(PAYLOAD, best((3, 0.75))))
    assert results.query("a", timeout_s=30) == {3: 0.75}
    writer.join()


def test_a_result_that_does_not_come_is_a_timeout(results: OutputQueue) -> None:
    with pytest.raises(
        Late, match=r"^request 'a': no result within 0.01 s; no service reads the stream 'serving_stream'"
    ):
        results.query("a", timeout_s=0.01)
    with pytest.raises(TimeoutError):
        results.query("a", timeout_s=0)


def test_a_result_that_nobody_announced_is_found_in_the_end(
    results: OutputQueue, valkey: redis.Redis, once_subscribed: OnceSubscribed
) -> None:
    writer = once_subscribed(KEY_OF_A, lambda: valkey.hset(KEY_OF_A, "value", "[[1,0.5]]"))
    assert results.query("a", timeout_s=0.3) == {1: 0.5}
    writer.join()


def test_a_failed_request_raises_its_reason(results: OutputQueue, service: StandIn) -> None:
    service.write(PAYLOAD, Failure("no such input"))
    with pytest.raises(ResultError, match=r"^no such input$"):
        results.query("a", timeout_s=5)


def test_with_a_request_id_an_older_result_does_not_count(
    results: OutputQueue, service: StandIn, once_subscribed: OnceSubscribed
) -> None:
    service.write(PAYLOAD, best((1, 0.5)))
    assert results.query("a", request_id="id2") is None
    writer = once_subscribed(KEY_OF_A, lambda: service.write(PAYLOAD._replace(request_id=b"id2"), best((2, 0.5))))
    assert results.query("a", timeout_s=30, request_id="id2") == {2: 0.5}
    writer.join()


def test_a_result_stays_until_it_is_deleted(results: OutputQueue, service: StandIn) -> None:
    service.write(PAYLOAD, best((1, 0.5)))
    assert results.query("a") == results.query("a", delete=True) == {1: 0.5}
    assert results.query("a") is None


def test_results_of_all_generations_are_read(results: OutputQueue, service: StandIn) -> None:
    tensor = Answer({"p": np.array([[1.0, 2.0]], np.float32)})
    for protocol in (ProtocolVersion.NATIVE, ProtocolVersion.ARROW):
        service.write(PAYLOAD._replace(protocol=protocol), tensor)
        np.testing.assert_array_equal(results.query("a"), [[1, 2]])


def test_classes_go_by_label(url: str, service: StandIn) -> None:
    service.write(PAYLOAD, best((1, 0.5))._replace(labels=("cat", "dog")))
    with OutputQueue(url, by_label=True) as results:
        assert results.query("a") == {"dog": 0.5}


def test_many_results_are_waited_for_at_once(
    results: OutputQueue, service: StandIn, once_subscribed: OnceSubscribed
) -> None:
    service.write(PAYLOAD._replace(uri=b"c"), Failure("no image"))

    def write_two() -> None:
        service.write(PAYLOAD._replace(uri=b"b"), best((2, 0.5)))
        service.write(PAYLOAD, best((1, 0.5)))

    writer = once_subscribed(KEY_OF_A, write_two)
    replies = results.query_many(["a", "b", "c"], timeout_s=30)
    writer.join()
    assert list(replies) == ["a", "b", "c"]
    assert (replies["a"], replies["b"], str(replies["c"])) == ({1: 0.5}, {2: 0.5}, "no image")
    assert isinstance(replies["c"], ResultError)


def test_of_many_results_those_that_came_are_given(results: OutputQueue, service: StandIn) -> None:
    for index in range(600):
        service.write(PAYLOAD._replace(uri=b"u%d" % index), best((index, 0.5)))
    uris = [f"u{index}" for index in range(601)]
    assert results.query_many(uris) == {f"u{index}": {index: 0.5} for index in range(600)}
    assert len(results.query_many(uris, timeout_s=0.2, delete=True)) == 600
    assert results.query_many(uris) == results.query_many([]) == results.query_many([], timeout_s=1) == {}


def test_dequeue_takes_everything_of_its_stream(results: OutputQueue, service: StandIn, valkey: redis.Redis) -> None:
    for uri in ("a", "b:c:d", "ü\n\x00"):
        service.write(PAYLOAD._replace(uri=uri.encode()), best((1, 0.5)))
    service.write(PAYLOAD._replace(uri=b"\xff"), Failure("no image"))
    replace(service, stream="other").write(PAYLOAD, best((1, 0.5)))
    valkey.set("cluster-serving_serving_stream:text", "no hash")
    taken = results.dequeue()
    failed = taken.pop("\udcff")
    assert taken == {"a": {1: 0.5}, "b:c:d": {1: 0.5}, "ü\n\x00": {1: 0.5}}
    assert str(failed) == "no image"
    assert results.dequeue() == {}
    assert sorted(valkey.keys()) == [b"cluster-serving_other:a", b"cluster-serving_serving_stream:text"]


def test_dequeue_takes_more_than_a_page(results: OutputQueue, service: StandIn) -> None:
    for index in range(1500):
        service.write(PAYLOAD._replace(uri=b"u%d" % index), best((index, 0.5)))
    assert len(results.dequeue()) == 1500


def test_a_stream_named_like_a_pattern_is_taken_literally(url: str, service: StandIn) -> None:
    replace(service, stream="s[1]*").write(PAYLOAD, best((1, 0.5)))
    replace(service, stream="s1x").write(PAYLOAD, best((2, 0.5)))
    with OutputQueue(url, stream="s[1]*") as results:
        assert results.dequeue() == {"a": {1: 0.5}}


def test_threads_may_share_the_queues(queue: InputQueue, results: OutputQueue, service: StandIn) -> None:
    def round_trip(index: int) -> object:
        request_id = queue.enqueue(f"u{index}", np.float32(index))
        return results.query(f"u{index}", timeout_s=30, request_id=request_id)

    with ThreadPoolExecutor(12) as threads:
        replies = [threads.submit(round_trip, index) for index in range(100)]
        while not all(reply.done() for reply in replies):
            for payload in service.payloads():
                service.write(payload, best((int(payload.inputs[""]), 0.5)))
        assert [reply.result() for reply in replies] == [{index: 0.5} for index in range(100)]


def test_a_wait_survives_a_lost_connection(
    results: OutputQueue, valkey: redis.Redis, service: StandIn, once_subscribed: OnceSubscribed
) -> None:
    def cut_and_write() -> None:
        valkey.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        service.write(PAYLOAD, best((1, 0.5)))

    writer = once_subscribed(KEY_OF_A, cut_and_write)
    assert results.query("a", timeout_s=30) == {1: 0.5}
    writer.join()


async def test_a_coroutine_gets_a_result_that_is_there(async_results: AsyncOutputQueue, service: StandIn) -> None:
    service.write(PAYLOAD, best((1, 0.5)))
    assert await async_results.query("a") == {1: 0.5}
    assert await async_results.query("a", timeout_s=5, delete=True) == {1: 0.5}
    assert await async_results.query("a") is None


async def test_a_coroutine_gets_the_errors(async_results: AsyncOutputQueue, service: StandIn) -> None:
    with pytest.raises(
        Late, match=r"^request 'a': no result within 0.01 s; no service reads the stream 'serving_stream'"
    ):
        await async_results.query("a", timeout_s=0.01)
    service.write(PAYLOAD, Failure("no such input"))
    with pytest.raises(ResultError, match=r"^no such input$"):
        await async_results.query("a", timeout_s=5)


async def test_hundreds_of_coroutines_wait_on_one_connection(url: str, service: StandIn, valkey: redis.Redis) -> None:
    async with AsyncInputQueue(url) as queue, AsyncOutputQueue(url) as results:
        await queue.enqueue_many((f"u{index}", np.float32(index)) for index in range(300))
        waiting = [asyncio.create_task(results.query(f"u{index}", timeout_s=30)) for index in range(300)]
        while len(valkey.pubsub_channels()) < 300:
            await asyncio.sleep(0)
        assert len(valkey.client_list(_type="pubsub")) == 1
        for payload in service.payloads():
            service.write(payload, best((int(payload.inputs[""]), 0.5)))
        assert await asyncio.gather(*waiting) == [{index: 0.5} for index in range(300)]
        while valkey.pubsub_channels():
            await asyncio.sleep(0)


async def test_coroutines_may_wait_for_the_same_result(
    async_results: AsyncOutputQueue, service: StandIn, valkey: redis.Redis
) -> None:
    first = asyncio.create_task(async_results.query("a", timeout_s=30))
    while not valkey.pubsub_channels():
        await asyncio.sleep(0)
    second = asyncio.create_task(async_results.query("a", timeout_s=30))
    given_up = asyncio.create_task(async_results.query("a", timeout_s=30))
    await asyncio.sleep(0)
    given_up.cancel()
    service.write(PAYLOAD, best((1, 0.5)))
    assert await asyncio.gather(first, second) == [{1: 0.5}, {1: 0.5}]


async def test_a_waiting_coroutine_survives_a_lost_connection(
    async_results: AsyncOutputQueue, service: StandIn, valkey: redis.Redis
) -> None:
    waiting = asyncio.create_task(async_results.query("a", timeout_s=30))
    while not valkey.pubsub_channels():
        await asyncio.sleep(0)
    valkey.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    service.write(PAYLOAD, best((1, 0.5)))
    assert await waiting == {1: 0.5}


async def test_coroutines_query_many_and_dequeue(async_results: AsyncOutputQueue, service: StandIn) -> None:
    for index in range(600):
        service.write(PAYLOAD._replace(uri=b"u%d" % index), best((index, 0.5)))
    service.write(PAYLOAD, Failure("no image"))
    assert len(await async_results.query_many([f"u{index}" for index in range(601)], timeout_s=0.2)) == 600
    taken = await async_results.dequeue()
    assert (len(taken), str(taken["a"]), taken["u5"]) == (601, "no image", {5: 0.5})
    assert await async_results.dequeue() == {}


async def test_a_server_that_goes_away_is_told_and_found_again() -> None:
    with embedded_redis() as port, redis.Redis(port=port) as valkey:
        results = AsyncOutputQueue("127.0.0.1", port)
        waiting = asyncio.create_task(results.query("a", timeout_s=60))
        while not valkey.pubsub_channels():
            await asyncio.sleep(0)
    with pytest.raises(ConnectError, match=f"^Redis at 127.0.0.1:{port}: "):
        await waiting
    with embedded_redis(port), redis.Redis(port=port) as valkey:
        waiting = asyncio.create_task(results.query("a", timeout_s=60))
        while not valkey.pubsub_channels():
            await asyncio.sleep(0.01)
        StandIn(valkey).write(PAYLOAD, best((1, 0.5)))
        assert await waiting == {1: 0.5}
        await results.close()


def test_the_default_stream_is_that_of_the_old_clients() -> None:
    assert STREAM == "serving_stream"


def test_a_queue_that_is_closed_while_threads_use_it_raises_errors_of_ours_only(url: str, valkey: redis.Redis) -> None:
    queue, results = InputQueue(url, timeout_s=2), OutputQueue(url, timeout_s=2)
    over = threading.Event()

    def use(call: Callable[[], object]) -> int:
        calls = 0
        while not over.is_set():
            calls += 1
            with suppress(BeamServingError):
                call()
        return calls

    calls: list[Callable[[], object]] = [
        lambda: queue.enqueue("a", np.zeros(100_000)),
        lambda: results.query("b"),
        lambda: results.query("b", timeout_s=0.01),
        lambda: results.dequeue(),
    ]
    with ThreadPoolExecutor(4) as threads:
        used = [threads.submit(use, call) for call in calls]
        for _ in range(1000):
            queue.close()
            results.close()
            valkey.delete(STREAM)
        over.set()
        assert all(one.result() for one in used)
