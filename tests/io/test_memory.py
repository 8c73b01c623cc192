"""A server without memory: results that are larger than their requests do not go beyond its limit for long."""

import threading
from collections.abc import Iterator

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.io.consumer import Reading, StreamConsumer
from beam_serving.io.group import Group
from beam_serving.io.memory import Balance, Room
from beam_serving.io.outbox import sole_writer
from beam_serving.io.scripts import COMMIT, COMMIT_AND_KEEP
from beam_serving.io.sink import commit_arguments
from beam_serving.records import Block, Entry, Failure, Origin, ProtocolVersion, Result
from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.report import Deployment, announce, ask_to_stop, asked_to_stop, read_reports, ready_key
from beam_serving.telemetry.reporter import Reporter
from beam_serving.telemetry.stats import WorkerStats
from beam_serving.transport.channel import Channel, Script
from beam_serving.transport.connection import PASSWORD_VARIABLE, RedisAt
from beam_serving.transport.keys import DEAD_LETTERS
from tests.io.blocks import entries_of
from tests.io.test_sink import SEVEN, STREAM, key, queue_and_read, step_of

pytestmark = pytest.mark.every_server


@pytest.fixture
def without_memory(client: redis.Redis) -> Iterator[None]:
    """Calls for a server whose limit is below what it uses, from the moment that a test sets it."""
    limit = client.config_get("maxmemory")["maxmemory"]
    yield
    client.config_set("maxmemory", limit)


def entry(size: int, number: int = 1) -> Entry:
    return Entry(STREAM, b"%d-1" % number, {b"uri": b"a", b"tensor:": b"x" * size}, b"me")


@pytest.mark.parametrize("source", [COMMIT, COMMIT_AND_KEEP])
def test_a_commit_tells_that_the_server_had_no_memory_and_is_written(
    at: RedisAt, client: redis.Redis, without_memory: None, source: str
) -> None:
    script = Script(Channel(at.client()), source)
    origins = queue_and_read(client, [b"a", b"b", b"c"])
    client.set(key("a"), "of another type")

    def commit(*results: Result) -> int:
        keys, arguments = commit_arguments(results, "serving", 60_000)
        return script.run([*keys, STREAM + b":rows"] if source == COMMIT_AND_KEEP else keys, arguments)

    client.config_set("maxmemory", 1)
    assert commit(*(Result(origin, SEVEN) for origin in origins[:2])) == -2
    client.config_set("maxmemory", 0)
    assert commit(Result(origins[2], SEVEN)) == 1
    for uri in "abc":
        assert client.hgetall(key(uri))[b"value"] == b"[[7,0.5]]"
    assert client.xlen(STREAM) == 0


def test_a_dead_letter_without_a_result_is_kept_without_memory(
    at: RedisAt, client: redis.Redis, without_memory: None
) -> None:
    (origin,) = queue_and_read(client, [b"a"])
    client.config_set("maxmemory", 1)
    failed = Result(origin._replace(uri=b""), Failure("no uri", {b"x": b"y"}))
    assert Script(Channel(at.client()), COMMIT).run(*commit_arguments([failed], "serving", 0)) == 1
    assert client.xlen(STREAM + DEAD_LETTERS) == 1
    assert client.xlen(STREAM) == 0


def test_a_service_starts_and_is_known_and_stopped_on_a_server_without_memory(
    at: RedisAt, client: redis.Redis, without_memory: None
) -> None:
    client.config_set("maxmemory", 1)
    with pytest.raises(redis.ResponseError, match="maxmemory"):
        client.set("any", "thing")
    Group(client, STREAM, "serving", b"me").ensure()
    assert client.xinfo_groups(STREAM)[0]["name"] == b"serving"  # type: ignore[index]
    stopped = threading.Event()
    reporter = Reporter(at, "digits", "a", "run", WorkerStats(), stopped.set)
    announce(client, "digits", {"workers": 1}, Deployment("one"))
    assert client.exists(ready_key("digits"))
    ask_to_stop(client, "digits", "run")
    assert asked_to_stop(client, "digits", "run")
    assert stopped.wait(10)
    assert [one.worker for one in read_reports(client, "digits")] == ["a"]
    reporter.close()
    with sole_writer(client, "digits", "run"):
        assert client.get("beam-serving:digits:output") == b"run"


