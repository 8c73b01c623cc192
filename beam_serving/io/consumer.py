"""A member of a consumer group: reads new entries, takes over abandoned ones, and survives what Redis does meanwhile.

Delivery is at least once up to the sink, which writes a result only for whoever still owns the entry. An entry stays
pending under this consumer until `WriteToRedis` commits its result.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from redis.exceptions import RedisError, ResponseError

from beam_serving.errors import ConnectError
from beam_serving.io.group import Group
from beam_serving.io.memory import Balance, Room
from beam_serving.io.results import Bound
from beam_serving.protocol.limits import quote
from beam_serving.records import MOST_REQUEST_BYTES, Block, Entry, Origin
from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.logs import of_request
from beam_serving.telemetry.stats import State
from beam_serving.transport.channel import Argument, Channel, ReplyTooLargeError
from beam_serving.transport.connection import RedisAt, fatal
from beam_serving.transport.retry import backoff

_log = logging.getLogger(__name__)
_GROUP_IS_GONE = ("NOGROUP", "UNBLOCKED")
_REAP_EVERY_S = 300.0
_HELD_S = 0.2
_FRAME_BYTES = 1 << 16
"""What a reply has beside the names and values of a request: ids, lengths, names of streams."""


@dataclass(frozen=True)
class Reading:
    """What a consumer reads and how.

    Attributes:
        at: the server.
        streams: the names of the streams, at least one; each read reads all of them.
        group: the consumer group, which is made where it is missing, from the first entry of the stream on.
        count: the most entries of each stream in one read batch.
        poll_s: seconds that a read waits on the server for entries where there are none; a drain waits 0.2 at most.
        reclaim_idle_s: seconds after which an entry is taken over that another consumer has and does not keep; who
            works on an entry renews its lease three times in that.
        most_bytes: of requests that a worker holds at a time, and of one request; 128 MiB where nothing is said. Where
            a read would be more, its entries are read one at a time; the contents of an entry of more stay in Redis,
            and it is refused.
        name: of the service, under which it keeps what it measured of results; without one nothing is measured.
        most_result_bytes: of results that nobody has fetched, about: above it nothing is read. None for no bound.
    """

    at: RedisAt
    streams: tuple[str, ...]
    group: str
    count: int
    poll_s: float
    reclaim_idle_s: float
    most_bytes: int = MOST_REQUEST_BYTES
    name: str = ""
    most_result_bytes: int | None = None


class StreamConsumer:
    """One named consumer of a group on one or more streams. Used by one thread; `stop` may be set by another.

    A name must never be used by two living processes: whoever carries it owns what is pending under it.
    """

    def __init__(self, reading: Reading, name: str, stop: threading.Event) -> None:
        self.name = name.encode()
        self._reading = reading
        self._stop = stop
        self._client = reading.at.client(wait_s=reading.poll_s)
        self._groups = [
            Group(self._client, stream.encode(), reading.group, self.name, reading.most_bytes)
            for stream in reading.streams
        ]
        self._channel = Channel(self._client, reading.most_bytes + _FRAME_BYTES)
        self._ask_for(reading.count)
        self.reading_ahead = False
        self._orphaned = True
        self._ahead_s = 0.0
        self._next_reclaim = self._next_reap = 0.0
        context = service_context()
        self._stats, self._balance, self._results = context.stats, context.shared(Balance), context.shared(Bound)
        self._room = Room(reading.at, self._client, stop, self._balance)

    def _ask_for(self, count: int) -> None:
        """Make the commands that read so many entries of each stream."""
        reading = self._reading
        self._count = count
        read: list[Argument] = ["XREADGROUP", "GROUP", reading.group, self.name, "COUNT", count]
        new_entries = ["STREAMS", *reading.streams, *[">"] * len(reading.streams)]
        self._read_now = [*read, *new_entries]
        self._read_waiting = [*read, "BLOCK", max(1, int(reading.poll_s * 1000)), *new_entries]

    def close(self) -> None:
        """Leave the group and close the connection; what is pending stays so until someone takes it over."""
        self._channel.close()
        try:
            for group in self._groups:
                group.release()
        except RedisError as err:
            _log.debug("cannot leave the group, others will remove the name: %s", err)
        self._client.close()

    def read_batch(self, read_ahead: bool = False, wait: bool = True) -> list[Block]:
        """Wait up to `poll_s` for entries and return a block of at most `count` of each stream; empty when none came.

        Or when Redis has no memory for more results, or these are above their bound.

        Entries that were delivered before come one to a call, so that one which crashes its worker takes no
        neighbour along, and so do those of a read that is more than `most_bytes`. While Redis is away it waits and
        tries again, until it answers or `stop` is set.

        With `read_ahead` a full read asks for the next one before it returns: Redis answers while these are served.
        `reading_ahead` then says so, and the next read, which must come, gives that answer even after a stop. Without
        `wait` it gives what is there.

        Raises:
            ConnectError: Redis refuses us for good.
        """
        waits = backoff()
        while self.reading_ahead or not self._stop.is_set():
            if self._results.full and not self.reading_ahead:
                self._stop.wait(_HELD_S if wait else 0.0)
                return []
            try:
                if self._balance.short and not self.reading_ahead and not self._room.there():
                    return []
                blocks = self._read(self._read_waiting if wait else self._read_now)
                if self._balance.short:
                    self._balance.read(blocks)
                elif read_ahead and not self._results.full and sum(len(block.ids) for block in blocks) >= self._count:
                    self._ask_ahead()
            except ReplyTooLargeError as err:
                self._leave_unread(err)
            except RedisError as err:
                self._survive(err)
                self._stop.wait(next(waits))
            else:
                self._stats.state = State.SERVING
                return blocks
        return []

    def drained(self) -> bool:
        """Return whether nothing is queued and nothing is pending, under whichever consumer."""
        try:
            return all(group.backlog() == (0, 0) for group in self._groups)
        except RedisError as err:
            self._survive(err)
            return False

    def _leave_unread(self, err: ReplyTooLargeError) -> None:
        """Leave what Redis sends to be claimed one by one, as if it had never been delivered."""
        _log.info("entries of the next read batch are read one at a time: %s", err)
        self.reading_ahead = False
        self._orphaned = True
        self._ask_for(1)
        try:
            for group in self._groups:
                group.take_back()
        except RedisError as error:
            self._survive(error)

    def _survive(self, err: RedisError) -> None:
        if reason := fatal(err):
            raise ConnectError(f"Redis at {self._reading.at}: {reason}") from err
        # Whatever a lost reply delivered is pending under our own name, and nobody works on it.
        self.reading_ahead = False
        self._orphaned = True
        if isinstance(err, ResponseError) and any(word in str(err) for word in _GROUP_IS_GONE):
            _log.warning("a stream or its group is gone (%s); what was queued in it is lost; making it again", err)
            self._stats.counts["regrouped"] += 1
        elif self._stats.state != State.WAITING:
            _log.warning("Redis at %s does not serve us (%s); trying again until it does", self._reading.at, err)
            self._stats.state = State.WAITING

    def _ask_ahead(self) -> None:
        """Ask for the next entries, but where the next read batch has to look for abandoned ones first."""
        if time.monotonic() < self._next_reclaim and not self._stop.is_set():
            self._channel.send(*self._read_now)
            self.reading_ahead = True

    def _read(self, command: list[Argument]) -> list[Block]:
        if self.reading_ahead:
            reply = self._channel.receive()
            self.reading_ahead = False
        elif entry := self._claim():
            if entry.deliveries > 1:
                origin = Origin(entry.stream, entry.entry_id, b"", "")
                entry_id, stream = entry.entry_id.decode(), quote(entry.stream)
                reason = "took over %s of %s: delivered before and not served"
                _log.warning(reason, entry_id, stream, extra=of_request(origin))
                self._stats.counts["reclaimed"] += 1
            return [Block.of(entry)]
        else:
            reply = self._channel.call(*command)
        if self._count < self._reading.count and 4 * self._channel.reply_bytes < self._reading.most_bytes:
            self._ask_for(min(2 * self._count, self._reading.count))
        columns = ((stream, zip(*rows, strict=True)) for stream, rows in reply or () if rows)
        blocks = [Block(stream, self.name, ids, fields) for stream, (ids, fields) in columns]
        if blocks:
            queued_at_ms = min(int(block.ids[0].partition(b"-")[0]) for block in blocks)
            waited_s = time.time() + self._ahead_s - queued_at_ms / 1000
            self._stats.stages["wait"].record(max(waited_s, 0.0), sum(len(block.ids) for block in blocks))
        return blocks

    def _measure_clock(self) -> None:
        """Learn how far the clock of Redis, which stamps the entries, is ahead of ours."""
        seconds, microseconds = self._client.time()
        self._ahead_s = seconds + microseconds / 1e6 - time.time()

    def _claim(self) -> Entry | None:
        """Take up an entry that is pending and nobody works on: our own at once, others' after the idle limit."""
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
