"""The load generator: fills a stream at one stroke, sees it drained, and keeps a closed loop going.

While a backlog drains it asks Redis two hundred times a second how far it is and does nothing else. It fills a stream
by one script inside Redis: nobody sees an entry before the last one is there, and no client's CPU time is spent on it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from beam_serving.errors import BeamServingError
from benchmarks.wire import Part, Wire, packed

_TIMEOUT_S = 60.0
_POLL_S = 0.005

_FILL = """
-- KEYS: stream.  ARGV: records, prefix of the uris, number of field parts per request, then the parts of each request.
local parts, last = tonumber(ARGV[3]), nil
local requests = (#ARGV - 3) / parts
for i = 0, ARGV[1] - 1 do
  local first = 4 + (i % requests) * parts
  local id = string.format('%032x', i)
  last = redis.call('XADD', KEYS[1], '*', 'uri', ARGV[2] .. i, 'id', id, unpack(ARGV, first, first + parts - 1))
end
return last
"""

_CLEAR = """
-- KEYS: stream.  ARGV: records, prefix of the result keys.  Empties the stream and gives how many results were good.
local good = 0
for i = 0, ARGV[1] - 1 do
  if redis.call('HEXISTS', ARGV[2] .. i, 'value') == 1 then good = good + 1 end
  redis.call('UNLINK', ARGV[2] .. i)
end
redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
return good
"""


@dataclass(frozen=True)
class Destination:
    """Where requests go, and what they are. `announces` says that each result is announced on a channel of its name."""

    port: int
    stream: str
    group: str
    requests: Sequence[Mapping[bytes, bytes]]
    announces: bool

    def key(self, uri: str) -> bytes:
        """Name the hash in which the result of a request is found."""
        return f"cluster-serving_{self.stream}:{uri}".encode()


class Load:
    """Loads one destination. `redis_cpu_s` is what its Redis has used so far."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._wire = Wire(destination.port, _TIMEOUT_S)
        self._events = Wire(destination.port, _TIMEOUT_S)
        self._subscribed = 0

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()
        self._events.close()

    def make_group(self) -> None:
        """Make the stream and its group."""
        self._wire.ask("XGROUP", "CREATE", self._destination.stream, self._destination.group, "0", "MKSTREAM")

    def redis_cpu_s(self) -> float:
        """Return the CPU seconds that the server has used since it started."""
        lines = self._wire.ask("INFO", "cpu").decode().splitlines()
        values = dict(line.split(":", 1) for line in lines if ":" in line)
        return float(values["used_cpu_sys"]) + float(values["used_cpu_user"])

    def fill(self, records: int) -> bytes:
        """Queue records at one stroke and return the id of the last."""
        parts = [[part for pair in fields.items() for part in pair] for fields in self._destination.requests]
        flat: list[Part] = [part for one in parts for part in one]
        last: bytes = self._wire.ask("EVAL", _FILL, 1, self._destination.stream, records, "r", len(parts[0]), *flat)
        return last

    def await_begun(self) -> None:
        """Wait until the first entry of what was filled is delivered.

        Raises:
            BeamServingError: it takes longer than a minute.
        """
        give_up_at = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < give_up_at:
            # Entries leave the stream when they are served, those that are not are pending.
            (row,) = self._wire.ask("XINFO", "GROUPS", self._destination.stream)
            about = dict(zip(row[::2], row[1::2], strict=True))
            if about[b"pending"] or not self._wire.ask("XLEN", self._destination.stream):
                return
            time.sleep(_POLL_S)
        raise BeamServingError(f"stream {self._destination.stream!r} was not begun within {_TIMEOUT_S:g} s")

    def await_drained(self, last: bytes) -> None:
        """Wait until every entry up to `last` was delivered and acknowledged.

        Raises:
            BeamServingError: it takes longer than a minute.
        """
        question = packed("XINFO", "GROUPS", self._destination.stream)
        give_up_at = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < give_up_at:
            self._wire.send([question])
            (row,) = self._wire.read()
            about = dict(zip(row[::2], row[1::2], strict=True))
            if about[b"last-delivered-id"] == last and about[b"pending"] == 0:
                return
            time.sleep(_POLL_S)
        raise BeamServingError(f"stream {self._destination.stream!r} was not drained within {_TIMEOUT_S:g} s")

    def clear(self, records: int) -> None:
        """Remove what a backlog left behind.

        Raises:
            BeamServingError: there was not one good result for each of the records.
        """
        good = self._wire.ask("EVAL", _CLEAR, 1, self._destination.stream, records, self._destination.key("r"))
        if good != records:
            raise BeamServingError(f"stream {self._destination.stream!r}: {records} requests have {good} good results")

    def closed_loop(self, in_flight: int, seconds: float) -> list[float]:
        """Keep `in_flight` requests going; return the seconds from each request's XADD to its result's HGETALL."""
        slots = [f"slot-{index}" for index in range(in_flight)]
        keys = [self._destination.key(slot) for slot in slots]
        slot_of = {key: index for index, key in enumerate(keys)}
        reads = [packed("HGETALL", key) for key in keys]
        adds = [self._add(slot, fields) for slot, fields in zip(slots, cycle(self._destination.requests), strict=False)]
        self._subscribe(keys)
        sent_at = [0.0] * in_flight
        latencies_s: list[float] = []
        ends_at = time.perf_counter() + seconds
        ready = list(range(in_flight))
        waiting = 0
        while waiting or time.perf_counter() < ends_at:
            if time.perf_counter() < ends_at:
                for slot in ready:
                    sent_at[slot] = time.perf_counter()
                    self._wire.send([adds[slot]])
                for _ in ready:
                    self._wire.read()
                waiting += len(ready)
            ready = [slot_of[key] for key in map(_key_of, self._events.read_all()) if key in slot_of]
            self._wire.send([reads[slot] for slot in ready])
            for slot in ready:
                self._wire.read()
                latencies_s.append(time.perf_counter() - sent_at[slot])
            waiting -= len(ready)
        self._unsubscribe(keys)
        return latencies_s

    def _add(self, uri: str, fields: Mapping[bytes, bytes]) -> bytes:
        parts = [part for pair in fields.items() for part in pair]
        return packed("XADD", self._destination.stream, "*", "uri", uri, "id", uri, *parts)

    def _subscribe(self, keys: Sequence[bytes]) -> None:
        """Hear of results: on their channels, or from Redis itself where the consumer announces nothing."""
        if self._destination.announces:
            self._events.send([packed("SUBSCRIBE", *keys)])
        else:
            self._wire.ask("CONFIG", "SET", "notify-keyspace-events", "Eh")
            self._events.send([packed("SUBSCRIBE", "__keyevent@0__:hset")])
        for _ in keys if self._destination.announces else keys[:1]:
            self._events.read()

    def _unsubscribe(self, keys: Sequence[bytes]) -> None:
        self._events.send([packed("UNSUBSCRIBE")])
        for _ in keys if self._destination.announces else keys[:1]:
            self._events.read()
        self._wire.ask("CONFIG", "SET", "notify-keyspace-events", "")
        self._wire.ask("UNLINK", *keys)
        if not self._destination.announces:
            self._wire.ask("XTRIM", self._destination.stream, "MAXLEN", 0)


def _key_of(message: Any) -> bytes:
    """Return the result that a message tells of: its channel's name or, from Redis itself, its text."""
    _, channel, text = message
    key: bytes = text if channel.startswith(b"__key") else channel
    return key
