"""The consumer group against a real server."""

import pytest
import redis
from redis.exceptions import ResponseError

from beam_serving.io.group import Group

pytestmark = pytest.mark.every_server

STREAM = b"serving_stream"


@pytest.fixture
def group(client: redis.Redis) -> Group:
    return Group(client, STREAM, "serving", b"me")


def deliver(client: redis.Redis, consumer: str, count: int) -> list[bytes]:
    """Lets another consumer read `count` entries and forget them; gives their ids."""
    reply = client.xreadgroup("serving", consumer, {STREAM: ">"}, count=count)
    return [entry_id for entry_id, _ in reply[0][1]]


def test_a_group_is_made_with_its_stream_and_reads_from_the_start(client: redis.Redis, group: Group) -> None:
    client.xadd(STREAM, {"uri": "early"})
    group.ensure()
    assert len(deliver(client, "me", 10)) == 1


def test_a_group_that_an_old_client_made_at_the_end_is_moved_to_the_start(client: redis.Redis, group: Group) -> None:
    client.xadd(STREAM, {"uri": "queued before"})
    client.xgroup_create(STREAM, "serving", "$")
    group.ensure()
    assert len(deliver(client, "me", 10)) == 1


def test_a_group_that_has_read_is_left_where_it_is(client: redis.Redis, group: Group) -> None:
    group.ensure()
    client.xadd(STREAM, {"uri": "a"})
    ids = deliver(client, "other", 10)
    client.xack(STREAM, "serving", *ids)
    group.ensure()
    assert client.xreadgroup("serving", "me", {STREAM: ">"}) == []


def test_a_key_of_another_type_is_named_in_the_error(client: redis.Redis, group: Group) -> None:
    client.set(STREAM, "a text")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        group.ensure()


def test_own_entries_are_claimed_with_their_delivery_count(client: redis.Redis, group: Group) -> None:
    group.ensure()
    client.xadd(STREAM, {"uri": "a"})
    ids = deliver(client, "me", 1)
    entry = group.claim_own()
    assert entry
    assert (entry.entry_id, entry.fields, entry.consumer, entry.deliveries) == (ids[0], {b"uri": b"a"}, b"me", 2)


def test_entries_of_another_consumer_are_claimed_only_when_they_are_idle(client: redis.Redis, group: Group) -> None:
    group.ensure()
    client.xadd(STREAM, {"uri": "a"})
    deliver(client, "other", 1)
    assert group.claim_own() is None
    assert group.claim_abandoned(idle_s=60) is None
    entry = group.claim_abandoned(idle_s=0)
    assert entry
    assert (entry.consumer, entry.deliveries) == (b"me", 2)


def test_entries_that_were_trimmed_while_pending_are_reported_and_let_go(
    client: redis.Redis, group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    group.ensure()
    for uri in "abc":
        client.xadd(STREAM, {"uri": uri})
    ids = deliver(client, "me", 3)
    client.xdel(STREAM, ids[0], ids[2])
    entry = group.claim_own()
    assert entry
    assert entry.entry_id == ids[1]
    client.xack(STREAM, "serving", ids[1])
    assert group.claim_own() is None
    assert caplog.text.count("lost 1 entries") == 2
    assert client.xpending(STREAM, "serving")["pending"] == 0


def test_trimmed_entries_of_another_consumer_are_let_go_too(
    client: redis.Redis, group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    group.ensure()
    client.xadd(STREAM, {"uri": "a"})
    client.xdel(STREAM, *deliver(client, "other", 1))
    assert group.claim_abandoned(idle_s=0) is None
    assert "lost 1 entries" in caplog.text
    assert client.xpending(STREAM, "serving")["pending"] == 0


def test_a_thousand_abandoned_entries_are_taken_over_one_by_one(client: redis.Redis, group: Group) -> None:
    group.ensure()
    for number in range(1000):
        client.xadd(STREAM, {"uri": str(number)})
    ids = deliver(client, "other", 1000)
    taken = []
    while entry := group.claim_abandoned(idle_s=0):
        taken.append(entry.entry_id)
        client.xack(STREAM, "serving", entry.entry_id)
    assert taken == ids


def test_what_waits_behind_an_entry_is_not_counted_as_delivered_with_it(client: redis.Redis, group: Group) -> None:
    group.ensure()
    client.xadd(STREAM, {"uri": "crashes"})
    client.xadd(STREAM, {"uri": "innocent"})
    deliver(client, "me", 2)
    counts = [entry.deliveries for _ in range(3) if (entry := group.claim_own())]
    assert counts == [2, 3, 4]
    innocent = client.xpending_range(STREAM, "serving", "-", "+", 10)[1]
    assert innocent["times_delivered"] == 1


def test_only_consumers_that_are_gone_and_own_nothing_are_reaped(
    client: redis.Redis, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beam_serving.io.group._ABANDONED_AFTER_S", -1.0)
    group.ensure()
    client.xadd(STREAM, {"uri": "a"})
    deliver(client, "owner", 1)
    for number in range(50):
        client.xgroup_createconsumer(STREAM, "serving", f"gone-{number}")
    assert group.reap() == 50
    assert [info["name"] for info in client.xinfo_consumers(STREAM, "serving")] == [b"owner"]


def test_the_backlog_counts_entries_and_those_in_work(client: redis.Redis, group: Group) -> None:
    group.ensure()
    for uri in "abc":
        client.xadd(STREAM, {"uri": uri})
    deliver(client, "other", 2)
    assert group.backlog() == (3, 2)


def test_a_consumer_that_leaves_takes_its_name_away(client: redis.Redis, group: Group) -> None:
    group.ensure()
    client.xgroup_createconsumer(STREAM, "serving", "me")
    group.release()
    assert client.xinfo_consumers(STREAM, "serving") == []


def test_a_consumer_that_leaves_entries_behind_leaves_its_name_too(client: redis.Redis, group: Group) -> None:
    group.ensure()
    client.xadd(STREAM, {"uri": "a"})
    deliver(client, "me", 1)
    group.release()
    assert client.xpending(STREAM, "serving")["pending"] == 1


def test_leaving_a_group_that_is_gone_is_no_error(client: redis.Redis, group: Group) -> None:
    group.release()
    assert client.exists(STREAM) == 0
