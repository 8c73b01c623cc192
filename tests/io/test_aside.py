"""What is set aside: decoded by another thread, pending and leased, not counted as delivered while it waits."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from beam_serving.io import aside as module
from beam_serving.io.aside import Aside, Consumers
from beam_serving.records import Entry
from beam_serving.telemetry.context import service_context
from beam_serving.transport.connection import RedisAt
from tests.service import await_true

pytestmark = pytest.mark.every_server
STREAM = b"stream"


@pytest.fixture
def aside(at: RedisAt, client: redis.Redis) -> Iterator[Aside]:
    client.xgroup_create(STREAM, "serving", "0", mkstream=True)
    opened = service_context().shared(Consumers).open(b"me", "serving", at.client())
    yield opened
    opened.close()


def delivered(client: redis.Redis, count: int) -> list[Entry]:
    for number in range(count):
        client.xadd(STREAM, {"uri": str(number)})
    ((_, rows),) = client.xreadgroup("serving", "me", {STREAM: ">"}, count=count)
    return [Entry(STREAM, entry_id, fields, b"me") for entry_id, fields in rows]


def deliveries(client: redis.Redis) -> list[int]:
    return [row["times_delivered"] for row in client.xpending_range(STREAM, "serving", "-", "+", 100)]  # type: ignore[union-attr]


def taken(aside: Aside, count: int) -> list[Any]:
    found: list[Any] = []
    await_true(lambda: found.extend(aside.take()) or len(found) >= count, f"{count} outcomes")
    return found


def test_entries_are_decoded_in_their_order_by_another_thread(aside: Aside, client: redis.Redis) -> None:
    entries = delivered(client, 10)
    assert all(aside.put(entry, lambda one: (one.fields[b"uri"], threading.current_thread().name)) for entry in entries)
    assert aside.busy
    assert aside.streams == {STREAM}
    assert taken(aside, 10) == [(b"%d" % number, "aside") for number in range(10)]
    assert not aside.busy
    assert not aside.streams


def test_who_waits_is_not_counted_as_delivered(aside: Aside, client: redis.Redis) -> None:
    entries = delivered(client, 3)
    turn = threading.Event()
    for entry in entries:
        aside.put(entry, lambda one: turn.wait(10) and one.entry_id)
    await_true(lambda: deliveries(client) == [1, 0, 0], "the turn of the first")
    turn.set()
    assert taken(aside, 3) == [entry.entry_id for entry in entries]
    assert deliveries(client) == [1, 1, 1]


def test_what_is_gone_meanwhile_comes_to_nothing(aside: Aside, client: redis.Redis) -> None:
    first, second = delivered(client, 2)
    client.xdel(STREAM, first.entry_id)
    for entry in (first, second):
        aside.put(entry, lambda one: one.entry_id)
    assert taken(aside, 1) == [second.entry_id]
    await_true(lambda: aside.take() == [] and not aside.busy, "the end of both")


def test_a_fault_of_decoding_is_raised_where_its_outcome_is_taken(aside: Aside, client: redis.Redis) -> None:
    """A thread that died of it would leave all that waits, and the reader would wait for them without an end."""
    first, second = delivered(client, 2)
    aside.put(first, lambda one: 1 // len(one.stream[:0]))
    aside.put(second, lambda one: one.entry_id)
    await_true(lambda: aside.finished(0.1), "the fault")
    with pytest.raises(ZeroDivisionError):
        aside.take()
    assert taken(aside, 1) == [second.entry_id]
    assert client.xpending(STREAM, "serving")["pending"] == 2  # type: ignore[index]


def test_no_more_than_a_lease_renews_are_set_aside(
    aside: Aside, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", 2)
    turn = threading.Event()
    assert [aside.put(entry, lambda _: turn.wait(10)) for entry in delivered(client, 3)] == [True, True, False]
    turn.set()


def test_a_service_that_stops_leaves_what_waits_pending(aside: Aside, client: redis.Redis) -> None:
    turn = threading.Event()
    for entry in delivered(client, 3):
        aside.put(entry, lambda _: turn.wait(10))
    await_true(lambda: deliveries(client) == [1, 0, 0], "the turn of the first")
    aside.close()
    turn.set()
    assert service_context().shared(Consumers).of(b"me") is None
    assert client.xpending(STREAM, "serving")["pending"] == 3  # type: ignore[index]
    assert deliveries(client) == [1, 0, 0]
