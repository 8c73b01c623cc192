"""Dead letters: read, queued again in one step, removed."""

from contextlib import suppress
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from redis.exceptions import OutOfMemoryError, RedisError

from beam_serving.io.dead_letters import DeadLetter, contents, count_dead_letters, drop, read_dead_letters, retry
from beam_serving.io.scripts import COMMIT
from beam_serving.io.sink import DeadLetters, commit_arguments
from beam_serving.records import Failure, Origin, ProtocolVersion, Result
from beam_serving.transport.channel import Channel, Script
from beam_serving.transport.connection import RedisAt
from beam_serving.transport.keys import result_key

pytestmark = pytest.mark.every_server
REQUEST = {b"uri": b"a", b"id": b"7", b"tensor:x": b"\x00\xff" * 8, b"dtype:x": b"uint8", b"shape:x": b"16"}


def give_up(
    at: RedisAt,
    client: redis.Redis,
    fields: list[tuple[bytes, bytes]],
    stream: str = "serving_stream",
    protocol: str = ProtocolVersion.NATIVE,
    bounds: DeadLetters = DeadLetters(),  # noqa: B008
) -> None:
    """Do with a request what a service does that gives it up."""
    flat = [part for pair in fields for part in pair]
    entry_id: Any = client.execute_command("XADD", stream, "*", *flat)  # type: ignore[no-untyped-call]
    with suppress(redis.ResponseError):
        client.xgroup_create(stream, "serving", "0")
    client.xreadgroup("serving", "me", {stream: ">"})
    about = dict(fields)
    origin = Origin(stream.encode(), entry_id, about.get(b"uri", b""), protocol, about.get(b"id", b""), b"me")
    given = commit_arguments([Result(origin, Failure("it ended its worker", {}))], "serving", 0, bounds)
    assert Script(Channel(at.client()), COMMIT).run(*given) == 1


def only(client: redis.Redis, stream: str = "serving_stream") -> DeadLetter:
    (letter,) = read_dead_letters(client, stream)
    return letter


def queued(client: redis.Redis, stream: str = "serving_stream") -> list[bytes]:
    """The names and values of the only entry, also where names are there twice."""
    source = "return redis.call('XRANGE', KEYS[1], '-', '+')[1][2]"
    flat: Any = client.eval(source, 1, stream)
    return list(flat)


def test_a_letter_says_whose_request_it_was_and_why_it_was_given_up(at: RedisAt, client: redis.Redis) -> None:
    give_up(at, client, list(REQUEST.items()))
    letter = only(client)
    assert (letter.uri, letter.request_id, letter.reason, letter.cut) == (b"a", b"7", "it ended its worker", "")
    assert dict(letter.fields) == {name: len(value) for name, value in REQUEST.items()}
    assert letter.size_bytes == sum(len(name) + len(value) for name, value in REQUEST.items())
    assert contents(client, "serving_stream", letter.letter_id) == {**REQUEST, b"error": b"it ended its worker"}
    assert abs(letter.died_at_s - client.time()[0]) < 60
    assert count_dead_letters(client, "serving_stream") == 1


@pytest.mark.parametrize(
    ("stream", "protocol", "request_fields"),
    [
        ("serving_stream", ProtocolVersion.NATIVE, REQUEST),
        ("serving_stream", ProtocolVersion.NATIVE, {**REQUEST, b"cipher": b"aes-gcm-2"}),
        ("serving_stream", ProtocolVersion.ARROW, {b"uri": b"b", b"data": b"QUJD"}),
        ("image_stream", ProtocolVersion.IMAGE, {b"uri": b"c", b"image": b"QUJD"}),
        ("{tag}_stream", ProtocolVersion.IMAGE, {b"uri": b"c", b"image": b"QUJD"}),
    ],
)
def test_a_request_is_queued_again_as_it_was_sent(
    at: RedisAt, client: redis.Redis, stream: str, protocol: str, request_fields: dict[bytes, bytes]
) -> None:
    give_up(at, client, list(request_fields.items()), stream, protocol)
    key = result_key(protocol, stream.encode(), request_fields[b"uri"])
    assert client.hexists(key, "error")
    assert retry(client, only(client, stream)) is None
    assert queued(client, stream) == [part for pair in request_fields.items() for part in pair]
    assert count_dead_letters(client, stream) == 0
    assert not client.exists(key), "the client would take the old error for the result"
    (delivered,) = client.xreadgroup("serving", "me", {stream: ">"})  # type: ignore[misc]
    assert delivered[0] == stream.encode()


