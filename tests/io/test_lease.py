"""A lease against a real server."""

import time

import pytest
import redis

from beam_serving.io.lease import Lease
from beam_serving.records import Entry
from beam_serving.transport.connection import RedisAt

pytestmark = pytest.mark.every_server


def idle_ms(client: redis.Redis) -> int:
    (row,) = client.xpending_range("s", "serving", "-", "+", 10)
    return int(row["time_since_delivered"])


@pytest.fixture
def entry(client: redis.Redis) -> Entry:
    client.xgroup_create("s", "serving", "0", mkstream=True)
    client.xadd("s", {"uri": "a"})
    reply = client.xreadgroup("serving", "me", {"s": ">"})
    return Entry(b"s", reply[0][1][0][0], {}, b"me")


def test_a_held_entry_stays_young(at: RedisAt, client: redis.Redis, entry: Entry) -> None:
    lease = Lease(at, "serving", b"me", idle_s=0.3)
    lease.hold([entry])
    give_up_at = time.monotonic() + 5
    oldest = newest = 0
    while newest >= oldest and time.monotonic() < give_up_at:
        oldest, newest = max(oldest, newest), idle_ms(client)
    lease.close()
    assert newest < oldest, "the idle time was never reset"
    (row,) = client.xpending_range("s", "serving", "-", "+", 10)
    assert row["times_delivered"] == 1


def test_what_another_consumer_took_over_is_not_taken_back(at: RedisAt, client: redis.Redis, entry: Entry) -> None:
    client.xclaim("s", "serving", "thief", 0, [entry.entry_id])
    lease = Lease(at, "serving", b"me", idle_s=0.03)
    lease.hold([entry])
    calls_before = client.info("commandstats").get("cmdstat_eval", {"calls": 0})["calls"]
    while client.info("commandstats").get("cmdstat_eval", {"calls": 0})["calls"] < calls_before + 3:
        pass
    lease.close()
    (row,) = client.xpending_range("s", "serving", "-", "+", 10)
    assert row["consumer"] == b"thief"
