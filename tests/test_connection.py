"""Where Redis is, and which of its refusals no waiting will heal: asked of real servers."""

import pickle
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import redis
from redis import exceptions
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Data, Model, Redis, Settings
from beam_serving.errors import ConfigError, ConnectError
from beam_serving.launch.embedded_redis import embedded_redis, free_port
from beam_serving.transport import deadline
from beam_serving.transport.connection import PASSWORD_VARIABLE, RedisAt, check, fatal
from beam_serving.transport.retry import backoff

REFUSED = f"; set {PASSWORD_VARIABLE} or redis: password_file"


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisAt]:
    """A server that wants the password "right"."""
    with embedded_redis(0, "--requirepass", "right") as port:
        yield RedisAt("127.0.0.1", port)


def settings(src: str, **options: str) -> Settings:
    return Settings(model=Model(path="noop"), data=Data(src=src), redis=Redis(**options))


def error_of(client: redis.Redis, *command: str) -> RedisError:
    with pytest.raises(RedisError) as caught:
        client.execute_command(*command)
    return caught.value


@pytest.mark.parametrize(
    ("src", "at", "shown"),
    [
        ("localhost:6379", RedisAt(), "localhost:6379"),
        ("redis-1", RedisAt("redis-1"), "redis-1:6379"),
        ("redis://redis-1:6380/3", RedisAt("redis-1", 6380, 3), "redis-1:6380/3"),
        ("rediss://worker@redis-1", RedisAt("redis-1", tls=True, username="worker"), "redis-1:6379"),
        ("[::1]:6380", RedisAt("::1", 6380), "::1:6380"),
    ],
)
def test_an_address_is_read_from_src(src: str, at: RedisAt, shown: str) -> None:
    assert redis_at(settings(src)) == at
    assert str(at) == shown


def test_the_section_redis_says_the_rest() -> None:
    at = redis_at(settings("rediss://a@host", username="b", password_file="/p", ca_file="/c"))  # noqa: S106
    assert at == RedisAt("host", tls=True, username="b", password_file="/p", ca_file="/c")  # noqa: S106


def test_the_password_is_no_part_of_the_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "s3cret")
    (tmp_path / "password").write_text("s3cret", encoding="utf-8")
    at = RedisAt(password_file=str(tmp_path / "password"))
    assert b"s3cret" not in pickle.dumps(at)
    assert "s3cret" not in f"{at} {at!r}"


def test_the_password_comes_from_the_environment(guarded: RedisAt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "right")
    check(guarded, guarded.client())