def test_a_result_of_another_request_stays(at: RedisAt, client: redis.Redis) -> None:
    give_up(at, client, list(REQUEST.items()))
    for later in ({b"id": b"8", b"error": b"of another"}, {b"id": b"7", b"value": b"[[1,0.5]]"}):
        client.delete("cluster-serving_serving_stream:a")
        client.hset("cluster-serving_serving_stream:a", mapping=later)  # type: ignore[arg-type]
        retry(client, only(client))
        assert client.hgetall("cluster-serving_serving_stream:a") == later
        client.delete("serving_stream")
        give_up(at, client, list(REQUEST.items()))


def test_a_letter_is_queued_again_once(at: RedisAt, client: redis.Redis) -> None:
    give_up(at, client, list(REQUEST.items()))
    letter = only(client)
    assert retry(client, letter) is None
    assert retry(client, letter) == "it is gone"
    assert client.xlen("serving_stream") == 1


def test_a_request_of_which_a_part_was_cut_off_stays_a_letter(at: RedisAt, client: redis.Redis) -> None:
    give_up(at, client, [(b"uri", b"a"), (b"tensor:x", bytes(100))], bounds=DeadLetters(each_bytes=50))
    letter = only(client)
    assert (letter.whole, letter.uri, letter.reason) == (False, b"a", "it ended its worker")
    assert retry(client, letter) == letter.cut == "54 bytes of the request are left out"
    assert (client.xlen("serving_stream"), count_dead_letters(client, "serving_stream")) == (0, 1)


def test_a_letter_with_nothing_but_a_reason_stays(client: redis.Redis) -> None:
    client.xadd("serving_stream:dead", {"error": "no field"})
    assert not only(client).whole
    assert retry(client, only(client)) == "it has nothing of the request"
    assert count_dead_letters(client, "serving_stream") == 1


def test_a_server_without_memory_takes_requests_back(at: RedisAt, client: redis.Redis) -> None:
    give_up(at, client, list(REQUEST.items()))
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            client.xadd("serving_stream", {"uri": "new"})
        assert retry(client, only(client)) is None
    finally:
        client.config_set("maxmemory", 0)
    assert (client.xlen("serving_stream"), count_dead_letters(client, "serving_stream")) == (1, 0)


def test_a_user_that_may_not_take_letters_off_queues_nothing_twice(at: RedisAt, client: redis.Redis) -> None:
    give_up(at, client, list(REQUEST.items()))
    letter = only(client)
    client.execute_command("ACL", "SETUSER", "default", "-xdel")  # type: ignore[no-untyped-call]
    try:
        with pytest.raises(RedisError):
            retry(client, letter)
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+xdel")  # type: ignore[no-untyped-call]
    assert (client.xlen("serving_stream"), count_dead_letters(client, "serving_stream")) == (0, 1)


NAMES = some.sampled_from([b"uri", b"id", b"error", b"cut", b"tensor:x", b"image", b"data", b"\xff"])


@given(fields=some.lists(some.tuples(NAMES, some.binary(max_size=8)), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_request_has_comes_back(at: RedisAt, client: redis.Redis, fields: list[tuple[bytes, bytes]]) -> None:
    """Fields of the names that a letter has itself, and names that are there twice, among them."""
    client.flushall()
    give_up(at, client, fields)
    letter = only(client)
    assert [name for name, _ in letter.fields] == [name for name, _ in fields]
    assert letter.reason == "it ended its worker"
    assert retry(client, letter) is None
    assert queued(client) == [part for pair in fields for part in pair]


def test_many_letters_are_read_page_by_page_and_dropped(client: redis.Redis) -> None:
    pipeline = client.pipeline()
    for number in range(1500):
        pipeline.xadd("serving_stream:dead", {"uri": number, "x": bytes(20_000), "error": "no"}, f"{number + 1}-0")
    pipeline.execute()
    letters = list(read_dead_letters(client, "serving_stream"))
    assert [int(letter.uri) for letter in letters] == list(reversed(range(1500)))
    assert drop(client, "serving_stream", [letter.letter_id for letter in letters[:-1]]) == 1499
    assert only(client).uri == b"0"
    assert drop(client, "serving_stream", []) == 0
