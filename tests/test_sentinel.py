"""A service and its clients follow the primary, on real servers under real sentinels."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import redis

from beam_serving.client import AsyncInputQueue, AsyncOutputQueue, ConnectError, InputQueue, OutputQueue
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Data, Model, Settings
from beam_serving.launch.embedded_redis import free_port
from beam_serving.transport.connection import RedisAt, check
from beam_serving.transport.routes import SENTINEL_PASSWORD_VARIABLE as VARIABLE
from tests.servers import Guarded, guarded_redis
from tests.service import await_true, service

RECORDS = 4000
LATER = 1000
ZEROS = np.zeros(64, np.float32)
Value = TypeVar("Value")


def at(src: str) -> RedisAt:
    return redis_at(Settings(model=Model(path="noop"), data=Data(src=src)))


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    with guarded_redis(tmp_path) as guarded:
        yield guarded


def patiently(call: Callable[[], Value]) -> Value:
    """Calls again while nobody is primary, as a program that must not lose a request does."""
    answers: list[Value] = []

    def answered() -> bool:
        try:
            answers.append(call())
        except ConnectError:
            return False
        return True

    await_true(answered, "a primary")
    return answers[0]


def await_replication(primary: redis.Redis) -> None:
    """Waits until the replica has all that was written so far."""
    primary.set("mark", "")
    assert primary.wait(1, 10_000) == 1


def results(client: redis.Redis) -> int:
    return sum(1 for _ in client.scan_iter("cluster-serving_serving_stream:*", count=5000))


def test_when_the_primary_dies_all_that_was_replicated_ends_as_one_result(guarded: Guarded, tmp_path: Path) -> None:
    config = {"data": {"src": guarded.src, "streams": "serving_stream"}, "params": {"batch_size": 8, "workers": 2}}
    with (
        service(at(guarded.src), tmp_path, config) as running,
        InputQueue(guarded.src, stream="serving_stream") as queue,
        OutputQueue(guarded.src, stream="serving_stream") as answers,
    ):
        for pid in running.worker_pids():
            os.kill(pid, signal.SIGSTOP)
        queue.enqueue_many([(f"r{number}", ZEROS) for number in range(RECORDS)])
        await_replication(guarded.primary.client)
        for pid in running.worker_pids():
            os.kill(pid, signal.SIGCONT)
        await_true(lambda: guarded.primary.client.xlen("serving_stream") < RECORDS * 0.7, "some records served")
        guarded.primary.process.kill()
        later = [f"later{number}" for number in range(LATER)]
        for start in range(0, LATER, 100):
            chunk = [(uri, ZEROS) for uri in later[start : start + 100]]
            patiently(lambda chunk=chunk: queue.enqueue_many(chunk))
        assert len(patiently(lambda: answers.query_many(later, timeout_s=60))) == LATER
        client = guarded.replica.client
        await_true(lambda: client.xlen("serving_stream") == 0, "an empty stream")
        assert client.xpending("serving_stream", "serving")["pending"] == 0
        assert results(client) == RECORDS + LATER
        running.await_ready()
        assert running.stop() == 0


async def test_a_primary_that_becomes_a_replica_is_left(guarded: Guarded, tmp_path: Path) -> None:
    config = {"data": {"src": guarded.src, "streams": "serving_stream"}, "params": {"workers": 1}}
    with service(at(guarded.src), tmp_path, config) as running:
        async with (
            AsyncInputQueue(guarded.src) as queue,
            AsyncOutputQueue(guarded.src) as answers,
        ):
            await queue.enqueue("before", ZEROS)
            await answers.query("before", timeout_s=30)
            guarded.sentinels[0].ask("SENTINEL", "FAILOVER", "digits")
            await_true(lambda: guarded.primary.role() == "slave", "a failover")
            await queue.enqueue("after", ZEROS)
            await answers.query("after", timeout_s=30)
        assert guarded.replica.client.exists("cluster-serving_serving_stream:after")
        assert "making it again" not in running.log


def test_a_waiting_reader_is_told_by_the_new_primary(guarded: Guarded, tmp_path: Path) -> None:
    found: dict[str, object] = {}
    with OutputQueue(guarded.src, stream="s") as answers:
        reader = threading.Thread(target=lambda: found.update(answers.query_many(["a"], timeout_s=30)))
        reader.start()
        await_true(lambda: guarded.primary.client.pubsub_numsub("cluster-serving_s:a")[0][1], "a subscription")
        guarded.sentinels[0].ask("SENTINEL", "FAILOVER", "digits")
        await_true(lambda: guarded.replica.role() == "master", "a failover")
        await_true(lambda: guarded.replica.client.pubsub_numsub("cluster-serving_s:a")[0][1], "another subscription")
        guarded.replica.client.hset("cluster-serving_s:a", mapping={"error": "none"})
        guarded.replica.client.publish("cluster-serving_s:a", "")
        reader.join(timeout=10)
        assert list(found) == ["a"]


def test_any_sentinel_that_lives_will_do(guarded: Guarded) -> None:
    guarded.sentinels[0].process.kill()
    client = at(guarded.src).client()
    check(at(guarded.src), client)
    assert client.connection_pool.connection_kwargs.get("port") is None
    assert client.info("replication")["role"] == "master"


def test_a_name_that_no_sentinel_knows_is_said_so(guarded: Guarded) -> None:
    port = guarded.sentinels[0].port
    src = f"redis+sentinel://127.0.0.1:{port}/other"
    with pytest.raises(redis.ConnectionError, match=f"nobody says which server it is: 127.0.0.1:{port} does not know"):
        check(at(src), at(src).client())


def test_sentinels_that_are_not_there_are_named() -> None:
    src = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/digits"
    with InputQueue(src) as queue, pytest.raises(ConnectError) as caught:
        queue.enqueue("a", ZEROS)
    assert str(caught.value).startswith(
        f"Redis at digits of the sentinels {src[17:-7].replace(',', ', ')}: nobody says"
    )


def test_sentinels_may_want_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded_redis(tmp_path, sentinels=1, password="s3cret") as guarded:  # noqa: S106 - a test's own
        where = at(guarded.src)
        with pytest.raises(ConnectError, match="refuses our user or password .*that of sentinels is " + VARIABLE):
            check(where, where.client())
        monkeypatch.setenv(VARIABLE, "s3cret")
        check(where, where.client())
