"""A consumer against a real server, and against what happens to servers."""

import socket
import struct
import threading

import pytest
import redis

from beam_serving.errors import ConnectError
from beam_serving.io.consumer import Reading, StreamConsumer
from beam_serving.launch.embedded_redis import embedded_redis, free_port
from beam_serving.records import Entry
from beam_serving.telemetry.context import service_context
from beam_serving.transport.connection import RedisAt
from tests.io.blocks import entries_of
from tests.service import await_true

pytestmark = pytest.mark.every_server


def reading(at: RedisAt, **changes: object) -> Reading:
    defaults = {"streams": ("first", "second"), "group": "serving", "count": 4, "poll_s": 0.05, "reclaim_idle_s": 60.0}
    return Reading(at=at, **{**defaults, **changes})  # type: ignore[arg-type]


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


def test_a_poll_reads_all_streams_and_at_most_count_of_each(
    at: RedisAt, client: redis.Redis, stop: threading.Event
) -> None:
    for number in range(6):
        client.xadd("first", {"uri": f"f{number}"})
    client.xadd("second", {"uri": "s0"})
    consumer = StreamConsumer(reading(at), "me", stop)
    assert sorted(entry.fields[b"uri"] for entry in entries_of(consumer.read_batch())) == [
        b"f0",
        b"f1",
        b"f2",
        b"f3",
        b"s0",
    ]
    assert [entry.fields[b"uri"] for entry in entries_of(consumer.read_batch())] == [b"f4", b"f5"]
    assert entries_of(consumer.read_batch()) == []


def test_a_poll_gives_nothing_after_a_stop(at: RedisAt, client: redis.Redis, stop: threading.Event) -> None:
    client.xadd("first", {"uri": "a"})
    stop.set()
    assert entries_of(StreamConsumer(reading(at), "me", stop).read_batch()) == []


def test_a_successor_of_the_same_name_takes_up_what_was_left_one_at_a_time(
    at: RedisAt, client: redis.Redis, stop: threading.Event
) -> None:
    for uri in "abc":
        client.xadd("first", {"uri": uri})
    assert len(entries_of(StreamConsumer(reading(at), "me", stop).read_batch())) == 3
    successor = StreamConsumer(reading(at), "me", stop)
    for uri in (b"a", b"b", b"c"):
        (entry,) = entries_of(successor.read_batch())
        assert (entry.fields[b"uri"], entry.deliveries) == (uri, 2)
        client.xack("first", "serving", entry.entry_id)
    assert entries_of(successor.read_batch()) == []


def test_entries_of_a_silent_consumer_are_taken_over_after_the_idle_limit(
    at: RedisAt, client: redis.Redis, stop: threading.Event
) -> None:
    client.xadd("first", {"uri": "a"})
    entries_of(StreamConsumer(reading(at), "silent", stop).read_batch())
    assert entries_of(StreamConsumer(reading(at), "patient", stop).read_batch()) == []
    (entry,) = entries_of(StreamConsumer(reading(at, reclaim_idle_s=0.001), "eager", stop).read_batch())
    assert (entry.consumer, entry.deliveries) == (b"eager", 2)


@pytest.mark.parametrize("disaster", ["flushall", "delete", "destroy"])
def test_reading_goes_on_when_the_stream_or_its_group_vanishes(
    at: RedisAt, client: redis.Redis, stop: threading.Event, disaster: str
) -> None:
    consumer = StreamConsumer(reading(at, streams=("first",), poll_s=5.0), "me", stop)
    consumer._claim()
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.extend(entries_of(consumer.read_batch())))
    reader.start()
    while not any("xreadgroup" in info["cmd"] for info in client.client_list()):
        pass
    if disaster == "destroy":
        client.xgroup_destroy("first", "serving")
    elif disaster == "delete":
        client.delete("first")
    else:
        client.flushall()
    client.xadd("first", {"uri": "after"})
    reader.join(timeout=2.0)
    assert not reader.is_alive()
    assert len(found) == 1
    assert service_context().stats.counts["regrouped"] >= 1


def test_reading_goes_on_when_the_server_comes_back(stop: threading.Event) -> None:
    port = free_port()
    at = RedisAt("127.0.0.1", port, timeout_s=1.0)
    consumer = StreamConsumer(reading(at, streams=("first",)), "me", stop)
    with embedded_redis(port):
        assert entries_of(consumer.read_batch()) == []
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.extend(entries_of(consumer.read_batch())))
    reader.start()
    while service_context().stats.state != "waiting for Redis":
        pass
    with embedded_redis(port):
        at.client().xadd("first", {"uri": "a"})
        reader.join(timeout=10)
        while not found and not reader.is_alive():
            found.extend(entries_of(consumer.read_batch()))
    assert len(found) == 1


