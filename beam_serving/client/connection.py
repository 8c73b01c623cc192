"""Where the client finds Redis, and how its connections behave."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import FullJitterBackoff
from redis.exceptions import OutOfMemoryError, RedisError
from redis.retry import Retry

from beam_serving.errors import ConnectError, QueueFullError

PASSWORD_VARIABLE = "BEAM_SERVING_REDIS_PASSWORD"  # noqa: S105 - the variable's name, no secret
RedisClient = Any
"""A `redis.Redis` or `redis.asyncio.Redis`: their annotations are partial, and wrong for bytes."""

_RETRIES = 5
_SCHEMES = ("redis", "rediss", "unix")


@dataclass(frozen=True)
class Server:
    """One Redis server: `name` is for messages, `url` may hold a secret and is not shown.

    Commands are tried again, up to five times over about two seconds, when the connection breaks. A request that is
    queued twice in this way has the same id both times and gets one result.
    """

    name: str
    url: str = field(repr=False)
    password: str | None = field(repr=False)
    max_connections: int = 4
    timeout_s: float = 5.0

    @classmethod
    def at(
        cls, url_or_host: str, port: int = 6379, *, password: str | None, max_connections: int, timeout_s: float
    ) -> "Server":
        """Reads a host name, `host:port` or a URL (`redis://`, `rediss://`, `unix://`; then `port` is passed over).

        Raises:
            ValueError: the URL has another scheme.
        """
        is_url = "://" in url_or_host
        host = f"[{url_or_host}]" if url_or_host.count(":") > 1 and "[" not in url_or_host else url_or_host
        url = url_or_host if is_url else f"redis://{host}"
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"{parts.scheme}://... is no Redis URL, wanted is one of {', '.join(_SCHEMES)}")
        if not is_url and parts.port is None:
            url = f"{url}:{port}"
            parts = urlsplit(url)
        name = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
        secret = None if parts.password else password or os.environ.get(PASSWORD_VARIABLE)
        return cls(name, url, secret, max_connections, timeout_s)

    def client(self) -> RedisClient:
        """Opens a thread-safe client; no socket before its first command.

        At most `max_connections` commands run at once, others wait for their turn.
        """
        pool = redis.BlockingConnectionPool.from_url(
            self.url,
            retry=Retry(FullJitterBackoff(cap=1.0, base=0.05), _RETRIES),
            max_connections=self.max_connections,
            timeout=self.timeout_s,
            **self._options(),
        )
        return redis.Redis.from_pool(pool)

    def subscriber(self) -> RedisClient:
        """Opens a client for subscriptions, which hold a connection each for as long as they wait."""
        return redis.Redis.from_url(
            self.url, retry=Retry(FullJitterBackoff(cap=1.0, base=0.05), _RETRIES), **self._options()
        )

    def async_client(self) -> RedisClient:
        """Opens a client for one event loop, with the connection of its one subscription on top of the others."""
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            self.url,
            retry=AsyncRetry(FullJitterBackoff(cap=1.0, base=0.05), _RETRIES),
            max_connections=self.max_connections + 1,
            timeout=self.timeout_s,
            **self._options(),
        )
        return redis.asyncio.Redis.from_pool(pool)

    def _options(self) -> dict[str, Any]:
        # protocol 2: a subscription needs a connection of its own in either, and proxies know it
        options: dict[str, Any] = {
            "protocol": 2,
            "socket_timeout": self.timeout_s,
            "socket_connect_timeout": self.timeout_s,
            "client_name": "beam-serving-client",
        }
        if self.password:
            options["password"] = self.password
        return options


@contextmanager
def redis_errors(server: Server) -> Iterator[None]:
    """Turns errors of the Redis library into ours.

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
