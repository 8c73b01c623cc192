"""What happens to processes and servers must not happen to records: each ends as exactly one result."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import redis

from beam_serving.client import InputQueue, QueueFullError
from beam_serving.launch.embedded_redis import embedded_redis, free_port
from beam_serving.transport.connection import RedisAt
from tests.service import Service, await_true, result_writes, service

RECORDS = 10_000
TENSOR = {"tensor:": b"\x00" * 256, "dtype:": "float32", "shape:": "64"}


def queue_records(client: redis.Redis, count: int = RECORDS, prefix: str = "r") -> None:
    for start in range(0, count, 1000):
        pipeline = client.pipeline(transaction=False)
        for number in range(start, start + 1000):
            pipeline.xadd("serving_stream", {"uri": f"{prefix}{number}", **TENSOR})
        pipeline.execute()


def results(client: redis.Redis) -> int:
    return sum(1 for _ in client.scan_iter("cluster-serving_serving_stream:*", count=5000))


def assert_all_served_once(client: redis.Redis, writes_before: int, count: int = RECORDS) -> None:
    await_true(lambda: client.xlen("serving_stream") == 0, "an empty stream")
    assert results(client) == count
    assert result_writes(client) - writes_before == count
    assert client.xpending("serving_stream", "serving")["pending"] == 0


def await_half(client: redis.Redis) -> None:
    await_true(lambda: client.xlen("serving_stream") < RECORDS * 0.7, "some records served")


def test_a_killed_worker_is_replaced_and_loses_nothing(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    with service(at, tmp_path, {"params": {"batch_size": 8, "workers": 2}}) as running:
        writes = result_writes(client)
        queue_records(client)
        await_half(client)
        os.kill(running.worker_pids()[0], signal.SIGKILL)
        assert_all_served_once(client, writes)
        assert "died (signal SIGKILL): starting it again" in running.log
        running.await_ready()


def test_a_service_is_ready_again_only_when_the_successor_of_a_killed_worker_serves(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    with service(at, tmp_path, {"params": {"workers": 1}}) as running:
        (killed,) = running.worker_pids()
        os.kill(killed, signal.SIGKILL)
        await_true(lambda: running.log.count("] ready: ") == 2, "ready again")
        (successor,) = running.worker_pids()
        assert successor != killed


def test_the_entries_of_a_killed_service_are_taken_over_by_another(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    config = {"params": {"batch_size": 8, "workers": 1, "reclaim_idle_s": 1.0}}
    with service(at, tmp_path / "one", config) as first:
        writes = result_writes(client)
        queue_records(client)
        await_half(client)
        (pid,) = first.worker_pids()
        first.process.kill()
        os.kill(pid, signal.SIGKILL)
        assert client.xlen("serving_stream") > 0
        client.delete("beam-serving:tested:ready")
        with service(at, tmp_path / "two", config):
            assert_all_served_once(client, writes)


def test_a_stopped_worker_is_overtaken_and_writes_nothing_when_it_wakes(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    config = {"params": {"batch_size": 8, "workers": 2, "reclaim_idle_s": 1.0}}
    with service(at, tmp_path, config) as running:
        writes = result_writes(client)
        queue_records(client)
        await_half(client)
        pid = running.worker_pids()[0]
        os.kill(pid, signal.SIGSTOP)
        assert_all_served_once(client, writes)
        os.kill(pid, signal.SIGCONT)
        queue_records(client, 1000, prefix="later")
        await_true(lambda: results(client) == RECORDS + 1000, "the later records")
    assert result_writes(client) - writes == RECORDS + 1000


def test_sigterm_finishes_what_is_in_flight_and_leaves_the_rest_queued(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    with service(at, tmp_path, {"params": {"batch_size": 8, "workers": 2}}) as running:
        queue_records(client)
        await_half(client)
        assert running.stop() == 0
    left = client.xlen("serving_stream")
    assert left > 0
    assert results(client) == RECORDS - left
    assert client.xpending("serving_stream", "serving")["pending"] == 0
    assert client.exists("beam-serving:tested:ready") == 0


def test_a_drain_serves_what_is_queued_and_ends_done(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    writes = result_writes(client)
    queue_records(client)
    running = Service(at, tmp_path, {"params": {"batch_size": 64, "workers": 2}}, "--drain")
    assert running.process.wait(60) == 0
    assert_all_served_once(client, writes)
    assert f"state DONE: {RECORDS} records served, 0 of them with an error" in running.log


def test_serving_goes_on_after_a_flushall(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    with service(at, tmp_path, {"params": {"workers": 1}}) as running:
        client.flushall()
        client.xadd("serving_stream", {"uri": "after", **TENSOR})
        await_true(lambda: client.exists("cluster-serving_serving_stream:after"), "the result", 5)
        await_true(lambda: "making it again" in running.log, "a word about it")


def test_serving_goes_on_after_a_restart_of_redis_with_its_log(tmp_path: Path) -> None:
    port, data = free_port(), tmp_path / "data"
    data.mkdir()
    options = ("--appendonly", "yes", "--appendfsync", "always", "--dir", str(data))
    at = RedisAt("127.0.0.1", port)
    with embedded_redis(port, *options):
        running = Service(at, tmp_path, {"params": {"batch_size": 8, "workers": 2}})
        running.await_ready()
        client = at.client()
        queue_records(client)
        await_half(client)
    with embedded_redis(port, *options):
        try:
            client = at.client()
            await_true(lambda: client.xlen("serving_stream") == 0, "an empty stream")
            assert results(client) == RECORDS
            assert client.xpending("serving_stream", "serving")["pending"] == 0
            assert "does not serve us" in running.log or "takes no results" in running.log
        finally:
            code = running.stop()
    assert code == 0


def test_without_memory_producers_are_told_and_what_is_queued_is_served(tmp_path: Path) -> None:
    with embedded_redis() as port:
        at = RedisAt("127.0.0.1", port)
        client = at.client()
        with service(at, tmp_path, {"params": {"batch_size": 8, "workers": 1}}) as running:
            (pid,) = running.worker_pids()
            os.kill(pid, signal.SIGSTOP)
            queue_records(client, 1000)
            client.config_set("maxmemory", "1mb")
            with InputQueue("127.0.0.1", port) as queue, pytest.raises(QueueFullError):
                queue.enqueue("one more", np.zeros(64, np.float32))
            os.kill(pid, signal.SIGCONT)
            await_true(lambda: results(client) == 1000, "all results")
            assert client.xpending("serving_stream", "serving")["pending"] == 0
