"""Who serves a stream and group: one name at a time, so that two services do not answer each other's requests.

    <stream>:owner:<group>    name of the service, its deployment and its model, a line each; beside the stream, so
                              that on a Redis Cluster it is in the slot of the stream

The check before a start takes it at once or not at all; the workers renew it, and the last that ends gives it up. All
processes of one name share it: more hosts, drains, a service that is started again. What dies gives it up by time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoPermissionError, RedisError

from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.errors import ConfigError
from beam_serving.io.scripts import DISOWN, OWN
from beam_serving.telemetry.report import LIFETIME_S, ready_key, services_key, streams_of
from beam_serving.transport.keys import owner_key, parents
from beam_serving.transport.lua import evaluate

_log = logging.getLogger(__name__)
STARTING_S = 60
"""How long a start may take until the first worker renews what was taken for it."""


class Owner(NamedTuple):
    """A service that serves a stream; `deployment` is empty until its workers are there."""

    name: str
    deployment: str
    model: str

    def encode(self) -> str:
        """Return what stands in Redis."""
        return "\n".join((self.name, self.deployment, self.model))

    @classmethod
    def decode(cls, text: bytes) -> Owner:
        """Read what `encode` wrote; what somebody else wrote is a name."""
        name, deployment, model = (text.decode(errors="replace")[:1000] + "\n\n").split("\n", 2)
        return cls(name, deployment, model.strip())


class Ownership:
    """The streams of one service, taken, renewed and given up under its name.

    With `data: share` it takes what is free and does not mind what others have.
    """

    def __init__(self, settings: Settings) -> None:
        self._name = settings.name
        self._model = settings.model.path
        self._streams = settings.data.streams
        self._group = settings.data.group
        self._share = settings.data.share
        self._registered = services_key(redis_at(settings), settings.name)
        self._reported: set[tuple[str, str]] = set()

    def take(self, client: redis.Redis) -> None:
        """Take all streams for a service that starts; it has a minute until its workers renew them.

        Raises:
            ConfigError: another service has one.
            RedisError: the server does not answer.
        """
        for stream in self._streams:
            self._check_keys(client, stream)
            try:
                other = self._own(client, stream, "", STARTING_S, self._model)
            except NoPermissionError as err:
                key = owner_key(stream, self._group)
                _log.warning(
                    "whether another service serves %r is not known: the user has no %s (%s)", stream, key, err
                )
                continue
            if other is not None and not self._share:
                raise ConfigError(
                    f"stream {stream!r} and group {self._group!r} are served by {other.name!r} already "
                    f"(model {other.model or 'unknown'}), and {self._name!r} would take its requests: give this "
                    "service data: streams of its own, or the same name where it is the same service, or set data: "
                    f"share: true; a service that died is forgotten within {STARTING_S} s"
                )
            self._tell(stream, other)

    def _check_keys(self, client: redis.Redis, stream: str) -> None:
        """Refuse a stream whose results would be among those of a stream of another service, or the other way round.

        Raises:
            ConfigError: there is such a service, as far as this user may see.
            RedisError: the server does not answer.
        """
        clashes = [*self._owned_parents(client, stream), *self._owned_children(client, stream)]
        if clashes and not self._share:
            name, other = clashes[0]
            raise ConfigError(
                f"streams {stream!r} and {other!r}, which {name!r} serves, would share keys: the result of a request "
                f"of one could be at that of the other; give {self._name!r} streams of other names in data: streams"
            )

    def _owned_parents(self, client: redis.Redis, stream: str) -> Iterator[tuple[str, str]]:
        """Yield the services, with the stream, whose results could be at keys of this stream."""
        for parent in parents(stream):
            try:
                text: Any = client.get(owner_key(parent, self._group))
            except NoPermissionError:
                continue  # who may not look at its keys may not write them either
            if text is not None and (name := Owner.decode(text).name) != self._name:
                yield name, parent

    def _owned_children(self, client: redis.Redis, stream: str) -> Iterator[tuple[str, str]]:
        try:
            members: Any = client.smembers(self._registered)
        except NoPermissionError:
            return
        for name in sorted({member.decode(errors="replace") for member in members} - {self._name}):
            try:
                ready: Any = client.get(ready_key(name))
            except NoPermissionError:
                continue
            for other in streams_of(ready):
                if stream in parents(other):
                    yield name, other

    def renew(self, client: redis.Redis, deployment: str, lifetime_s: int = LIFETIME_S) -> None:
        """Renew all streams for a deployment; say once where another service has one.

        Where the server does not answer, or the user has no right to it, they are held as long as they were.

        Args:
            client: of the service's Redis.
            deployment: whose workers serve them, or will.
            lifetime_s: until when they are held; `STARTING_S` while no worker is there that would renew them.
        """
        try:
            for stream in self._streams:
                self._tell(stream, self._own(client, stream, deployment, lifetime_s))
        except RedisError as err:
            _log.debug("cannot renew what this service holds: %s", err)

    def release(self, client: redis.Redis) -> None:
        """Give up what workers of this name renewed last, when none of them works any more.

        Raises:
            RedisError: the server does not answer, or the user has no right to it.
        """
        for stream in self._streams:
            evaluate(client, DISOWN, 1, owner_key(stream, self._group), self._name)

    def _own(self, client: redis.Redis, stream: str, deployment: str, lifetime_s: int, model: str = "") -> Owner | None:
        owner = Owner(self._name, deployment, model)
        key = owner_key(stream, self._group)
        other: Any = evaluate(client, OWN, 1, key, owner.encode(), 1000 * lifetime_s)
        return None if other is None else Owner.decode(other)

    def _tell(self, stream: str, other: Owner | None) -> None:
        if other is None or (stream, other.name) in self._reported:
            return
        self._reported.add((stream, other.name))
        level = logging.INFO if self._share else logging.WARNING
        _log.log(level, "stream %r and group %r are served by %r too: either answers", stream, self._group, other.name)
