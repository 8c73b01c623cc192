"""Where Redis is and how to reach it, as one frozen value that travels to every worker without its secret."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from beam_serving.errors import ConfigError, ConnectError, UnreachableError
from beam_serving.text_files import NotReadableError, lines_of, read_text_file
from beam_serving.transport.address import Address
from beam_serving.transport.routes import Login, Route, TlsOptions, pool_options, tls_options

PASSWORD_VARIABLE = "BEAM_SERVING_REDIS_PASSWORD"  # noqa: S105 - the variable's name, no secret


@dataclass(frozen=True)
class RedisAt:
    """One Redis server. The password is read where a connection is opened, and is never part of this value.

    With a `route` the server is whichever that leads to at the time, and `host` and `port` do not count.
    """

    host: str = "localhost"
    port: int = 6379
    db: int = 0
    tls: bool = False
    username: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    timeout_s: float = 5.0
    route: Route | None = None

    def __str__(self) -> str:
        return (str(self.route) if self.route else f"{self.host}:{self.port}") + (f"/{self.db}" if self.db else "")

    def url(self) -> str:
        """Return the address as the client takes it, without the password."""
        address = self.route.address if self.route else Address("server", ((self.host, self.port),))
        return replace(address, tls=self.tls, db=self.db, username=self.username).url()

    def password(self) -> str | None:
        """Read the password from where it is kept.

        Raises:
            ConfigError: the file that holds it cannot be read.
        """
        if not self.password_file:
            return os.environ.get(PASSWORD_VARIABLE)
        try:
            lines = lines_of(read_text_file(self.password_file).strip())
        except NotReadableError as err:
            raise ConfigError(f"redis: password_file {self.password_file}: {err}") from err
        if len(lines) > 1:
            raise ConfigError(f"redis: password_file {self.password_file}: wants one line, the password")
        return lines[0] if lines else ""

    def client(self, wait_s: float = 0.0) -> redis.Redis:
        """Open a client of one connection that never retries by itself.

        A retry inside the library would send XADD or a script twice (the reply was lost, not the command);
        the one loop that tries again is ours, `retry_until`. `wait_s` is how long a command may block on the server.
        """
        options: dict[str, Any] = {
            "db": self.db,
            "socket_timeout": self.timeout_s + wait_s,
            "socket_connect_timeout": self.timeout_s,
            "socket_keepalive": True,
            "max_connections": 4,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "client_name": "beam-serving",
        }
        tls = tls_options(self.ca_file) if self.tls else None
        if self.route is not None:
            login = Login(self.username, self.password(), tls)
            return redis.Redis.from_pool(redis.ConnectionPool(**pool_options(self.route, login), **options))
        return redis.Redis(
            host=self.host,
            port=self.port,
            username=self.username,
            password=self.password(),
            ssl=self.tls,
            **(tls or TlsOptions()),
            **options,
        )

    @contextmanager
    def reachable(self) -> Iterator[redis.Redis]:
        """Open a client for a command of an operator, which tells an error at once instead of waiting it out.

        Raises:
            ConnectError: the server refuses us, or cannot be reached (`UnreachableError`).
        """
        client = self.client()
        try:
            check(self, client)
            yield client
        except RedisError as err:
            raise self.unreachable(err) from err
        finally:
            client.close()

    def unreachable(self, err: RedisError) -> UnreachableError:
        """Return the error of who waits no longer for the server.

        Args:
            err: why it cannot be reached.
        """
        remedy = "start one there (`beam-serving redis` runs a small one for trying), or set data: src to where it is"
        return UnreachableError(f"Redis at {self} cannot be reached ({err}); {remedy}")


def fatal(error: RedisError) -> str | None:
    """Say why an error of Redis will not heal by waiting, or return None where it may."""
    if isinstance(error, NoPermissionError):
        return f"the user lacks a permission: {error}"
    refused = isinstance(error, AuthenticationError | AuthorizationError)
    if refused or any(word in str(error) for word in ("NOAUTH", "WRONGPASS")):
        return f"it refuses our user or password ({error}); set {PASSWORD_VARIABLE} or redis: password_file"
    if isinstance(error, ResponseError) and not isinstance(error, ReadOnlyError) and "WRONGTYPE" in str(error):
        return f"a key that we need holds something else: {error}"
    if "DB index is out of range" in str(error):
        return "it has no database of this number"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"its certificate is not to be trusted ({error}); redis: ca_file names the authority"
    if "WRONG_VERSION_NUMBER" in str(error):
        return f"it does not speak TLS ({error}); data: src begins with redis in place of rediss then"
    return None


_HEALS = re.compile(
    r"\b(BUSY|LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|MISCONF|OOM|MOVED|UNKILLABLE|FAILOVER)\b"
)


def heals(error: RedisError) -> bool:
    """Return whether the same command may succeed later: the connection broke, or its state will pass."""
    passing = ReadOnlyError, OutOfMemoryError, TryAgainError, ClusterDownError, MasterDownError
    return not isinstance(error, ResponseError) or isinstance(error, passing) or bool(_HEALS.search(str(error)))


def check(at: RedisAt, client: redis.Redis) -> None:
    """Ask the server for a sign of life.

    Raises:
        ConnectError: it refuses us for good.
        RedisError: it cannot be reached now, or is still loading.
    """
    try:
        client.ping()
    except RedisError as err:
        if reason := fatal(err):
            raise ConnectError(f"Redis at {at}: {reason}") from err
        raise
