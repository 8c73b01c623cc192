"""Publishes what a worker says of itself, from a thread of its own; `beam_serving.telemetry.report` has the keys."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

import redis
from redis.exceptions import RedisError

from beam_serving.telemetry.periodic import PeriodicThread
from beam_serving.telemetry.report import (
    LIFETIME_S,
    Deployment,
    announce,
    described,
    encode_report,
    read_reports,
    services_key,
    stop_key,
    worker_key,
    workers_key,
    working_reports,
)
from beam_serving.telemetry.stats import State, WorkerStats
from beam_serving.transport.connection import RedisAt
from beam_serving.transport.lua import script

_log = logging.getLogger(__name__)
EVERY_S = 1.0
_WATCH_EVERY_S = 0.05
_RENEW_EVERY_S = 5.0
_RATE_OVER_S = 0.9

_REPORT = script(__package__, "publish")


class Keeper(Protocol):
    """What the processes of a service hold in Redis together, as `beam_serving.io.ownership.Ownership`."""

    def renew(self, client: redis.Redis, deployment: str) -> None:
        """Keep it for the next seconds, if the server answers."""

    def release(self, client: redis.Redis) -> None:
        """Give it up."""


class Rate:
    """How many records per second a worker serves, measured over a second or more."""

    def __init__(self, stats: WorkerStats, clock: Callable[[], float] = time.monotonic) -> None:
        self._stats = stats
        self._clock = clock
        self._served, self._at, self._per_s = 0, clock(), 0.0

    def per_s(self) -> float:
        """Return the rate since it was measured last, or that one again within a second."""
        now, served = self._clock(), self._stats.counts["served"]
        if now - self._at >= _RATE_OVER_S:
            self._per_s = (served - self._served) / (now - self._at)
            self._served, self._at = served, now
        return self._per_s


class Reporter:
    """Publishes a worker's numbers once a second from a thread of its own.

    `on_stop` is called when somebody has asked that reading shall end. Where no supervisor needs to live, `announcing`
    is what one of the workers says of the service while all of them serve.
    `holding` is renewed as long as this process works, and given up by the last one of the service that ends.
    """

    def __init__(
        self,
        at: RedisAt,
        name: str,
        worker: str,
        deployment: str,
        stats: WorkerStats,
        on_stop: Callable[[], None],
        announcing: dict[str, Any] | None = None,
        holding: Keeper | None = None,
    ) -> None:
        self._client = at.client()
        self._name = name
        self._registered = services_key(at, name)
        self._worker = worker
        self._deployment = deployment
        self._stats = stats
        self._on_stop = on_stop
        self._announcing = announcing
        self._holding = holding
        self._renew_at = 0.0
        self._state = ""
        self._published_at = 0.0
        self._rate = Rate(stats)
        self._thread = PeriodicThread("report", _WATCH_EVERY_S, self._work)

    def say_stopped(self) -> None:
        """Publish that this worker has ended, while the thread may still work."""
        self._stats.state = State.STOPPED
        self._publish()

    def close(self) -> None:
        """Publish the last numbers and end the thread."""
        self._thread.close()
        self._publish()
        self._release()
        self._client.close()

    def _work(self) -> float:
        # Until it serves, a worker is watched closely: "ready" should not wait for the next full second.
        steady = self._stats.state == self._state == State.SERVING
        now = time.monotonic()
        if steady or self._stats.state != self._state or now - self._published_at >= EVERY_S:
            self._published_at = now
            self._publish()
            self._renew(now)
        self._state = self._stats.state
        return EVERY_S if steady else _WATCH_EVERY_S

    def _publish(self) -> None:
        keys = (worker_key(self._name, self._worker), workers_key(self._name))
        pipeline = self._client.pipeline(transaction=False)
        pipeline.eval(
            _REPORT,
            len(keys),
            *keys,
            encode_report(self._stats, self._deployment, self._rate.per_s()),
            1000 * LIFETIME_S,
            self._worker,
        )
        pipeline.exists(stop_key(self._name, self._deployment))
        try:
            _, stop = pipeline.execute()
            if self._announcing is not None and self._stats.state == State.SERVING:
                self._announce_for_all(self._announcing)
        except RedisError as err:
            _log.debug("cannot publish the numbers of this worker: %s", err)
            return
        if stop:
            self._on_stop()
        self._register()

    def _renew(self, now: float) -> None:
        if self._holding is None or now < self._renew_at:
            return
        self._renew_at = now + _RENEW_EVERY_S
        self._holding.renew(self._client, self._deployment)

    def _release(self) -> None:
        if self._holding is None:
            return
        try:
            if not working_reports(self._client, self._name):
                self._holding.release(self._client)
        except RedisError as err:
            _log.debug("cannot give up what this service holds, it expires by itself: %s", err)

    def _register(self) -> None:
        """List the service among those of this Redis; a user that may not write there loses nothing else."""
        try:
            self._client.sadd(self._registered, self._name)
        except RedisError as err:
            _log.debug("cannot list this service: %s", err)

    def _announce_for_all(self, about: dict[str, Any]) -> None:
        """Say that the service is ready, where this worker is the first of as many as are wanted."""
        serving = [
            one for one in read_reports(self._client, self._name, self._deployment) if one.states == [State.SERVING]
        ]
        if len(serving) >= about["workers"] and serving[0].worker == self._worker:
            about = about | described(serving, about["workers"])
            announce(self._client, self._name, about, Deployment(self._deployment))
