"""No result is lost with a reply of Redis, and each goes to one caller where no reply is."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from beam_serving.client import AsyncOutputQueue, InputError, OutputQueue, RedisQueue
from beam_serving.records import ProtocolVersion
from tests.client.conftest import StandIn, best
from tests.client.faults import Proxy
from tests.client.test_output_queue import PAYLOAD


def loses_first(*words: bytes) -> Any:
    """Says yes to the first command that has these words, and no to all others."""
    told = threading.Event()

    def loses(part: bytes) -> bool:
        if told.is_set() or not all(word in part for word in words):
            return False
        told.set()
        return True

    return loses


@contextmanager
def losing(port: int, *words: bytes) -> Iterator[tuple[Proxy, str]]:
    proxy = Proxy(port)
    proxy.loses = loses_first(*words)
    with proxy.running() as address:
        yield proxy, address


@contextmanager
def losing_all(port: int, word: bytes) -> Iterator[str]:
    """Loses the reply to the first command with this word, and to each one after it."""
    proxy = Proxy(port)
    proxy.loses = lambda part: word in part or proxy.lost > 0
    with proxy.running() as address:
        yield address


def write(service: StandIn, *uris: str) -> None:
    for uri in uris:
        service.write(PAYLOAD._replace(uri=uri.encode()), best((1, 0.5)))


@pytest.mark.parametrize("words", [(b"EXEC", b"DEL"), (b"SCAN",), (b"HGETALL",)])
async def test_results_are_taken_though_a_reply_is_lost(words: tuple[bytes, ...], port: int, service: StandIn) -> None:
    write(service, "a", "b")
    with losing(port, *words) as (proxy, address), OutputQueue(address) as results:
        assert results.dequeue() == {"a": {1: 0.5}, "b": {1: 0.5}}
        assert (proxy.lost, results.dequeue()) == (1, {})
    write(service, "a", "b")
    with losing(port, *words) as (proxy, address):
        async with AsyncOutputQueue(address) as queue:
            assert await queue.dequeue() == {"a": {1: 0.5}, "b": {1: 0.5}}
            assert (proxy.lost, await queue.dequeue()) == (1, {})


def test_images_of_the_oldest_clients_are_taken_too(port: int, valkey: redis.Redis) -> None:
    service = StandIn(valkey, "image_stream")
    service.write(PAYLOAD._replace(protocol=ProtocolVersion.IMAGE), best((1, 0.5)))
    with losing(port, b"EXEC", b"DEL") as (proxy, address), RedisQueue(src=address) as queue:
        assert (queue.get_results(), proxy.lost, queue.get_results()) == ({"a": {1: 0.5}}, 1, {})


async def test_what_was_taken_is_given_when_redis_fails_for_good(port: int, service: StandIn) -> None:
    """The results are deleted when the last reply does not come, and nobody else will ever have them."""
    for kind in (OutputQueue, AsyncOutputQueue):
        write(service, "a")
        with losing_all(port, b"EXEC") as address:
            queue: Any = kind(address, timeout_s=1)
            taken = queue.dequeue()
            assert (taken if kind is OutputQueue else await taken) == {"a": {1: 0.5}}
            assert not service.valkey.exists("cluster-serving_serving_stream:a")
            closing = queue.close()
            if closing is not None:
                await closing


async def test_a_result_is_given_when_its_deletion_is_not_confirmed(port: int, service: StandIn) -> None:
    for kind in (OutputQueue, AsyncOutputQueue):
        write(service, "a")
        with losing_all(port, b"$3\r\nDEL") as address:
            queue: Any = kind(address, timeout_s=0.5)
            reply = queue.query("a", 0.5, delete=True)
            assert (reply if kind is OutputQueue else await reply) == {1: 0.5}
            closing = queue.close()
            if closing is not None:
                await closing


def test_each_result_goes_to_one_of_many_who_take(url: str, service: StandIn) -> None:
    uris = {f"u{index}" for index in range(2000)}
    write(service, *uris)
    taken: list[list[str]] = []

    def take() -> None:
        with OutputQueue(url) as results:
            taken.append(list(results.dequeue()))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(uri for some in taken for uri in some) == sorted(uris)


async def test_uris_may_recur_with_one_request_id_and_not_with_two(url: str, service: StandIn) -> None:
    write(service, "a", "b")
    said = r"^uri 'a' is wanted of two requests, whose results have one place: the later one replaces the other"
    with OutputQueue(url) as results:
        assert results.query_many(["a", "b", "a"], request_ids=["id1"] * 3) == {"a": {1: 0.5}, "b": {1: 0.5}}
        with pytest.raises(InputError, match=said):
            results.query_many(["a", "b", "a"], request_ids=["id1", "id1", "id2"])
        with pytest.raises(InputError, match=r"^request_ids are 1, wanted is one for each of the 2 uris$"):
            results.query_many(["a", "a"], request_ids=["id1"])
    async with AsyncOutputQueue(url) as queue:
        assert await queue.query_many(["a", "a"], 1, request_ids=["id1"] * 2) == {"a": {1: 0.5}}
        with pytest.raises(InputError, match=said):
            await queue.query_many(["a", "a"], request_ids=["id1", "id2"])
