"""The commit script against a real server: a result and its acknowledgement are one step, for the owner alone."""

import numpy as np
import pytest
import redis

from beam_serving.connection import RedisAt
from beam_serving.io.channel import Channel, Script
from beam_serving.io.scripts import COMMIT, COMMIT_AND_KEEP
from beam_serving.io.sink import commit_arguments
from beam_serving.records import Answer, Failure, Generation, Origin, Result, TopClasses

pytestmark = pytest.mark.every_server

STREAM = b"serving_stream"
SEVEN = Answer({"prob": TopClasses(np.array([7]), np.array([0.5]))})


@pytest.fixture
def script(at: RedisAt) -> Script:
    return Script(Channel(at.client()), COMMIT)


def queue_and_read(client: redis.Redis, uris: list[bytes], consumer: str = "me") -> list[Origin]:
    """Puts requests on the stream and delivers them to `consumer`."""
    client.eval("redis.pcall('XGROUP', 'CREATE', KEYS[1], 'serving', '0', 'MKSTREAM')", 1, STREAM)
    for uri in uris:
        client.xadd(STREAM, {"uri": uri})
    reply = client.xreadgroup("serving", consumer, {STREAM: ">"}, count=len(uris))
    return [
        Origin(STREAM, entry_id, fields[b"uri"], Generation.NATIVE, b"id-" + fields[b"uri"], consumer.encode())
        for entry_id, fields in reply[0][1]
    ]


def commit(script: Script, results: list[Result], ttl_ms: int = 60_000) -> int:
    return script.run(*commit_arguments(results, "serving", ttl_ms))


def key(uri: str) -> str:
    return f"cluster-serving_serving_stream:{uri}"


def test_a_commit_writes_results_and_takes_the_entries_off_the_stream(client: redis.Redis, script: Script) -> None:
    origins = queue_and_read(client, [b"a", b"b"])
    assert commit(script, [Result(origin, SEVEN) for origin in origins]) == 2
    assert client.hgetall(key("a")) == {b"value": b"[[7,0.5]]", b"id": b"id-a"}
    assert 0 < client.pttl(key("b")) <= 60_000
    assert client.xlen(STREAM) == 0
    assert client.xpending(STREAM, "serving")["pending"] == 0


def test_a_result_without_a_lifetime_stays(client: redis.Redis, script: Script) -> None:
    (origin,) = queue_and_read(client, [b"a"])
    commit(script, [Result(origin, SEVEN)], ttl_ms=0)
    assert client.pttl(key("a")) == -1


def test_what_another_consumer_took_over_is_not_written(client: redis.Redis, script: Script) -> None:
    origins = queue_and_read(client, [b"mine", b"taken"])
    client.xclaim(STREAM, "serving", "thief", 0, [origins[1].entry_id])
    assert commit(script, [Result(origin, SEVEN) for origin in origins]) == 1
    assert client.exists(key("mine")) == 1
    assert client.exists(key("taken")) == 0
    assert client.xpending(STREAM, "serving")["pending"] == 1


def test_a_commit_that_runs_twice_changes_nothing_the_second_time(client: redis.Redis, script: Script) -> None:
    (origin,) = queue_and_read(client, [b"a"])
    assert commit(script, [Result(origin, SEVEN)]) == 1
    assert commit(script, [Result(origin, Failure("late"))]) == 0
    assert client.hgetall(key("a"))[b"value"] == b"[[7,0.5]]"


def test_an_answer_replaces_an_older_error_of_the_same_uri(client: redis.Redis, script: Script) -> None:
    (first,) = queue_and_read(client, [b"a"])
    commit(script, [Result(first, Failure("no such luck"))])
    assert client.hgetall(key("a"))[b"error"] == b"no such luck"
    (second,) = queue_and_read(client, [b"a"])
    commit(script, [Result(second, SEVEN)])
    assert b"error" not in client.hgetall(key("a"))


def test_whoever_waits_is_told(client: redis.Redis, script: Script) -> None:
    (origin,) = queue_and_read(client, [b"a"])
    waiting = client.pubsub(ignore_subscribe_messages=True)
    waiting.subscribe(key("a"))
    assert waiting.get_message(timeout=5) is None
    commit(script, [Result(origin, SEVEN)])
    message = waiting.get_message(timeout=5)
    assert message is not None
    assert message["channel"] == key("a").encode()


