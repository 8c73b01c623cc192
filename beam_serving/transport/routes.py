"""Which server to connect to, asked anew for each connection: the primary that sentinels name, or a slot's owner.

Where a server that we are connected to turns out to be the wrong one, because it became a replica or gave the slot
away, the connection is closed and the command fails as if the connection had broken: who tries again asks again. Such
a command has not been carried out. In between, and while a slot is half moved, no server is the right one.

The sentinels are asked in `_connect`, through which every new connection goes. redis-py's SentinelManagedConnection
asks in `connect`, which a command that is tried again does not call: it goes back to the server it was sent away from
(redis-py 8.1; `test_a_primary_that_becomes_a_replica_is_left` fails with it), and so does a `Channel`. Its `Sentinel`
puts errors into one text, in which neither whose they are nor a wrong password can be told apart.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypedDict

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from beam_serving.transport import deadline
from beam_serving.transport.address import Address, HostPort, shown, slot_of

SENTINEL_PASSWORD_VARIABLE = "BEAM_SERVING_SENTINEL_PASSWORD"  # noqa: S105 - the variable's name, no secret
_ASK_S = 1.0
"""One who knows is asked for no longer than this: when a machine dies, its sentinel mostly dies with it."""
_WRONG_SERVER = (ReadOnlyError, AskError, ClusterDownError, TryAgainError)
_DEMOTED = "instance state changed"
"""In the error by which a server that becomes a replica ends blocking reads."""


class Sentinels(NamedTuple):
    """Sentinels that know where the primary called `name` is."""

    hosts: tuple[HostPort, ...]
    name: str

    def __str__(self) -> str:
        return f"{self.name} of the sentinels {shown(self.hosts)}"

    @property
    def address(self) -> Address:
        """Where the primary is asked for."""
        return Address("sentinel", self.hosts, name=self.name)

    def ask(self, client: redis.Redis) -> HostPort | None:
        """Ask one sentinel for the primary."""
        found = client.sentinel_get_master_addr_by_name(self.name)
        return (_text(found[0]), found[1]) if isinstance(found, tuple) else None


class Cluster(NamedTuple):
    """A cluster, of which `hosts` are some nodes, and the slot in which everything is that we need."""

    hosts: tuple[HostPort, ...]
    slot: int

    def __str__(self) -> str:
        return f"the cluster of {shown(self.hosts)}"

    @property
    def address(self) -> Address:
        """Where the owner of the slot is asked for."""
        return Address("cluster", self.hosts)

    def ask(self, client: redis.Redis) -> HostPort | None:
        """Ask one node for the owner of the slot."""
        for first, last, owner, *_ in _reply(client, "CLUSTER", "SLOTS"):
            if first <= self.slot <= last:
                # A node that does not know its own address means the one by which it was asked.
                host = owner[0].decode() if owner[0] else client.connection_pool.connection_kwargs["host"]
                return host, int(owner[1])
        return None


Route = Sentinels | Cluster


def route_of(address: Address, key: str) -> Route | None:
    """Return the way to the server that has `key`; None where there is but one server."""
    if address.kind == "sentinel":
        return Sentinels(address.hosts, address.name)
    return Cluster(address.hosts, slot_of(key.encode())) if address.kind == "cluster" else None


class TlsOptions(TypedDict, total=False):
    """What a connection of redis-py takes of TLS."""

    ssl_ca_certs: str | None
    ssl_cert_reqs: Literal["required"]
    ssl_check_hostname: bool


@dataclass(frozen=True)
class Login:
    """What a server wants to know: user, password, and how TLS is spoken, None where it is not."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TlsOptions | None = None


def tls_options(ca_file: str | None) -> TlsOptions:
    """Return the arguments of connections that check the certificate and that it is the server's."""
    return {"ssl_ca_certs": ca_file, "ssl_cert_reqs": "required", "ssl_check_hostname": True}


