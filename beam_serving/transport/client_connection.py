"""Where the client finds Redis, and how its connections behave."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from numbers import Real
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
import redis.asyncio
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from beam_serving.errors import ConnectError, InputError, QueueFullError, brief
from beam_serving.transport import deadline
from beam_serving.transport.address import Address, hash_tag
from beam_serving.transport.deadline import (
    LONGEST_S,
    AsyncBoundedRetry,
    BoundedBackoff,
    BoundedPool,
    BoundedRetry,
    time_limit,
)
from beam_serving.transport.routes import Login, Route, pool_options, route_of, tls_options

PASSWORD_VARIABLE = "BEAM_SERVING_REDIS_PASSWORD"  # noqa: S105 - the variable's name, no secret
RedisClient = Any
"""A `redis.Redis` or `redis.asyncio.Redis`: their annotations are partial, and wrong for bytes."""

_RETRIES = 5
_MOST_CONNECTIONS = 10_000
"""A pool has a place for each from the beginning."""
GRACE_S = 0.3
"""What a call that waits for a result may take beyond its time to look for it once more."""
_QUERY = {"db", "username", "password", "health_check_interval", "socket_keepalive"}
_SCHEMES = ("redis", "rediss", "unix")
_ROUTED = ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


@dataclass(frozen=True)
class Server:
    """One Redis server: `name` is for messages, `url` may hold a secret and is not shown.

    With a `route` it is whichever server that leads to at the time.
    Commands are tried again, up to five times over about two seconds, when the connection breaks, and once when there
    was no sign of the server for half of `timeout_s`: a peer that is gone may leave no trace. A request that is queued
    twice in this way has the same id both times and gets one result.

    `timeout_s` is None for no limit.
    """

    name: str
    url: str = field(repr=False)
    password: str | None = field(repr=False)
    max_connections: int = 4
    timeout_s: float | None = 5.0
    ca_file: str | None = None
    route: Route | None = None

    @classmethod
    def at(
        cls,
        url_or_host: str,
        port: int = 6379,
        *,
        password: str | None,
        max_connections: int,
        timeout_s: float | None,
        ca_file: str | None = None,
        stream: str = "serving_stream",
    ) -> "Server":
        """Read a host name, `host:port` or a URL, with which `port` is ignored.

        A URL begins with `redis://`, `rediss://`, `unix://`, `redis+sentinel://` or `redis+cluster://`. Of a cluster it
        is the node that has `stream`.

        Raises:
            InputError: the URL has another scheme or form, a cluster would spread the stream and its results, or an
                argument is none that can be.
        """
        try:
            return cls._at(url_or_host, port, password, max_connections, timeout_s, ca_file, stream)
        except InputError:
            raise
        except ValueError as err:
            raise InputError(str(err)) from err

    @classmethod
    def _at(
        cls,
        url_or_host: str,
        port: int,
        password: str | None,
        max_connections: int,
        timeout_s: float | None,
        ca_file: str | None,
        stream: str,
    ) -> "Server":
        for name, value in (
            ("the address of Redis", url_or_host),
            ("password", password or ""),
            ("ca_file", ca_file or ""),
        ):
            if not isinstance(value, str):
                raise InputError(f"{name} is {type(value).__name__}, wanted is str")
        if not isinstance(stream, str) or not stream:
            raise InputError(f"stream is {brief(stream)}, wanted is the name of a stream")
        _check_text("stream", stream)
        _check_text("the address of Redis", url_or_host)
        if (
            isinstance(max_connections, bool)
            or not isinstance(max_connections, int)
            or not (0 < max_connections <= _MOST_CONNECTIONS)
        ):
            raise InputError(
                f"max_connections is {brief(max_connections)}, wanted is a number from 1 to {_MOST_CONNECTIONS}"
            )
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 1 << 16:
            raise InputError(f"port is {brief(port)}, wanted is a number from 1 to 65535")
        is_url = "://" in url_or_host
        host = f"[{url_or_host}]" if url_or_host.count(":") > 1 and "[" not in url_or_host else url_or_host
        url = url_or_host if is_url else f"redis://{host}"
        parts = urlsplit(url)
        timeout_s = _limit(timeout_s)
        secret = None if parts.password else password or os.environ.get(PASSWORD_VARIABLE)
        if parts.scheme in _ROUTED:
            route = _route(url, stream)
            return cls(str(route), url, secret, max_connections, timeout_s, ca_file, route)
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"{parts.scheme}://... is no Redis URL, wanted is one of {', '.join(_SCHEMES + _ROUTED)}")
        if not is_url and parts.port is None:
            url = f"{url}:{port}"
            parts = urlsplit(url)
        _check_query(parts.query)
        db = parts.path.strip("/")
        host = f"{parts.hostname}:{parts.port or 6379}" + (f"/{db}" if db not in ("", "0") else "")
        name = parts.path if parts.scheme == "unix" else host
        return cls(name, url, secret, max_connections, timeout_s, ca_file)

    def client(self) -> RedisClient:
        """Open a thread-safe client; no socket before its first command.

        At most `max_connections` commands run at once, others wait for their turn.
        """
        return redis.Redis.from_pool(
            self._pool(BoundedPool, max_connections=self.max_connections, timeout=self.timeout_s)
        )

    def subscriber(self) -> RedisClient:
        """Open a client for subscriptions, which hold a connection each for as long as they wait."""
        return redis.Redis.from_pool(self._pool(redis.ConnectionPool))

    def async_client(self) -> RedisClient:
        """Open a client for one event loop, with the connection of its one subscription on top of the others."""
        pool = self._pool(
            redis.asyncio.BlockingConnectionPool, max_connections=self.max_connections + 1, timeout=self.timeout_s
        )
        return redis.asyncio.Redis.from_pool(pool)

    def call(self, most_s: float | None = None) -> "Call":
        """Bound what this thread asks of the server, and turn errors of the Redis library into ours.

        Args:
            most_s: seconds, infinity for no limit; None for `timeout_s`.
        """
        return Call(self, self.timeout_s if most_s is None else most_s)

    @asynccontextmanager
    async def async_call(self, most_s: float | None = None) -> AsyncIterator[None]:
        """Bound what this coroutine asks of the server; see `call`."""
        limit_s = self.timeout_s if most_s is None else most_s
        timer = asyncio.timeout(None if limit_s is None or limit_s > LONGEST_S else limit_s)
        try:
            async with timer:
                yield
        except RedisError as err:
            raise _ours(self, limit_s, err) from err
        except TimeoutError as err:
            if not timer.expired():
                raise
            raise _ours(self, limit_s, RedisTimeoutError()) from err

    def _pool(self, kind: Any, **limits: Any) -> Any:
        blocking = kind is not redis.asyncio.BlockingConnectionPool
        backoff = BoundedBackoff(cap=1.0, base=0.05)
        retry = (BoundedRetry if blocking else AsyncBoundedRetry)(backoff, _RETRIES)
        options = {**self._options(), **limits, "retry": retry}
        if self.route is None:
            tls = self.url.startswith("rediss://")
            if blocking and self.url.startswith("unix://"):
                options["connection_class"] = deadline.UnixConnection
            elif blocking:
                options["connection_class"] = deadline.SSLConnection if tls else deadline.Connection
            elif not self.url.startswith("unix://"):
                options["connection_class"] = deadline.AsyncSSLConnection if tls else deadline.AsyncConnection
            return kind.from_url(self.url, **options)
        address = Address.parse(self.url)
        tls_of = tls_options(self.ca_file) if address.tls else None
        login = Login(address.username, address.password or self.password, tls_of)
        return kind(db=address.db, **options, **pool_options(self.route, login, blocking))

    def _options(self) -> dict[str, object]:
        silent_s = None if self.timeout_s is None else self.timeout_s / 2
        # protocol 2: a subscription needs a connection of its own in either, and proxies know it
        options: dict[str, object] = {
            "protocol": 2,
            "socket_timeout": silent_s,
            "socket_connect_timeout": silent_s,
            "client_name": "beam-serving-client",
        }
        if self.route is None and self.password:
            options["password"] = self.password
        if self.url.startswith("rediss://"):
            options |= tls_options(self.ca_file)
        return options


def _check_text(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as err:
        raise InputError(f"{name} {value!r} has half of a surrogate pair, which is no text") from err


def _check_query(query: str) -> None:
    """Refuse what redis-py would trip over when it first connects."""
    if unknown := sorted(set(parse_qs(query, keep_blank_values=True)) - _QUERY):
        raise InputError(f"the URL has the unknown parameter {unknown[0]!r}, known are {', '.join(sorted(_QUERY))}")


def _limit(timeout_s: float | None) -> float | None:
    if timeout_s is None:
        return None
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, Real) or not timeout_s > 0:
        raise InputError(
            f"timeout_s is {brief(timeout_s)}, wanted is a number of seconds above 0, or None for no limit"
        )
    return None if timeout_s > LONGEST_S else float(timeout_s)


def _route(url: str, stream: str) -> Route | None:
    address = Address.parse(url)
    if address.kind == "cluster" and not hash_tag(stream.encode()):
        raise ValueError(
            f"stream {stream!r} has no hash tag, wanted on a Redis Cluster is a name such as '{{digits}}_stream'"
        )
    return route_of(address, stream)


class Call:
    """A call of the client to Redis, as a context: it has an end, and errors of ours.

    Raises:
        QueueFullError: Redis is at its `maxmemory`.
        ConnectError: Redis cannot be reached, does not answer in time, or refuses us.
    """

    __slots__ = ("_limit", "_limit_s", "_server")

    def __init__(self, server: Server, limit_s: float | None, bounded: bool = True) -> None:
        self._server = server
        self._limit_s = limit_s
        self._limit = time_limit(limit_s if bounded else None)

    def __enter__(self) -> None:
        self._limit.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limit.__exit__(kind, error, trace)
        if isinstance(error, RedisError):
            raise _ours(self._server, self._limit_s, error) from error


def _ours(server: Server, limit_s: float | None, err: RedisError) -> ConnectError | QueueFullError:
    if isinstance(err, OutOfMemoryError):
        return QueueFullError(f"Redis at {server.name} has no memory for another request; nothing was queued")
    if isinstance(err, RedisTimeoutError):
        within = "" if limit_s is None or limit_s > LONGEST_S else f" within {limit_s:g} s"
        reason = f" ({err})" if str(err) else ""
        return ConnectError(f"Redis at {server.name}: no answer{within}{reason}")
    return ConnectError(f"Redis at {server.name}: {err}")
