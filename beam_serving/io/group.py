"""The consumer group on a stream: making it, looking after its members, taking over what nobody works on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import redis

from beam_serving.io.scripts import ENSURE_GROUP, REAP_CONSUMERS, RELEASE_CONSUMER
from beam_serving.lua import evaluate
from beam_serving.records import Entry

_log = logging.getLogger(__name__)
_ABANDONED_AFTER_S = 600.0
"""A living consumer reads every few seconds; one that did not for so long, and owns nothing, is gone."""


class Group:
    """One consumer group on one stream, seen by the consumer `consumer`."""

    def __init__(self, client: redis.Redis, stream: bytes, group: str, consumer: bytes) -> None:
        self._client = client
        self.stream = stream
        self._name = group
        self._consumer = consumer

    def ensure(self) -> None:
        """Makes the stream and the group where they are missing, so that all that is queued will be read."""
        evaluate(self._client, ENSURE_GROUP, 1, self.stream, self._name)

    def reap(self) -> int:
        """Removes the names of consumers that are gone; those that own entries stay until these are taken over."""
        return int(evaluate(self._client, REAP_CONSUMERS, 1, self.stream, self._name, int(_ABANDONED_AFTER_S * 1000)))

    def release(self) -> None:
        """Removes this consumer's name, which leaves; where it owns entries it stays until these are taken over."""
        evaluate(self._client, RELEASE_CONSUMER, 1, self.stream, self._name, self._consumer)

    def backlog(self) -> tuple[int, int]:
        """Gives the number of entries in the stream and how many of these are delivered but not served yet."""
        pending: Any = self._client.xpending(self.stream, self._name)
        return int(self._client.xlen(self.stream)), int(pending["pending"])

    def claim_own(self) -> Entry | None:
        """Takes up the oldest entry that was delivered under this consumer's own name to an earlier life.

        Or to a reply that was lost. One at a time: every claim counts as a delivery, and what waits behind an entry
        that crashes its worker must not be counted along with it.
        """
        while rows := self._pending("-", "+", 1):
            entry_id = rows[0]["message_id"]
            claimed: Any = self._client.xclaim(self.stream, self._name, self._consumer, 0, [entry_id])
            if entry := self._delivered(claimed, {entry_id}):
                return entry
        return None

    def claim_abandoned(self, idle_s: float) -> Entry | None:
        """Takes over one entry whose consumer has not touched it for `idle_s`; one at a time, as `claim_own`."""
        cursor: Any = b"0-0"
        while True:
            reply: Any = self._client.xautoclaim(
                self.stream, self._name, self._consumer, int(idle_s * 1000), start_id=cursor, count=1
            )
            cursor, claimed, *trimmed = reply
            if entry := self._delivered(claimed, set(trimmed[0]) if trimmed else set()):
                return entry
            if cursor == b"0-0":
                return None

    def _delivered(self, claimed: Sequence[tuple[bytes, Any]], asked: set[bytes]) -> Entry | None:
        """Adds the delivery count; what was trimmed away while it was pending is acknowledged and reported."""
        found = {entry_id: fields for entry_id, fields in claimed if fields}
        gone = (asked | {entry_id for entry_id, _ in claimed if entry_id}) - found.keys()
        if gone:
            _log.error("lost %d entries of %r: trimmed before they were served: %s", len(gone), self.stream, gone)
            self._client.xack(self.stream, self._name, *gone)
        for entry_id, fields in found.items():
            deliveries = sum(int(row["times_delivered"]) for row in self._pending(entry_id, entry_id, 1))
            return Entry(self.stream, entry_id, fields, self._consumer, deliveries)
        return None

    def _pending(self, low: Any, high: Any, count: int) -> Any:
        return self._client.xpending_range(
            self.stream, self._name, min=low, max=high, count=count, consumername=self._consumer
        )