def test_a_dead_letter_keeps_the_request_and_the_reason(client: redis.Redis, script: Script) -> None:
    (origin,) = queue_and_read(client, [b"a"])
    commit(script, [Result(origin, Failure("given up", {b"uri": b"a", b"tensor:": b"\x00\xff"}))])
    ((_, letter),) = client.xrange(b"serving_stream:dead")
    assert letter == {b"uri": b"a", b"tensor:": b"\x00\xff", b"error": b"given up"}
    assert client.hgetall(key("a"))[b"error"] == b"given up"
    assert client.xlen(STREAM) == 0


def test_a_request_without_a_uri_leaves_only_a_dead_letter(client: redis.Redis, script: Script) -> None:
    (origin,) = queue_and_read(client, [b"a"])
    commit(script, [Result(origin._replace(uri=b""), Failure("no uri", {b"x": b"y"}))])
    assert client.xlen(b"serving_stream:dead") == 1
    assert client.exists(key("")) == 0
    assert client.xpending(STREAM, "serving")["pending"] == 0


def test_results_are_written_even_when_the_group_is_gone(client: redis.Redis, script: Script) -> None:
    (origin,) = queue_and_read(client, [b"a"])
    client.xgroup_destroy(STREAM, "serving")
    assert commit(script, [Result(origin, SEVEN)]) == 1
    assert client.exists(key("a")) == 1


def test_a_batch_of_four_thousand_is_one_commit(client: redis.Redis, script: Script) -> None:
    origins = queue_and_read(client, [b"%d" % number for number in range(4096)])
    assert commit(script, [Result(origin, SEVEN) for origin in origins]) == 4096
    assert client.xlen(STREAM) == 0


def test_the_script_is_loaded_again_after_the_server_forgot_it(client: redis.Redis, script: Script) -> None:
    for uri in (b"a", b"b"):
        (origin,) = queue_and_read(client, [uri])
        client.script_flush()
        assert commit(script, [Result(origin, SEVEN)]) == 1


def test_an_answer_that_cannot_be_sent_becomes_an_error_result(client: redis.Redis, script: Script) -> None:
    (origin,) = queue_and_read(client, [b"a"])
    assert commit(script, [Result(origin, Answer({"names": np.array([object()])}))]) == 1
    assert b"object" in client.hgetall(key("a"))[b"error"]


def commit_and_keep(client: redis.Redis, at: RedisAt, results: list[Result]) -> list[dict[bytes, bytes]]:
    """Commits, and gives the rows that were kept."""
    keys, arguments = commit_arguments(results, "serving", 60_000)
    Script(Channel(at.client()), COMMIT_AND_KEEP).run([*keys, STREAM + b":rows"], arguments)
    return [row for _, row in client.xrange("serving_stream:rows")]  # type: ignore[union-attr]


def test_a_result_that_is_kept_for_a_file_is_the_one_in_redis(at: RedisAt, client: redis.Redis) -> None:
    first, second = queue_and_read(client, [b"a", b"b"])
    rows = commit_and_keep(client, at, [Result(first, SEVEN), Result(second, Failure("no such luck"))])
    assert [row.pop(b"entry") for row in rows] == [first.entry_id, second.entry_id]
    assert [row.pop(b"key") for row in rows] == [key("a").encode(), key("b").encode()]
    assert rows == [client.hgetall(key("a")), client.hgetall(key("b"))]
    assert client.xlen(STREAM) == 0


def test_what_is_not_written_is_not_kept(at: RedisAt, client: redis.Redis) -> None:
    mine, taken = queue_and_read(client, [b"mine", b"taken"])
    client.xclaim(STREAM, "serving", "thief", 0, [taken.entry_id])
    rows = commit_and_keep(client, at, [Result(mine, SEVEN), Result(taken, SEVEN)])
    assert [row[b"entry"] for row in rows] == [mine.entry_id]
    assert len(commit_and_keep(client, at, [Result(mine, SEVEN)])) == 1


def test_of_a_request_without_a_uri_the_reason_is_kept(at: RedisAt, client: redis.Redis) -> None:
    (origin,) = queue_and_read(client, [b"a"])
    letter = Failure("no uri", {b"x": b"y"})
    rows = commit_and_keep(client, at, [Result(origin._replace(uri=b""), letter)])
    assert rows == [{b"entry": origin.entry_id, b"error": b"no uri"}]
    assert client.xlen(b"serving_stream:dead") == 1
