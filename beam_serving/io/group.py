"""The consumer group on a stream: making it, looking after its members, taking over what nobody works on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import redis

from beam_serving.io.scripts import ENSURE_GROUP, REAP_CONSUMERS
from beam_serving.records import Entry

_log = logging.getLogger(__name__)
_PAGE = 100
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
        self._client.eval(ENSURE_GROUP, 1, self.stream, self._name)

    def reap(self) -> int:
        """Removes the names of consumers that are gone; those that own entries stay until these are taken over."""
        return int(self._client.eval(REAP_CONSUMERS, 1, self.stream, self._name, int(_ABANDONED_AFTER_S * 1000)))

    def backlog(self) -> tuple[int, int]:
        """Gives the number of entries in the stream and how many of these are delivered but not served yet."""
        pending: Any = self._client.xpending(self.stream, self._name)
        return int(self._client.xlen(self.stream)), int(pending["pending"])

    def claim_own(self, most: int) -> list[Entry]:
        """Takes up entries that were delivered under this consumer's own name to an earlier life or a lost reply."""
        rows: Any = self._client.xpending_range(
            self.stream, self._name, min="-", max="+", count=most, consumername=self._consumer
        )
        if not rows:
            return []
        ids = [row["message_id"] for row in rows]
        claimed: Any = self._client.xclaim(self.stream, self._name, self._consumer, 0, ids)
        return self._delivered(claimed, missing=set(ids) - {entry_id for entry_id, _ in claimed})

    def claim_abandoned(self, idle_s: float, most: int) -> list[Entry]:
        """Takes over at most `most` entries whose consumer has not touched them for `idle_s`."""
        cursor: Any = b"0-0"
        while True:
            reply: Any = self._client.xautoclaim(
                self.stream, self._name, self._consumer, int(idle_s * 1000), start_id=cursor, count=min(most, _PAGE)
            )
            cursor, claimed, *deleted = reply
            if entries := self._delivered(claimed, missing=set(deleted[0]) if deleted else set()):
                return entries
            if cursor == b"0-0":
                return []

    def _delivered(self, claimed: Sequence[tuple[bytes, Any]], missing: set[bytes]) -> list[Entry]:
        """Adds the delivery counts; what was trimmed away while it was pending is acknowledged and reported."""
        rows = [(entry_id, fields) for entry_id, fields in claimed if fields]
        gone = missing | {entry_id for entry_id, fields in claimed if entry_id and not fields}
        if gone:
            _log.error("lost %d entries of %r: trimmed before they were served: %s", len(gone), self.stream, gone)
            self._client.xack(self.stream, self._name, *gone)
        if not rows:
            return []
        pending: Any = self._client.xpending_range(
            self.stream, self._name, min=rows[0][0], max=rows[-1][0], count=10_000, consumername=self._consumer
        )
        counts = {row["message_id"]: int(row["times_delivered"]) for row in pending}
        return [
            Entry(self.stream, entry_id, fields, self._consumer, counts.get(entry_id, 2)) for entry_id, fields in rows
        ]
