"""A member of a consumer group: reads new entries, takes over abandoned ones, and survives what Redis does meanwhile.

Delivery is at least once up to the sink, which writes a result only for whoever still owns the entry. An entry stays
pending under this consumer until `WriteToRedis` commits its result.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError, ResponseError

from beam_serving.connection import RedisAt, backoff, fatal
from beam_serving.errors import ConnectError
from beam_serving.io.group import Group
from beam_serving.records import Entry
from beam_serving.stats import stats_of_process

_log = logging.getLogger(__name__)
_GROUP_IS_GONE = ("NOGROUP", "UNBLOCKED")
_REAP_EVERY_S = 300.0


@dataclass(frozen=True)
class Reading:
    """What a consumer reads and how: the group's streams, the size of a poll and the times, in seconds."""

    at: RedisAt
    streams: tuple[str, ...]
    group: str
    count: int
    poll_s: float
    reclaim_idle_s: float


class StreamConsumer:
    """One named consumer of a group on one or more streams. Used by one thread; `stop` may be set by another.

    A name must never be used by two living processes: whoever carries it owns what is pending under it.
    """

    def __init__(self, reading: Reading, name: str, stop: threading.Event) -> None:
        self.name = name.encode()
        self._reading = reading
        self._stop = stop
        self._client = reading.at.client(wait_s=reading.poll_s)
        self._groups = [Group(self._client, stream.encode(), reading.group, self.name) for stream in reading.streams]
        self._orphaned = True
        self._ahead_s = 0.0
        self._next_reclaim = self._next_reap = 0.0
        self._stats = stats_of_process()

    def close(self) -> None:
        """Closes the connection; what is pending stays so until someone takes it over."""
        self._client.close()

    def poll(self) -> list[Entry]:
        """Waits up to `poll_s` for entries and gives at most `count` of each stream; empty when none came.

        Entries that were delivered before come one to a call, so that one which crashes its worker takes no
        neighbour along. While Redis is away it waits and tries again, until it answers or `stop` is set.

        Raises:
            ConnectError: Redis refuses us for good.
        """
        waits = backoff()
        while not self._stop.is_set():
            try:
                entries = self._read()
            except RedisError as err:
                self._survive(err)
                self._stop.wait(next(waits))
            else:
                self._stats.state = "serving"
                return entries
        return []

    def drained(self) -> bool:
        """Says whether nothing is queued and nothing is pending, under whichever consumer."""
        try:
            return all(group.backlog() == (0, 0) for group in self._groups)
        except RedisError as err:
            self._survive(err)
            return False

    def _survive(self, err: RedisError) -> None:
        if reason := fatal(err):
            raise ConnectError(f"Redis at {self._reading.at}: {reason}") from err
        # Whatever a lost reply delivered is pending under our own name, and nobody works on it.
        self._orphaned = True
        if isinstance(err, ResponseError) and any(word in str(err) for word in _GROUP_IS_GONE):
            _log.warning("a stream or its group is gone (%s); what was queued in it is lost; making it again", err)
            self._stats.counts["regrouped"] += 1
        elif self._stats.state != "waiting for Redis":
            _log.warning("Redis at %s does not serve us (%s); trying again until it does", self._reading.at, err)
            self._stats.state = "waiting for Redis"

    def _read(self) -> list[Entry]:
        if entry := self._claim():
            _log.warning("took over %s of %r: delivered before and not served", entry.entry_id, entry.stream)
            self._stats.counts["reclaimed"] += 1
            return [entry]
        new: Any = {group.stream: ">" for group in self._groups}
        reply: Any = self._client.xreadgroup(
            self._reading.group,
            self.name,  # type: ignore[arg-type]
            new,
            count=self._reading.count,
            block=int(self._reading.poll_s * 1000),
        )
        entries = [Entry(stream, entry_id, fields, self.name) for stream, rows in reply for entry_id, fields in rows]
        if entries:
            queued_at_ms = min(int(entry.entry_id.partition(b"-")[0]) for entry in entries)
            waited_s = time.time() + self._ahead_s - queued_at_ms / 1000
            self._stats.stages["wait"].record(max(waited_s, 0.0), len(entries))
        return entries

    def _measure_clock(self) -> None:
        """Learns how far the clock of Redis, which stamps the entries, is ahead of ours."""
        seconds, microseconds = self._client.time()
        self._ahead_s = seconds + microseconds / 1e6 - time.time()

    def _claim(self) -> Entry | None:
        """Takes up an entry that is pending and nobody works on: our own at once, others' after the idle limit."""
        if self._orphaned:
            self._measure_clock()
            for group in self._groups:
                group.ensure()
                if entry := group.claim_own():
                    return entry
            self._orphaned = False
        now = time.monotonic()
        if now < self._next_reclaim:
            return None
        for group in self._groups:
            if entry := group.claim_abandoned(self._reading.reclaim_idle_s):
                return entry
        self._next_reclaim = now + min(self._reading.reclaim_idle_s / 2, 10.0)
        if now >= self._next_reap:
            self._next_reap = now + _REAP_EVERY_S
            for group in self._groups:
                group.reap()
        return None
