"""The commit script against a real server: a result and its acknowledgement are one step, for the owner alone."""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from beam_serving.errors import ConnectError
from beam_serving.io import sink
from beam_serving.io.memory import Balance
from beam_serving.io.scripts import COMMIT, COMMIT_AND_KEEP
from beam_serving.io.sink import DeadLetters, _CommitFn, commit_arguments
from beam_serving.protocol import IMAGE_STREAM, native
from beam_serving.protocol import codecs as protocol
from beam_serving.records import Answer, Failure, Origin, Origins, ProtocolVersion, Ranked, Result, TopClasses
from beam_serving.telemetry.context import service_context
from beam_serving.transport.channel import Channel, Script
from beam_serving.transport.connection import PASSWORD_VARIABLE, RedisAt

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
        Origin(STREAM, entry_id, fields[b"uri"], ProtocolVersion.NATIVE, b"id-" + fields[b"uri"], consumer.encode())
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


@pytest.mark.parametrize("version", [*ProtocolVersion])
@pytest.mark.parametrize("request_id", [b"", b"id"])
def test_an_answer_without_an_output_is_an_error_result(
    client: redis.Redis, script: Script, version: ProtocolVersion, request_id: bytes
) -> None:
    (origin,) = queue_and_read(client, [b"a"])
    origin = origin._replace(protocol=version, request_id=request_id)
    assert commit(script, [Result(origin, Answer({}))]) == 1
    (written,) = client.keys("*:a")  # type: ignore[misc]
    assert client.hget(written, "error") == b"the answer has no output, wanted is at least one"
    assert client.hget(written, "id") == (request_id or None)


