"""Keeps entries that are being worked on from being taken for abandoned."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from redis.exceptions import RedisError

from beam_serving.io.aside import Aside
from beam_serving.io.scripts import KEEP_LEASE
from beam_serving.protocol.limits import quote
from beam_serving.records import Block
from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.periodic import PeriodicThread
from beam_serving.transport.connection import RedisAt
from beam_serving.transport.lua import evaluate

_log = logging.getLogger(__name__)


class Lease:
    """Renews, from a thread of its own, the idle time of the entries held, three times per `idle_s`.

    A process that is stopped or stuck renews nothing, so others take its entries over after `idle_s`; when it comes
    back, the sink's ownership check keeps it from writing.
    """

    def __init__(self, at: RedisAt, group: str, consumer: bytes, idle_s: float, aside: Aside | None = None) -> None:
        self._client = at.client()
        self._group = group
        self._consumer = consumer
        self._aside = aside
        self._held: Sequence[Block] = ()
        self._counts = service_context().stats.counts
        self._thread = PeriodicThread("lease", idle_s / 3, self._renew)

    def hold(self, blocks: Sequence[Block]) -> None:
        """Replace what is held; an empty sequence releases everything."""
        self._held = blocks

    def close(self) -> None:
        """End the thread."""
        self._thread.close()
        self._client.close()

    def _renew(self) -> None:
        aside = self._aside.streams if self._aside else frozenset()
        for stream in {block.stream for block in self._held} | aside:
            try:
                evaluate(self._client, KEEP_LEASE, 1, stream, self._group, self._consumer)
            except RedisError as err:
                self._counts["lease_failures"] += 1
                _log.warning(
                    "cannot renew the lease of entries of %s, which others take over where that lasts: %s",
                    quote(stream),
                    err,
                )