def test_a_wrong_key_type_ends_reading_with_the_reason(at: RedisAt, client: redis.Redis, stop: threading.Event) -> None:
    client.set("first", "a text")
    with pytest.raises(ConnectError, match="a key that we need holds something else: WRONGTYPE"):
        entries_of(StreamConsumer(reading(at), "me", stop).read_batch())


def test_it_is_drained_only_when_nothing_is_queued_or_in_work_anywhere(
    at: RedisAt, client: redis.Redis, stop: threading.Event
) -> None:
    consumer = StreamConsumer(reading(at), "me", stop)
    entries_of(consumer.read_batch())
    assert consumer.drained()
    client.xadd("second", {"uri": "a"})
    assert not consumer.drained()
    (entry,) = entries_of(StreamConsumer(reading(at), "other", stop).read_batch())
    assert not consumer.drained()
    client.xack("second", "serving", entry.entry_id)
    client.xdel("second", entry.entry_id)
    assert consumer.drained()


def test_the_wait_in_the_queue_is_measured_with_the_clock_of_redis(
    at: RedisAt, client: redis.Redis, stop: threading.Event
) -> None:
    seconds, _ = client.time()
    client.xadd("first", {"uri": "a"}, id=f"{(seconds - 60) * 1000}-0")
    entries_of(StreamConsumer(reading(at), "me", stop).read_batch())
    assert service_context().stats.stages["wait"].quantile(0.5) == pytest.approx(60, rel=0.1)


def test_a_full_poll_asks_for_the_next_one_which_is_given_even_after_a_stop(
    at: RedisAt, client: redis.Redis, stop: threading.Event
) -> None:
    for number in range(6):
        client.xadd("first", {"uri": f"{number}"})
    consumer = StreamConsumer(reading(at), "me", stop)
    assert len(entries_of(consumer.read_batch(read_ahead=True))) == 4
    assert consumer.reading_ahead
    while client.xpending("first", "serving")["pending"] < 6:
        pass
    stop.set()
    assert [entry.fields[b"uri"] for entry in entries_of(consumer.read_batch(read_ahead=True))] == [b"4", b"5"]
    assert not consumer.reading_ahead
    assert entries_of(consumer.read_batch(read_ahead=True)) == []


def test_nothing_is_read_ahead_after_a_poll_that_was_not_full(
    at: RedisAt, client: redis.Redis, stop: threading.Event
) -> None:
    client.xadd("first", {"uri": "a"})
    consumer = StreamConsumer(reading(at), "me", stop)
    assert len(entries_of(consumer.read_batch(read_ahead=True))) == 1
    assert not consumer.reading_ahead


def oldest_idle_ms(client: redis.Redis) -> int:
    """Gives for how long nobody has touched the first entry that is pending."""
    (first,) = client.xpending_range("first", "serving", "-", "+", 1)
    return int(first["time_since_delivered"])


def test_abandoned_entries_are_taken_over_in_the_midst_of_a_backlog(
    at: RedisAt, client: redis.Redis, stop: threading.Event
) -> None:
    client.xadd("first", {"uri": "abandoned"})
    entries_of(StreamConsumer(reading(at), "silent", stop).read_batch())
    for number in range(40):
        client.xadd("first", {"uri": f"{number}"})
    consumer = StreamConsumer(reading(at, reclaim_idle_s=0.02), "eager", stop)
    polled: list[Entry] = []
    while len(polled) < 41:
        entries = entries_of(consumer.read_batch(read_ahead=True))
        client.xack("first", "serving", *[entry.entry_id for entry in entries])
        polled += entries
        if len(polled) == 8:
            await_true(lambda: oldest_idle_ms(client) >= 20, "an entry that is idle for long enough")
    assert [entry.fields[b"uri"] for entry in polled if entry.deliveries == 2] == [b"abandoned"]
    assert polled[-1].fields[b"uri"] == b"39"


def test_what_was_read_ahead_on_a_connection_that_broke_is_taken_up_again(
    at: RedisAt, client: redis.Redis, stop: threading.Event
) -> None:
    for number in range(6):
        client.xadd("first", {"uri": f"{number}"})
    consumer = StreamConsumer(reading(at, streams=("first",)), "me", stop)
    served = entries_of(consumer.read_batch(read_ahead=True))
    while client.xpending("first", "serving")["pending"] < 6:
        pass
    # A reset and not an orderly end, which would let the reply be read.
    sock = consumer._channel._connection._sock
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    client.xack("first", "serving", *[entry.entry_id for entry in served])
    for uri in (b"4", b"5"):
        (entry,) = entries_of(consumer.read_batch(read_ahead=True))
        assert (entry.fields[b"uri"], entry.deliveries) == (uri, 2)
        client.xack("first", "serving", entry.entry_id)
    assert entries_of(consumer.read_batch()) == []