def test_a_codec_that_writes_nothing_ends_in_an_error_result_too(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = native.CODEC._replace(encode_answer=lambda _: {})
    monkeypatch.setitem(protocol._BY_PROTOCOL, ProtocolVersion.NATIVE, silent)
    origin = Origin(STREAM, b"1-1", b"a", ProtocolVersion.NATIVE, b"id", b"me")
    assert b"error" in commit_arguments([Result(origin, SEVEN)], "serving", 0)[1]


def test_an_answer_that_redis_has_no_room_for_becomes_an_error_result(
    at: RedisAt, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "_MOST_BYTES", 1000)
    large, small = queue_and_read(client, [b"large", b"small"])
    step_of(at).process([Result(large, Answer({"y": np.zeros(126)})), Result(small, SEVEN)])
    told = b"the answer is 1026 bytes as it is sent, at most 1000 fit into Redis"
    assert client.hgetall(key("large")) == {b"error": told, b"id": b"id-large"}
    assert client.hgetall(key("small")) == {b"value": b"[[7,0.5]]", b"id": b"id-small"}
    assert client.xlen(STREAM) == 0


def test_more_than_redis_takes_at_once_is_committed_in_parts(
    at: RedisAt, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    run = Script.run
    monkeypatch.setattr(sink, "_MOST_BYTES", 1000)
    monkeypatch.setattr(Script, "run", lambda *given: calls.append(len(given[1])) or run(*given))
    uris = [b"%d" % number for number in range(10)]
    origins = queue_and_read(client, uris)
    step_of(at).process([Result(origin, Answer({"y": np.full(50, number)})) for number, origin in enumerate(origins)])
    assert sum(calls) == 2 * len(calls) + 10, "each result is in one call"
    assert len(calls) == 6
    values = [client.hget(key(uri.decode()), "tensor:y") for uri in uris]
    assert values == [np.full(50, number).tobytes() for number in range(10)]
    assert client.xlen(STREAM) == 0


def test_an_empty_list_is_nothing_to_write(at: RedisAt) -> None:
    step_of(at).process([])


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_that_are_not_those_of_the_records_are_an_error_of_these(
    at: RedisAt, client: redis.Redis, rows: int
) -> None:
    origins = queue_and_read(client, [b"a", b"b"])
    ranked = ranked_of(origins, np.ones((2, 4), np.float32))
    other = np.zeros((rows, 4), np.int64)
    step_of(at).process(ranked._replace(classes=other, scores=other.astype(np.float32)))
    told = f"classes of the shape ({rows}, 4) and scores of ({rows}, 4) are given, wanted is (2, n) of both".encode()
    assert [client.hget(key(uri), "error") for uri in ("a", "b")] == [told] * 2
    assert client.xlen(STREAM) == 0


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


@pytest.fixture
def limited(at: RedisAt, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisAt]:
    """A worker's user, which may write results of its stream and no others."""
    monkeypatch.setenv(PASSWORD_VARIABLE, "right")
    keys = [f"~{name}" for name in ("image_stream", "image_stream:*", "cluster-serving_image_stream:*")]
    client.execute_command("ACL", "SETUSER", "worker", "reset", "on", ">right", *keys, "&cluster*", "+@all")
    yield RedisAt(at.host, at.port, username="worker")
    client.execute_command("ACL", "DELUSER", "worker")


def of_image_stream(client: redis.Redis, uris: list[bytes]) -> list[Origin]:
    """Queues and reads requests, of which those with an odd number are of protocol version IMAGE."""
    client.eval("redis.pcall('XGROUP', 'CREATE', KEYS[1], 'serving', '0', 'MKSTREAM')", 1, IMAGE_STREAM)
    for uri in uris:
        client.xadd(IMAGE_STREAM, {"uri": uri, "image": b"of " + uri})
    reply = client.xreadgroup("serving", "me", {IMAGE_STREAM: ">"}, count=len(uris))
    generations = ProtocolVersion.NATIVE, ProtocolVersion.IMAGE
    return [
        Origin(IMAGE_STREAM, entry_id, fields[b"uri"], generations[number % 2], b"", b"me")
        for number, (entry_id, fields) in enumerate(reply[0][1])
    ]


def step_of(at: RedisAt, dead_letters: DeadLetters = DeadLetters(), keep_outbox: bool = False) -> _CommitFn:  # noqa: B008
    step = _CommitFn(at, "serving", 60, keep_outbox, dead_letters)
    step.setup()
    return step


def test_a_result_whose_key_may_not_be_written_ends_its_record_and_no_other(
    limited: RedisAt, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    origins = of_image_stream(client, [b"a", b"b", b"c"])
    step = step_of(limited)
    before = Counter(service_context().stats.counts)
    step.process([Result(origin, SEVEN) for origin in origins])
    assert client.exists("cluster-serving_image_stream:a", "cluster-serving_image_stream:c") == 2
    assert client.exists("result:b") == 0
    ((_, letter),) = client.xrange("image_stream:dead")
    assert letter[b"uri"] == b"b"
    assert letter[b"image"] == b"of b"
    assert re.match(rb"the result cannot be written to Redis: .*access", letter[b"error"])
    assert client.xlen(IMAGE_STREAM) == 0
    assert client.xpending(IMAGE_STREAM, "serving")["pending"] == 0
    counts = service_context().stats.counts
    assert (counts["dead"] - before["dead"], counts["errors"] - before["errors"]) == (1, 1)
    assert "refuses the result of request 'b': " in caplog.text


def test_a_service_that_may_write_no_result_at_all_ends(limited: RedisAt, client: redis.Redis) -> None:
    origins = of_image_stream(client, [b"a"])
    client.execute_command("ACL", "SETUSER", "worker", "resetkeys", "~image_stream", "~image_stream:dead")
    with pytest.raises(ConnectError, match="the user lacks a permission"):
        step_of(limited).process([Result(origins[0], SEVEN)])
    assert client.xlen(IMAGE_STREAM) == 1, "nothing is given up for a mistake of the operator"
    assert client.xlen("image_stream:dead") == 0


def test_a_message_that_may_not_be_published_for_a_foreign_key_ends_nothing(
    limited: RedisAt, client: redis.Redis
) -> None:
    client.execute_command("ACL", "SETUSER", "worker", "~result:*")
    waiting = client.pubsub(ignore_subscribe_messages=True)
    waiting.subscribe("result:b")
    assert waiting.get_message(timeout=5) is None
    origins = of_image_stream(client, [b"a", b"b"])
    step_of(limited).process([Result(origin, SEVEN) for origin in origins])
    assert client.exists("result:b", "cluster-serving_image_stream:a") == 2
    assert client.xlen("image_stream:dead") == 0
    waiting.close()


@pytest.mark.parametrize("stream", [b"image_stream", b"image_stream:{tag}"])
@pytest.mark.parametrize("by_columns", [False, True])
def test_a_service_that_may_tell_nobody_ends(
    limited: RedisAt, client: redis.Redis, stream: bytes, by_columns: bool
) -> None:
    client.execute_command("ACL", "SETUSER", "worker", "resetchannels", "~cluster-serving_image_stream*")
    client.xgroup_create(stream, "serving", "0", mkstream=True)
    client.xadd(stream, {"uri": "a"})
    ((_, [(entry_id, _)]),) = client.xreadgroup("serving", "me", {stream: ">"})
    origin = Origin(stream, entry_id, b"a", ProtocolVersion.NATIVE, b"", b"me")
    result = f"cluster-serving_{stream.decode()}:a"
    waiting = client.pubsub(ignore_subscribe_messages=True)
    waiting.subscribe(result)
    assert waiting.get_message(timeout=5) is None
    with pytest.raises(ConnectError, match="the user lacks a permission"):
        step_of(limited).process(
            ranked_of([origin], np.ones((1, 2), np.float32)) if by_columns else [Result(origin, SEVEN)]
        )
    assert client.exists(result) == 1
    assert client.xlen(stream) == 0
    waiting.close()


@pytest.mark.parametrize("fields", [1, 255, 256, 4100, 30_000])
def test_a_dead_letter_of_any_number_of_fields_is_taken(client: redis.Redis, script: Script, fields: int) -> None:
    (origin,) = queue_and_read(client, [b"a"])
    request = {b"field %d" % number: b"value" for number in range(fields)}
    commit(script, [Result(origin._replace(uri=b""), Failure("no uri", request))])
    ((_, letter),) = client.xrange(b"serving_stream:dead")
    assert letter.pop(b"error") == b"no uri"
    cut = letter.pop(b"cut", b"0 bytes of the request are left out")
    kept = dict(list(request.items())[:256])
    assert letter == kept
    left_out = sum(len(name) + len(value) for name, value in request.items() if name not in kept)
    assert cut == b"%d bytes of the request are left out" % left_out
    assert client.xlen(STREAM) == 0


@pytest.mark.parametrize("outputs", [1000, 5000, 20_000])
def test_a_result_of_any_number_of_fields_is_written(client: redis.Redis, script: Script, outputs: int) -> None:
    (origin,) = queue_and_read(client, [b"a"])
    answer = Answer({f"out {number}": np.zeros(1, np.float32) for number in range(outputs)})
    assert commit(script, [Result(origin, answer)]) == 1
    assert client.hlen(key("a")) == 3 * outputs + 1


def test_any_number_of_results_is_one_commit_on_a_stream_with_a_hash_tag_too(
    client: redis.Redis, script: Script
) -> None:
    for stream in (STREAM, b"{tag}"):
        client.xgroup_create(stream, "serving", "0", mkstream=True)
        pipeline = client.pipeline()
        for number in range(9000):
            pipeline.xadd(stream, {"uri": str(number)})
        pipeline.execute()
        reply = client.xreadgroup("serving", "me", {stream: ">"}, count=9000)
        origins = [
            Origin(stream, entry_id, fields[b"uri"], ProtocolVersion.NATIVE, b"", b"me")
            for entry_id, fields in reply[0][1]
        ]
        assert commit(script, [Result(origin, SEVEN) for origin in origins]) == 9000
        assert client.xlen(stream) == 0


def test_a_script_that_fails_on_one_record_is_not_tried_on_it_again(
    at: RedisAt, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """A row of the outbox is one entry, which Lua cannot write with so many fields."""
    origins = queue_and_read(client, [b"a", b"b", b"c", b"d"])
    huge = Answer({f"out {number}": np.zeros(1, np.float32) for number in range(5000)})
    step = step_of(at, keep_outbox=True)
    step.process([Result(origin, huge if origin.uri == b"c" else SEVEN) for origin in origins])
    assert client.hgetall(key("c")) == {b"error": b"the result cannot be written to Redis", b"id": b"id-c"}
    assert {client.hget(key(uri), "value") for uri in "abd"} == {b"[[7,0.5]]"}
    ((_, letter),) = client.xrange(b"serving_stream:dead")
    assert letter.keys() == {b"uri", b"error"}
    assert client.xlen(STREAM) == 0
    assert "too many results to unpack" in caplog.text


def test_what_redis_refuses_for_good_ends_the_service_instead_of_being_tried_on(
    at: RedisAt, client: redis.Redis
) -> None:
    (origin,) = queue_and_read(client, [b"a"])
    client.delete(STREAM)
    client.set(STREAM, "no stream")
    with pytest.raises(ConnectError, match="holds something else"):
        step_of(at).process([Result(origin, SEVEN)])


def buried(client: redis.Redis, step: _CommitFn, letters: list[dict[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Gives up requests one by one; gives number and text of those that are kept."""
    for number, fields in enumerate(letters):
        (origin,) = queue_and_read(client, [b"a"])
        step.process([Result(origin._replace(uri=b""), Failure("no", {b"n": b"%d" % number, **fields}))])
    kept: Any = client.xrange(b"serving_stream:dead")
    return [(letter[b"n"], letter.get(b"text", b"")) for _, letter in kept]


def test_only_the_newest_dead_letters_are_kept(
    at: RedisAt, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    kept = buried(client, step_of(at, DeadLetters(records=3)), [{}] * 5)
    assert [number for number, _ in kept] == [b"2", b"3", b"4"]
    assert caplog.messages[-1] == (
        "1 dead letters of 'serving_stream' were dropped, the oldest for newer ones: data: max_dead_letters and "
        "max_dead_letters_mb bound them"
    )


@given(some.lists(some.integers(0, 3000), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dead_letters_stay_within_their_bytes(at: RedisAt, client: redis.Redis, sizes: list[int]) -> None:
    client.flushdb()
    bounds = DeadLetters(records=100, total_bytes=4000, each_bytes=1000)
    kept = buried(client, step_of(at, bounds), [{b"text": b"x" * size} for size in sizes])
    assert kept[-1][0] == b"%d" % (len(sizes) - 1), "the newest is kept"
    assert all(len(text) <= 1000 for _, text in kept)
    size_of = [min(size + 5 + len(str(number)), 1000) + 2 for number, size in enumerate(sizes)]
    assert sum(size_of[int(number)] for number, _ in kept) <= 4000 + 100
    if len(kept) < len(sizes):
        assert sum(size_of[-len(kept) - 1 :]) > 4000 - 1000, "no more than needed is dropped"


def test_letters_without_a_count_of_bytes_from_earlier_versions_make_room_first(
    at: RedisAt, client: redis.Redis
) -> None:
    for number in range(3):
        client.xadd("serving_stream:dead", {"n": f"old{number}", "text": "x" * 500})
    bounds = DeadLetters(records=100, total_bytes=3000, each_bytes=1000)
    kept = buried(client, step_of(at, bounds), [{b"text": b"x" * 900}] * 5)
    assert [number for number, _ in kept][-2:] == [b"3", b"4"]
    assert len(kept) <= 3


def test_a_dead_letter_stream_that_takes_no_more_costs_the_letter_and_not_the_service(
    at: RedisAt, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    last = 2**64 - 1
    for spoil in (
        lambda: client.xadd("serving_stream:dead", {"a": "b"}, f"{last}-{last}"),
        lambda: client.set("serving_stream:dead", "text"),
    ):
        client.delete("serving_stream:dead")
        spoil()
        (origin,) = queue_and_read(client, [b"a"])
        step_of(at).process([Result(origin, Failure("given up", {b"uri": b"a"}))])
        assert client.hget(key("a"), "error") == b"given up"
        assert client.xlen(STREAM) == 0
        assert "1 dead letters of 'serving_stream' were dropped, " in caplog.messages[-1]


def ranked_of(origins: list[Origin], scores: np.ndarray, labels: tuple[str, ...] = ()) -> Ranked:
    classes = np.argsort(-scores, axis=1, kind="stable")
    return Ranked(Origins.of(origins), "prob", classes, np.take_along_axis(scores, classes, axis=1), labels)


def stored(client: redis.Redis, uris: list[bytes]) -> list[Any]:
    names = [key(uri.decode()) for uri in uris]
    lives = [0 < client.pttl(name) <= 60_000 for name in names]  # type: ignore[operator]
    return [[client.hgetall(name) for name in names], lives, client.xlen(STREAM), client.xpending(STREAM, "serving")]


FLOATS = some.floats(width=32) | some.sampled_from([1e-7, 123456790.0, 0.1, float("nan"), float("inf"), -0.0])


@given(some.lists(some.lists(FLOATS, min_size=3, max_size=3), min_size=1, max_size=6), some.booleans(), some.booleans())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_results_by_columns_are_byte_for_byte_those_one_by_one(
    at: RedisAt, client: redis.Redis, rows: list[list[float]], labelled: bool, with_ids: bool
) -> None:
    uris = [b"r%d" % (number // 2) for number in range(len(rows))]  # some uris twice
    labels = ("cat", 'd"og', "ü") if labelled else ()
    found = []
    for by_columns in (True, False):
        client.flushdb()
        origins = [origin._replace(request_id=b"i" if with_ids else b"") for origin in queue_and_read(client, uris)]
        ranked = ranked_of(origins, np.array(rows, np.float32), labels)
        step = step_of(at)
        if by_columns:
            assert step._write_ranked(ranked)
        else:
            step.process(ranked.each())
        found.append(stored(client, uris))
        step.teardown()
    assert found[0] == found[1]


def test_a_record_that_was_taken_over_is_judged_by_itself(at: RedisAt, client: redis.Redis) -> None:
    uris = [b"a", b"b", b"c"]
    for taken in range(3):
        client.flushdb()
        origins = queue_and_read(client, uris)
        client.xclaim(STREAM, "serving", "thief", 0, [origins[taken].entry_id])
        step = step_of(at)
        assert not step._write_ranked(ranked_of(origins, np.ones((3, 2), np.float32)))
        assert client.exists(*[key(uri.decode()) for uri in uris]) == 0, "nothing was done"
        step.process(ranked_of(origins, np.ones((3, 2), np.float32)))
        assert [client.exists(key(uri.decode())) for uri in uris] == [int(at != taken) for at in range(3)]
        assert client.xpending(STREAM, "serving")["pending"] == 1


def test_others_of_the_same_consumer_in_between_send_nobody_down_the_slow_way(at: RedisAt, client: redis.Redis) -> None:
    origins = queue_and_read(client, [b"r%d" % number for number in range(100)])
    assert step_of(at)._write_ranked(ranked_of(origins[::2], np.ones((50, 2), np.float32)))
    assert client.xlen(STREAM) == 50
    assert client.xpending(STREAM, "serving")["pending"] == 50


def test_a_commit_by_columns_that_runs_twice_changes_nothing_the_second_time(at: RedisAt, client: redis.Redis) -> None:
    origins = queue_and_read(client, [b"a"])
    step = step_of(at)
    ranked = ranked_of(origins, np.ones((1, 2), np.float32))
    step.process(ranked)
    before = stored(client, [b"a"])
    step.process(ranked._replace(scores=ranked.scores * 0))
    assert stored(client, [b"a"]) == before


def test_results_by_columns_are_written_when_the_group_is_gone_and_after_a_flush_of_scripts(
    at: RedisAt, client: redis.Redis
) -> None:
    step = step_of(at)
    (origin,) = queue_and_read(client, [b"a"])
    client.script_flush()
    step.process(ranked_of([origin], np.ones((1, 2), np.float32)))
    assert client.exists(key("a")) == 1
    (origin,) = queue_and_read(client, [b"b"])
    client.xgroup_destroy(STREAM, "serving")
    step.process(ranked_of([origin], np.ones((1, 2), np.float32)))
    assert client.exists(key("b")) == 1


def test_any_number_of_results_by_columns_is_one_commit(at: RedisAt, client: redis.Redis) -> None:
    origins = queue_and_read(client, [b"%d" % number for number in range(9000)])
    assert step_of(at)._write_ranked(ranked_of(origins, np.ones((9000, 1), np.float32)))
    assert client.xlen(STREAM) == 0


def test_a_commit_by_columns_tells_of_a_server_without_memory(at: RedisAt, client: redis.Redis) -> None:
    origins = queue_and_read(client, [b"a", b"b"])
    client.config_set("maxmemory", 1)
    try:
        assert step_of(at)._write_ranked(ranked_of(origins, np.ones((2, 2), np.float32)))
        assert service_context().shared(Balance).short
    finally:
        client.config_set("maxmemory", 0)
    assert client.exists(key("a"), key("b")) == 2
    assert client.xlen(STREAM) == 0
