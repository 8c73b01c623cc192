"""The outbox against a real server: rows stay until they are in files, and one drain at a time takes them."""

import threading
from typing import Any

import pytest
import redis

from beam_serving.io.outbox import Outbox, OutboxRecord, forget, kept, records_in, sole_writer
from beam_serving.transport.connection import RedisAt
from tests.service import await_true

pytestmark = pytest.mark.every_server

ROWS = "stream:rows"


def keep(client: redis.Redis, count: int, value: bytes = b"[[7,0.5]]") -> list[bytes]:
    """Puts rows into the outbox of `stream` and gives their ids."""
    row = {"key": "cluster-serving_stream:a", "value": value}
    return [client.xadd(ROWS, {"entry": f"{number}-0", **row}) for number in range(count)]  # type: ignore[misc]


def test_rows_come_oldest_first_with_what_the_commit_knew(client: redis.Redis) -> None:
    ids = keep(client, 2)
    (found,) = kept(client, ["other", "stream"])
    assert found == Outbox(b"stream", ids[1])
    assert list(records_in(client, found)) == [
        OutboxRecord(b"stream", ids[0], b"0-0", b"cluster-serving_stream:a", {b"value": b"[[7,0.5]]"}),
        OutboxRecord(b"stream", ids[1], b"1-0", b"cluster-serving_stream:a", {b"value": b"[[7,0.5]]"}),
    ]


@pytest.mark.parametrize(("count", "size"), [(5000, 10), (50, 1_000_000)])
def test_all_rows_come_once_whatever_their_size(client: redis.Redis, count: int, size: int) -> None:
    keep(client, count, b"x" * size)
    (found,) = kept(client, ["stream"])
    assert [int(row.entry[:-2]) for row in records_in(client, found)] == list(range(count))


def test_what_is_kept_later_is_neither_read_nor_forgotten(client: redis.Redis) -> None:
    keep(client, 3)
    (found,) = kept(client, ["stream"])
    later = keep(client, 1)
    assert len(list(records_in(client, found))) == 3
    forget(client, found)
    assert [record_id for record_id, _ in client.xrange(ROWS)] == later  # type: ignore[union-attr]


def test_an_outbox_without_rows_leaves_no_key(client: redis.Redis) -> None:
    keep(client, 3)
    (found,) = kept(client, ["stream"])
    forget(client, found)
    assert kept(client, ["stream"]) == []
    assert client.exists(ROWS) == 0


def test_a_second_writer_waits_for_the_first(at: RedisAt, client: redis.Redis) -> None:
    order = []

    def reads() -> int:
        stats: Any = client.info("commandstats")
        return int(stats["cmdstat_get"]["calls"])

    def second() -> None:
        other = at.client()
        with sole_writer(other, "digits", "two"):
            order.append("two")
        other.close()

    waiting = threading.Thread(target=second)
    with sole_writer(client, "digits", "one"):
        assert client.get("beam-serving:digits:output") == b"one"
        before = reads()
        waiting.start()
        # It asks again and again while it waits; each try reads the lock.
        await_true(lambda: reads() >= before + 3, "some tries")
        order.append("one")
    waiting.join(30)
    assert order == ["one", "two"]
    assert client.exists("beam-serving:digits:output") == 0


def test_a_lock_that_another_holds_by_now_is_left_to_it(client: redis.Redis) -> None:
    with sole_writer(client, "digits", "one"):
        client.set("beam-serving:digits:output", "two")
    assert client.get("beam-serving:digits:output") == b"two"
