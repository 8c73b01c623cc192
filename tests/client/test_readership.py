"""A client that queues where nobody reads is told so: when it does, and when no result comes."""

import asyncio
import logging
from pathlib import Path

import pytest
import redis

from beam_serving.client import AsyncInputQueue, InputQueue, OutputQueue, ResultTimeoutError
from beam_serving.launch.embedded_redis import embedded_redis
from beam_serving.transport.connection import RedisAt
from tests.service import service

NOBODY = "no service reads the stream 'nobody' of Redis at "


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_who_queues_for_nobody_is_warned_once(at: RedisAt, caplog: pytest.LogCaptureFixture) -> None:
    with InputQueue(str(at), stream="nobody") as queue:
        queue.enqueue("a", 1.0)
        queue.enqueue_many([("b", {"x": 1.0})])
        queue.enqueue("c", 1.0)
    (warned,) = warnings(caplog)
    assert warned.startswith(NOBODY)
    assert warned.endswith("what is queued waits for one that has it in data: streams")


def test_who_waits_for_nobody_is_told_the_reason(at: RedisAt) -> None:
    with (
        OutputQueue(str(at), stream="nobody") as results,
        pytest.raises(ResultTimeoutError, match=r"no result within 0\.1 s; no service reads the stream 'nobody'"),
    ):
        results.query("a", timeout_s=0.1)


async def test_coroutines_are_told_alike(at: RedisAt, caplog: pytest.LogCaptureFixture) -> None:
    async with AsyncInputQueue(str(at), stream="nobody") as queue:
        with pytest.raises(ResultTimeoutError, match="; no service reads the stream 'nobody'"):
            await queue.predict(1.0, timeout=0.1)
        await asyncio.gather(*(queue.enqueue(f"a{number}", 1.0) for number in range(3)))
        await queue.enqueue_many([("b", {"x": 1.0})])
    assert [one.startswith(NOBODY) for one in warnings(caplog)] == [True]


def test_a_service_or_a_consumer_of_another_kind_is_somebody(
    at: RedisAt, client: redis.Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"data": {"streams": ["ours"]}, "params": {"workers": 1}}
    with service(at, tmp_path, config), InputQueue(str(at), stream="ours") as queue:
        assert queue.predict(1.0, timeout=20) is not None
    client.xgroup_create("theirs", "group", mkstream=True)
    client.xreadgroup("group", "one", {"theirs": ">"})
    with InputQueue(str(at), stream="theirs") as queue, OutputQueue(str(at), stream="theirs") as results:
        queue.enqueue("a", 1.0)
        with pytest.raises(ResultTimeoutError, match=r"no result within 0\.1 s$"):
            results.query("a", timeout_s=0.1)
    assert warnings(caplog) == []


def test_a_group_that_nobody_reads_in_is_nobody(at: RedisAt, client: redis.Redis) -> None:
    client.xgroup_create("nobody", "group", mkstream=True)
    with (
        OutputQueue(str(at), stream="nobody") as results,
        pytest.raises(ResultTimeoutError, match="; no service reads the stream"),
    ):
        results.query("a", timeout_s=0.1)


def test_a_user_who_may_not_ask_is_told_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with embedded_redis() as port, redis.Redis(port=port) as admin:
        admin.execute_command("ACL", "SETUSER", "sender", "on", ">s3cret-s3cret", "~*", "+xadd", "+client|setname")  # type: ignore[no-untyped-call]
        with InputQueue(f"redis://sender:s3cret-s3cret@localhost:{port}", stream="nobody") as queue:
            queue.enqueue("a", 1.0)
    assert warnings(caplog) == []


def test_a_look_costs_nothing_but_once(at: RedisAt, client: redis.Redis) -> None:
    with InputQueue(str(at), stream="nobody") as queue:
        queue.enqueue("a", 1.0)
        client.config_resetstat()
        for number in range(10):
            queue.enqueue(f"b{number}", 1.0)
    assert "cmdstat_xinfo|groups" not in client.info("commandstats")
