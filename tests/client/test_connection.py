"""Where the client looks for Redis, and what it says when it is not there."""

import numpy as np
import pytest

from beam_serving.client import AsyncInputQueue, ConnectError, InputQueue
from beam_serving.launch.embedded_redis import embedded_redis, free_port
from beam_serving.transport.client_connection import PASSWORD_VARIABLE, Server


def at(url_or_host: str, port: int = 6379, password: str | None = None) -> Server:
    return Server.at(url_or_host, port, password=password, max_connections=1, timeout_s=1.0)


@pytest.mark.parametrize(
    ("given", "url", "name"),
    [
        (("localhost",), "redis://localhost:6379", "localhost:6379"),
        (("redis.lan", 7000), "redis://redis.lan:7000", "redis.lan:7000"),
        (("redis.lan:7001", 7000), "redis://redis.lan:7001", "redis.lan:7001"),
        (("::1", 7000), "redis://[::1]:7000", "::1:7000"),
        (("rediss://redis.lan:7000/2",), "rediss://redis.lan:7000/2", "redis.lan:7000/2"),
        (("redis://redis.lan", 7000), "redis://redis.lan", "redis.lan:6379"),
        (("unix:///run/redis.sock",), "unix:///run/redis.sock", "/run/redis.sock"),
    ],
)
def test_a_host_or_a_url_is_understood(given: tuple[str, int], url: str, name: str) -> None:
    server = at(*given)
    assert (server.url, server.name) == (url, name)


def test_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^http://... is no Redis URL, wanted is one of redis, rediss, unix, redis"):
        at("http://localhost")


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "from-env")
    assert "from-env" not in repr(at("localhost"))
    assert "in-url" not in repr(at("redis://:in-url@localhost"))


def test_the_password_is_that_of_the_url_else_the_argument_else_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "from-env")
    assert at("localhost").password == "from-env"  # noqa: S105 - a test's own
    assert at("localhost", password="given").password == "given"  # noqa: S105, S106 - a test's own
    assert at("redis://:in-url@localhost").password is None


def test_a_server_with_a_password_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded_redis(0, "--requirepass", "sesame") as port:
        with InputQueue("127.0.0.1", port) as queue, pytest.raises(ConnectError, match="Authentication"):
            queue.enqueue("a", np.zeros(1))
        monkeypatch.setenv(PASSWORD_VARIABLE, "sesame")
        with InputQueue("127.0.0.1", port) as queue:
            assert queue.enqueue("a", np.zeros(1))
        with InputQueue(f"redis://:sesame@127.0.0.1:{port}") as queue:
            assert queue.enqueue("a", np.zeros(1))


async def test_a_server_that_is_not_there_is_named() -> None:
    port = free_port()
    with InputQueue("127.0.0.1", port) as queue, pytest.raises(ConnectError, match=f"^Redis at 127.0.0.1:{port}: "):
        queue.enqueue("a", np.zeros(1))
    async with AsyncInputQueue("127.0.0.1", port) as queue:
        with pytest.raises(ConnectError, match=f"^Redis at 127.0.0.1:{port}: "):
            await queue.enqueue("a", np.zeros(1))