def test_the_password_comes_from_a_file_first(
    guarded: RedisAt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong")
    (tmp_path / "password").write_text("right\n", encoding="utf-8")
    at = RedisAt(guarded.host, guarded.port, password_file=str(tmp_path / "password"))
    check(at, at.client())


def test_a_password_file_that_cannot_be_read_is_a_mistake_of_the_operator(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisAt(password_file=str(tmp_path / "none")).client()
    assert str(caught.value) == f"redis: password_file {tmp_path}/none: No such file or directory"
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ConfigError) as caught:
        RedisAt(password_file=str(tmp_path / "binary")).client()
    assert str(caught.value) == f"redis: password_file {tmp_path}/binary: not UTF-8 text"


@pytest.mark.parametrize("password", ["wrong", None])
def test_a_wrong_or_missing_password_is_fatal(
    guarded: RedisAt, password: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if password:
        monkeypatch.setenv(PASSWORD_VARIABLE, password)
    with pytest.raises(ConnectError) as caught:
        check(guarded, guarded.client())
    assert str(caught.value).startswith(f"Redis at {guarded}: it refuses our user or password (")
    assert str(caught.value).endswith(REFUSED)


def test_an_unknown_user_is_fatal(at: RedisAt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "right")
    nobody = RedisAt(at.host, at.port, username="nobody")
    with pytest.raises(ConnectError, match=f"Redis at {at}: it refuses our user or password"):
        check(nobody, nobody.client())


def test_a_missing_permission_is_fatal(at: RedisAt, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    client.execute_command("ACL", "SETUSER", "reader", "on", ">right", "~mine*", "+@all", "-xack")
    monkeypatch.setenv(PASSWORD_VARIABLE, "right")
    reader = RedisAt(at.host, at.port, username="reader").client()
    try:
        command = fatal(error_of(reader, "XACK", "mine", "group", "1-1"))
        key = fatal(error_of(reader, "GET", "yours"))
    finally:
        client.execute_command("ACL", "DELUSER", "reader")
    assert command is not None
    assert command.startswith("the user lacks a permission: ")
    assert "xack" in command
    assert key is not None
    assert key.startswith("the user lacks a permission: ")


def test_a_key_of_another_type_is_fatal(client: redis.Redis) -> None:
    client.set("stream", "text")
    reason = fatal(error_of(client, "XLEN", "stream"))
    assert reason is not None
    assert reason.startswith("a key that we need holds something else: WRONGTYPE ")


def test_a_database_that_does_not_exist_is_fatal(at: RedisAt) -> None:
    beyond = RedisAt(at.host, at.port, db=99)
    with pytest.raises(ConnectError) as caught:
        check(beyond, beyond.client())
    assert str(caught.value) == f"Redis at {beyond}: it has no database of this number"


def test_a_server_that_is_down_may_come_back() -> None:
    at = RedisAt("127.0.0.1", free_port())
    with pytest.raises(exceptions.ConnectionError) as caught:
        check(at, at.client())
    assert fatal(caught.value) is None


@pytest.mark.parametrize(
    "error",
    [
        ReadOnlyError("You can't write against a read only replica."),
        exceptions.TimeoutError("Timeout reading from socket"),
        ResponseError("NOGROUP No such key 'stream' or consumer group 'serving'"),
        ResponseError("OOM command not allowed when used memory > 'maxmemory'."),
        ResponseError("LOADING Redis is loading the dataset in memory"),
    ],
)
def test_what_heals_by_waiting_is_not_fatal(error: RedisError) -> None:
    assert fatal(error) is None


def test_a_client_never_sends_a_command_twice() -> None:
    retry = RedisAt().client().connection_pool.connection_kwargs["retry"]
    assert retry.get_retries() == 0


def test_a_blocking_client_waits_longer_than_it_blocks() -> None:
    options = RedisAt(timeout_s=5).client(wait_s=2).connection_pool.connection_kwargs
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (7, 5)


def test_waits_double_up_to_the_longest_and_are_jittered_by_half() -> None:
    for wait_s, full_s in zip(islice(backoff(0.1, 1.0), 7), (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0), strict=True):
        assert full_s / 2 <= wait_s <= full_s


def test_one_server_is_reached_by_the_connections_of_the_library_which_follow_nobody() -> None:
    assert RedisAt().client().connection_pool.connection_class is redis.Connection
    assert RedisAt(tls=True).client().connection_pool.connection_class is redis.SSLConnection


@pytest.mark.parametrize("gone", ["_sock", "_reader"])
def test_a_connection_that_another_thread_closes_while_it_is_read_fails_as_one(at: RedisAt, gone: str) -> None:
    connection = deadline.Connection(host="127.0.0.1", port=at.port)
    connection.connect()
    assert connection.can_read(timeout=0) is False
    setattr(connection._parser, gone, None)  # the half of a disconnection that the other thread has done
    with pytest.raises(exceptions.ConnectionError):
        connection.can_read(timeout=0)
    connection.disconnect()


def test_a_socket_that_another_thread_closes_while_it_is_read_fails_as_a_connection(at: RedisAt) -> None:
    connection = deadline.Connection(host="127.0.0.1", port=at.port)
    connection.connect()
    connection._sock.close()
    with pytest.raises(exceptions.ConnectionError):
        connection.can_read(timeout=0)
    connection.disconnect()
