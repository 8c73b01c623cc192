"""The consumer group on a stream: making it, looking after its members, taking over what nobody works on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import redis

from beam_serving.io.scripts import (
    CLAIM,
    CLAIM_ABANDONED,
    ENSURE_GROUP,
    REAP_CONSUMERS,
    RELEASE_CONSUMER,
    TAKE_BACK,
)
from beam_serving.protocol.limits import quote
from beam_serving.records import MOST_FIELDS, MOST_REQUEST_BYTES, Entry
from beam_serving.transport.lua import evaluate

_log = logging.getLogger(__name__)
_ABANDONED_AFTER_S = 600.0
"""A living consumer reads every few seconds; one that did not for so long, and owns nothing, is gone."""


class Group:
    """One consumer group on one stream, seen by the consumer `consumer`.

    Entries of more than `most_bytes`, or of more fields than a request may have, are claimed without their contents.
    """

    def __init__(
        self,
        client: redis.Redis,
        stream: bytes,
        group: str,
        consumer: bytes,
        most_bytes: int = MOST_REQUEST_BYTES,
    ) -> None:
        self._most_bytes = most_bytes
        self._client = client
        self.stream = stream
        self._name = group
        self._consumer = consumer

    def ensure(self) -> None:
        """Make the stream and the group where they are missing, so that all that is queued will be read."""
        evaluate(self._client, ENSURE_GROUP, 1, self.stream, self._name)

    def reap(self) -> int:
        """Remove the names of consumers that are gone; those that own entries stay until these are taken over."""
        return int(evaluate(self._client, REAP_CONSUMERS, 1, self.stream, self._name, int(_ABANDONED_AFTER_S * 1000)))

    def release(self) -> None:
        """Remove this consumer's name, which leaves; where it owns entries it stays until these are taken over."""
        evaluate(self._client, RELEASE_CONSUMER, 1, self.stream, self._name, self._consumer)

    def backlog(self) -> tuple[int, int]:
        """Return the number of entries in the stream and how many of these are delivered but not served yet."""
        pending: Any = self._client.xpending(self.stream, self._name)
        return int(self._client.xlen(self.stream)), int(pending["pending"])

    def claim_own(self) -> Entry | None:
        """Take up the oldest entry that was delivered under this consumer's own name to an earlier life.

        Or to a reply that was lost. One at a time: every claim counts as a delivery, and what waits behind an entry
        that crashes its worker must not be counted along with it.
        """
        while rows := self._pending("-", "+", 1):
            entry_id = rows[0]["message_id"]
            claimed: Any = evaluate(self._client, CLAIM, 1, self.stream, *self._claiming(), entry_id)
            if entry := self._delivered(claimed, {entry_id}):
                return entry
        return None

    def claim_abandoned(self, idle_s: float) -> Entry | None:
        """Take over one entry whose consumer has not touched it for `idle_s`; one at a time, as `claim_own`."""
        cursor: Any = b"0-0"
        while True:
            reply: Any = evaluate(
                self._client, CLAIM_ABANDONED, 1, self.stream, *self._claiming(), int(idle_s * 1000), cursor
            )
            cursor, claimed, *trimmed = reply
            if entry := self._delivered(claimed, set(trimmed[0]) if trimmed else set()):
                return entry
            if cursor == b"0-0":
                return None

    def take_back(self) -> int:
        """Count what was delivered here once as never delivered, since its reply was not read; return how many."""
        return int(evaluate(self._client, TAKE_BACK, 1, self.stream, self._name, self._consumer))

    def _claiming(self) -> tuple[Any, ...]:
        return self._name, self._consumer, self._most_bytes, MOST_FIELDS

    def _delivered(self, claimed: Sequence[Sequence[Any] | None], asked: set[bytes]) -> Entry | None:
        """Add the delivery count; what was trimmed away while it was pending is acknowledged and reported."""
        found = {row[0]: row for row in claimed if row and len(row) > 1 and row[1] is not None}
        gone = (asked | {row[0] for row in claimed if row and row[0]}) - found.keys()
        if gone:
            stream, lost = quote(self.stream), ", ".join(sorted(entry_id.decode() for entry_id in gone))
            _log.error("lost %d entries of %s: trimmed before they were served: %s", len(gone), stream, lost)
            self._client.xack(self.stream, self._name, *gone)
        for entry_id, (_, flat, *weight) in found.items():
            deliveries = sum(int(row["times_delivered"]) for row in self._pending(entry_id, entry_id, 1))
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            return Entry(self.stream, entry_id, fields, self._consumer, deliveries, self._too_much(*weight))
        return None

    def _too_much(self, size_bytes: int = 0, fields: int = 0) -> str:
        """Say why an entry that weighs so much is refused; empty for one that has its contents."""
        if size_bytes > self._most_bytes:
            return f"request is {size_bytes} bytes, at most {self._most_bytes} are served"
        return f"request has {fields} fields, at most {MOST_FIELDS} are served" if fields else ""

    def _pending(self, low: Any, high: Any, count: int) -> Any:
        return self._client.xpending_range(
            self.stream, self._name, min=low, max=high, count=count, consumername=self._consumer
        )
