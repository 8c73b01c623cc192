"""Where the client finds Redis, and how its connections behave."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import FullJitterBackoff
from redis.exceptions import OutOfMemoryError, RedisError
from redis.retry import Retry

from beam_serving.errors import ConnectError, InputError, QueueFullError
from beam_serving.transport.address import Address, hash_tag
from beam_serving.transport.routes import Login, Route, pool_options, route_of, tls_options

PASSWORD_VARIABLE = "BEAM_SERVING_REDIS_PASSWORD"  # noqa: S105 - the variable's name, no secret
RedisClient = Any
"""A `redis.Redis` or `redis.asyncio.Redis`: their annotations are partial, and wrong for bytes."""

_RETRIES = 5
_LONGEST_TIMEOUT_S = 86_400.0
"""A day, which stands for no limit: operating systems take no more than some weeks."""
_SCHEMES = ("redis", "rediss", "unix")
_ROUTED = ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


@dataclass(frozen=True)
class Server:
    """One Redis server: `name` is for messages, `url` may hold a secret and is not shown.

    With a `route` it is whichever server that leads to at the time.
    Commands are tried again, up to five times over about two seconds, when the connection breaks. A request that is
    queued twice in this way has the same id both times and gets one result.
    """

    name: str
    url: str = field(repr=False)
    password: str | None = field(repr=False)
    max_connections: int = 4
    timeout_s: float = 5.0
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
        timeout_s: float,
        ca_file: str | None = None,
        stream: str = "",
    ) -> "Server":
        """Read a host name, `host:port` or a URL, with which `port` is ignored.

        A URL begins with `redis://`, `rediss://`, `unix://`, `redis+sentinel://` or `redis+cluster://`. Of a cluster it
        is the node that has `stream`.

        Raises:
            ValueError: the URL has another scheme or form, or a cluster would spread the stream and its results.
            InputError: `timeout_s` is no number above 0.
        """
        is_url = "://" in url_or_host
        host = f"[{url_or_host}]" if url_or_host.count(":") > 1 and "[" not in url_or_host else url_or_host
        url = url_or_host if is_url else f"redis://{host}"
        parts = urlsplit(url)
        timeout_s = _for_sockets(timeout_s)
        secret = None if parts.password else password or os.environ.get(PASSWORD_VARIABLE)
        if parts.scheme in _ROUTED:
            route = _route(url, stream)
            return cls(str(route), url, secret, max_connections, timeout_s, ca_file, route)
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"{parts.scheme}://... is no Redis URL, wanted is one of {', '.join(_SCHEMES + _ROUTED)}")
        if not is_url and parts.port is None:
            url = f"{url}:{port}"
            parts = urlsplit(url)
        name = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
        return cls(name, url, secret, max_connections, timeout_s, ca_file)

    def client(self) -> RedisClient:
        """Open a thread-safe client; no socket before its first command.

        At most `max_connections` commands run at once, others wait for their turn.
        """
        return redis.Redis.from_pool(
            self._pool(redis.BlockingConnectionPool, max_connections=self.max_connections, timeout=self.timeout_s)
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

    def _pool(self, kind: Any, **limits: object) -> Any:
        blocking = issubclass(kind, redis.ConnectionPool)
        retry = (Retry if blocking else AsyncRetry)(FullJitterBackoff(cap=1.0, base=0.05), _RETRIES)
        options = {**self._options(), **limits, "retry": retry}
        if self.route is None:
            return kind.from_url(self.url, **options)
        address = Address.parse(self.url)
        tls = tls_options(self.ca_file) if address.tls else None
        login = Login(address.username, address.password or self.password, tls)
        return kind(db=address.db, **options, **pool_options(self.route, login, blocking))

    def _options(self) -> dict[str, object]:
        # protocol 2: a subscription needs a connection of its own in either, and proxies know it
        options: dict[str, object] = {
            "protocol": 2,
            "socket_timeout": self.timeout_s,
            "socket_connect_timeout": self.timeout_s,
            "client_name": "beam-serving-client",
        }
        if self.route is None and self.password:
            options["password"] = self.password
        if self.url.startswith("rediss://"):
            options |= tls_options(self.ca_file)
        return options


def _for_sockets(timeout_s: float) -> float:
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, Real) or not timeout_s > 0:
        raise InputError(f"timeout_s is {timeout_s!r}, wanted is a number of seconds above 0")
    return min(float(timeout_s), _LONGEST_TIMEOUT_S)


def _route(url: str, stream: str) -> Route | None:
    address = Address.parse(url)
    if address.kind == "cluster" and not hash_tag(stream.encode()):
        raise ValueError(
            f"stream {stream!r} has no hash tag, wanted on a Redis Cluster is a name such as '{{digits}}_stream'"
        )
    return route_of(address, stream)


@contextmanager
def redis_errors(server: Server) -> Iterator[None]:
    """Turn errors of the Redis library into ours.

    Raises:
        QueueFullError: Redis is at its `maxmemory`.
        ConnectError: Redis cannot be reached, or refuses us.
    """
    try:
        yield
    except OutOfMemoryError as err:
        raise QueueFullError(f"Redis at {server.name} has no memory for another request; nothing was queued") from err
    except RedisError as err:
        raise ConnectError(f"Redis at {server.name}: {err}") from err