def served(consumer: StreamConsumer, client: redis.Redis, group: str = "serving") -> list[list[Entry]]:
    """Gives the polls up to the first empty one, each acknowledged."""
    polls = []
    while entries := entries_of(consumer.read_batch()):
        polls.append(entries)
        for one in entries:
            client.xack(one.stream, group, one.entry_id)
    return polls


def test_a_poll_of_too_many_bytes_is_read_one_by_one_and_counts_once(
    at: RedisAt, client: redis.Redis, stop: threading.Event
) -> None:
    for number in range(6):
        client.xadd("first", {"uri": f"r{number}", "tensor:": bytes(700_000)})
    consumer = StreamConsumer(reading(at, most_bytes=1_000_000), "me", stop)
    polls = served(consumer, client)
    assert [len(entries) for entries in polls] == [1] * 6
    assert [one.fields[b"uri"] for (one,) in polls] == [b"r%d" % number for number in range(6)]
    assert [(one.deliveries, one.unread, len(one.fields[b"tensor:"])) for (one,) in polls] == [(1, "", 700_000)] * 6


def test_full_polls_return_when_entries_are_small_again(
    at: RedisAt, client: redis.Redis, stop: threading.Event
) -> None:
    for number in range(24):
        client.xadd("first", {"uri": f"r{number}", "tensor:": bytes(700_000 if number < 4 else 7)})
    polls = served(StreamConsumer(reading(at, most_bytes=1_000_000), "me", stop), client)
    assert [len(entries) for entries in polls] == [1, 1, 1, 1, 1, 2, 4, 4, 4, 4, 1]


def test_an_entry_above_the_limit_comes_without_its_contents(
    at: RedisAt, client: redis.Redis, stop: threading.Event
) -> None:
    client.xadd("first", {"uri": "large", "id": "i", "data": bytes(3_000_000)})
    client.xadd("first", {"uri": "good"})
    (large,), (good,) = served(StreamConsumer(reading(at, most_bytes=1_000_000), "me", stop), client)
    assert large.fields == {b"uri": b"large", b"id": b"i", b"data": b""}
    assert large.unread == "request is 3000015 bytes, at most 1000000 are served"
    assert (large.deliveries, good.fields, good.unread) == (1, {b"uri": b"good"}, "")


def test_an_entry_of_very_many_fields_comes_without_them(
    at: RedisAt, client: redis.Redis, stop: threading.Event
) -> None:
    fields = {b"%d" % number: b"" for number in range(200_000)}
    client.xadd("first", {b"uri": b"many", **fields})
    ((many,),) = served(StreamConsumer(reading(at), "me", stop), client)
    assert (many.fields, many.unread) == ({b"uri": b"many"}, "request has 200001 fields, at most 256 are served")


def test_an_abandoned_entry_above_the_limit_comes_without_its_contents(
    at: RedisAt, client: redis.Redis, stop: threading.Event
) -> None:
    client.xgroup_create("first", "serving", "0", mkstream=True)
    client.xadd("first", {"uri": "large", "image:": bytes(3_000_000)})
    client.xreadgroup("serving", "dead", {"first": ">"})
    consumer = StreamConsumer(reading(at, most_bytes=1_000_000, reclaim_idle_s=0.0), "me", stop)
    ((large,),) = served(consumer, client)
    assert large.fields == {b"uri": b"large"}
    assert (large.deliveries, large.unread) == (2, "request is 3000014 bytes, at most 1000000 are served")


def test_what_is_read_ahead_is_bounded_too(at: RedisAt, client: redis.Redis, stop: threading.Event) -> None:
    for number in range(8):
        client.xadd("first", {"uri": f"r{number}", "tensor:": bytes(7 if number < 4 else 700_000)})
    consumer = StreamConsumer(reading(at, most_bytes=1_000_000), "me", stop)
    small = entries_of(consumer.read_batch(read_ahead=True))
    assert consumer.reading_ahead
    client.xack("first", "serving", *[one.entry_id for one in small])
    (large,) = entries_of(consumer.read_batch())
    assert (large.fields[b"uri"], large.deliveries) == (b"r4", 1)