@given(some.lists(some.integers(0, 5000), min_size=1, max_size=8), some.lists(some.integers(0, 5000), max_size=8))
def test_serving_grows_where_results_need_more_than_their_requests(requests: list[int], results: list[int]) -> None:
    own = Balance()
    own.written(True, [b"x" * 9999], 1)
    assert own.short
    assert not own.grows(), "nothing is known of the requests"
    own.read(Block.of(entry(size, number)) for number, size in enumerate(requests))
    for size in results:
        own.written(True, [b"key", b"v" * size, 3], 1)
    taken = sum(len(b"uria" + b"tensor:") + size + 10 for size in requests)
    assert own.grows() == (sum(3 + size + 120 for size in results) > taken)
    own.written(False, [], 1)
    assert not own.short
    assert not own.grows()


def test_dead_letters_do_not_say_that_there_is_memory_again(
    at: RedisAt, client: redis.Redis, without_memory: None
) -> None:
    """Or whoever puts one into every poll would let results go beyond the limit without an end."""
    origin, letter = queue_and_read(client, [b"a", b"b"])
    step = step_of(at)
    client.config_set("maxmemory", 1)
    list(step.process([Result(origin, SEVEN)]))
    assert balance().short
    balance().read([Block.of(entry(1))])
    list(step.process([Result(letter._replace(uri=b""), Failure("no uri", {b"x": b"y"}))]))
    assert balance().short
    balance().written(True, [b"x" * 1000], 1)
    assert balance().grows()
    step.teardown()


def balance() -> Balance:
    """That of this process."""
    return service_context().shared(Balance)


def origin_of(one: Entry) -> Origin:
    return Origin(STREAM, one.entry_id, one.fields[b"uri"], ProtocolVersion.NATIVE, b"id", b"me")


def short_of_memory() -> None:
    balance().written(True, [], 1)
    balance().read([Block.of(entry(1))])
    balance().written(True, [b"x" * 1000], 1)
    assert balance().grows()


def test_a_reader_pauses_with_one_warning_and_goes_on_when_there_is_room(
    at: RedisAt, client: redis.Redis, without_memory: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "beam_serving")
    stop = threading.Event()
    reading = Reading(at, (STREAM.decode(),), "serving", 4, 0.05, 60.0)
    consumer = StreamConsumer(reading, "me", stop)
    client.xadd(STREAM, {"uri": "a"})
    client.config_set("maxmemory", "1mb")
    short_of_memory()
    stop.set()
    assert entries_of(consumer.read_batch()) == []
    stop.clear()
    assert entries_of(consumer.read_batch()) == entries_of(consumer.read_batch()) == []
    assert client.xlen(STREAM) == 1
    (said,) = caplog.messages
    assert said.startswith(f"Redis at {at} has no memory left (")
    assert " of maxmemory 1.0 MB), and results are larger than requests: reading pauses, requests stay queued." in said
    client.config_set("maxmemory", "1gb")
    assert [one.fields for one in entries_of(consumer.read_batch())] == [{b"uri": b"a"}]
    assert caplog.messages[1:] == [f"Redis at {at} has memory again: reading goes on"]
    assert not balance().short
    consumer.close()


def test_a_queue_that_fills_the_server_drains(at: RedisAt, client: redis.Redis, without_memory: None) -> None:
    consumer = StreamConsumer(Reading(at, (STREAM.decode(),), "serving", 4, 0.05, 60.0), "me", threading.Event())
    script = Script(Channel(at.client()), COMMIT)
    for number in range(40):
        client.xadd(STREAM, {"uri": f"r{number}", "tensor:": b"x" * 1000})
    client.config_set("maxmemory", 1)
    served = 0
    while entries := entries_of(consumer.read_batch()):
        results = [Result(origin_of(one), SEVEN) for one in entries]
        keys, arguments = commit_arguments(results, "serving", 60_000)
        written = script.run(keys, arguments)
        balance().written(written < 0, arguments, len(results))
        served += abs(written)
    assert served == 40
    consumer.close()


def test_a_user_who_may_not_ask_for_the_memory_goes_slowly(
    at: RedisAt, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.execute_command("ACL", "SETUSER", "limited", "on", ">right", "~*", "+@all", "-info")
    monkeypatch.setenv(PASSWORD_VARIABLE, "right")
    waited: list[float] = []
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", waited.append)
    try:
        short_of_memory()
        assert Room(at, RedisAt(at.host, at.port, username="limited").client(), stop, balance()).there()
    finally:
        client.execute_command("ACL", "DELUSER", "limited")
    assert len(waited) == 1
    assert not balance().short