def find(route: Route, login: Login) -> HostPort:
    """Ask those who know, one after the other, which server it is.

    Raises:
        redis.AuthenticationError: each of them refuses our user or password.
        redis.ConnectionError: none of them could say.
    """
    answers, refused = [], 0
    # Nodes may know the owner of old; whoever was sent away by it asks another one next.
    hosts = route.hosts if isinstance(route, Sentinels) else random.sample(route.hosts, len(route.hosts))
    for host, port in hosts:
        client = _asking(host, port, login, isinstance(route, Sentinels))
        try:
            with deadline.time_limit(_ASK_S):
                found = route.ask(client)
            if found:
                return found
            answers.append(f"{host}:{port} does not know")
        except RedisError as err:
            refused += isinstance(err, AuthenticationError)
            answers.append(f"{host}:{port}: {err}")
        finally:
            client.close()
    reported = f"nobody says which server it is: {'; '.join(answers)}"
    if refused < len(hosts):
        raise RedisConnectionError(reported)
    variable = f"; that of sentinels is {SENTINEL_PASSWORD_VARIABLE}" if isinstance(route, Sentinels) else ""
    raise AuthenticationError(reported + variable)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _reply(client: redis.Redis, *command: str) -> Any:
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


def _asking(host: str, port: int, login: Login, sentinel: bool) -> redis.Redis:
    password = os.environ.get(SENTINEL_PASSWORD_VARIABLE) if sentinel else login.password
    options: dict[str, Any] = {
        "connection_class": deadline.Connection if login.tls is None else deadline.SSLConnection,
        "host": host,
        "port": port,
        "username": None if sentinel else login.username,
        "password": password,
        "socket_timeout": _ASK_S,
        "socket_connect_timeout": _ASK_S,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
    }
    return redis.Redis.from_pool(redis.ConnectionPool(**options, **(login.tls or TlsOptions())))


def pool_options(route: Route, login: Login, blocking: bool = True) -> dict[str, Any]:
    """Return the arguments by which a pool makes connections that follow a route; else `blocking`, for asyncio."""
    kinds = (_Following, _FollowingOverTls) if blocking else (_AsyncFollowing, _AsyncFollowingOverTls)
    return {
        "connection_class": kinds[login.tls is not None],
        "find": lambda: find(route, login),
        "username": login.username,
        "password": login.password,
        **(login.tls or {}),
    }


def _is_wrong_server(err: ResponseError) -> bool:
    return isinstance(err, _WRONG_SERVER) or _DEMOTED in str(err)


def _gone(connection: Any, err: ResponseError) -> RedisConnectionError:
    return RedisConnectionError(
        f"{connection.host}:{connection.port} serves us no longer ({type(err).__name__}: {err})"
    )


def _following(base: Any) -> type:
    """Return the class of connections that look for their server each time they connect."""

    class Following(base):
        def __init__(self, *, find: Callable[[], HostPort], **options: object) -> None:
            super().__init__(**options)
            self._find = find

        def _connect(self) -> object:
            self.host, self.port = self._find()
            return super()._connect()

        def read_response(self, *args: object, **options: object) -> object:
            try:
                return super().read_response(*args, **options)
            except ResponseError as err:
                if not _is_wrong_server(err):
                    raise
                self.disconnect()
                raise _gone(self, err) from err

    return Following


def _async_following(base: Any) -> type:
    """Return the same for asyncio; who knows is asked from a thread."""

    class Following(base):
        def __init__(self, *, find: Callable[[], HostPort], **options: object) -> None:
            super().__init__(**options)
            self._find = find

        async def _connect(self) -> None:
            self.host, self.port = await asyncio.to_thread(self._find)
            await super()._connect()

        async def read_response(self, *args: object, **options: object) -> object:
            try:
                return await super().read_response(*args, **options)
            except ResponseError as err:
                if not _is_wrong_server(err):
                    raise
                await self.disconnect(nowait=True)
                raise _gone(self, err) from err

    return Following


_Following = _following(deadline.Connection)
_FollowingOverTls = _following(deadline.SSLConnection)
_AsyncFollowing = _async_following(deadline.AsyncConnection)
_AsyncFollowingOverTls = _async_following(deadline.AsyncSSLConnection)
