"""How much memory results take that nobody has fetched, and what is done about it.

`data: max_result_bytes` bounds them: above it readers leave requests in the queue until results were deleted or have
expired. There is a warning from 80 % of it on, and from 80 % of the server's own limit on. Clients delete results in
Redis, and so does time: nothing that a service counts would tell. So results are measured there, by a sample of all
keys and of the sizes of those that are results, which takes some hundredths of a second, whatever there is. One reader
of a service measures, every second to every ten, in a thread of its own; the others look up what it found. Nothing is
measured while nothing is served. What has grown lately is expected to go on so, and the bound is passed by little.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoPermissionError, RedisError

from beam_serving.io.scripts import TAKE_LOCK
from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.periodic import PeriodicThread
from beam_serving.transport.connection import RedisAt
from beam_serving.transport.keys import IMAGE_STREAM
from beam_serving.transport.lua import PUT, evaluate
from beam_serving.transport.routes import Cluster

_log = logging.getLogger(__name__)
_EARLY = 0.8
_KEYS, _KEYS_AT_ONCE = 20_000, 1000
_SIZES = 500
_LOOK_EVERY_S = 1.0
_SOONEST_S, _LATEST_S = 1.0, 10.0
_AHEAD_S = 2.0
"""What is served until the next look at what was measured."""
_ENOUGH = 0.95
"""Of the bound: reading goes on below."""
_LIFETIME_S = 60.0


class Bound:
    """Whether the readers of this process shall leave requests in the queue, since results are too many."""

    def __init__(self) -> None:
        self.full = False


class ResultsState(NamedTuple):
    """What was measured last.

    Attributes:
        result_bytes: that results take, about; None where they have no bound.
        used_bytes: that count towards the limit of the server.
        memory_bytes: its limit; 0 for none.
        held: whether reading pauses.
        next_s: seconds until it is measured again.
    """

    result_bytes: int | None
    used_bytes: int
    memory_bytes: int
    held: bool = False
    next_s: float = _LATEST_S


def results_key(name: str) -> str:
    """Name the key that holds what was measured."""
    return f"beam-serving:{name}:results"


def measure_results(client: redis.Redis, streams: Sequence[str], is_cluster: bool = False) -> int:
    """Return about how many bytes the results of these streams take in Redis, those at `result:` among them.

    Args:
        client: of the server.
        streams: that the requests came by.
        is_cluster: whether it is a node of a cluster, which may give keys slot by slot: then all are looked at.

    Raises:
        NoPermissionError: the user lacks one of +scan, +dbsize and +memory|usage.
        RedisError: the server does not answer.
    """
    prefixes = tuple(f"cluster-serving_{stream}:".encode() for stream in streams)
    if IMAGE_STREAM.decode() in streams:
        prefixes += (b"result:",)
    seen, found, cursor = 0, list[bytes](), -1
    while cursor != 0 and (is_cluster or seen < _KEYS):
        page: Any = client.scan(max(cursor, 0), count=_KEYS_AT_ONCE)
        cursor, keys = page
        seen += len(keys)
        found += [key for key in keys if key.startswith(prefixes)]
    if not found:
        return 0
    # The server gives its keys in the order of their hashes, so the first ones are a sample of all.
    of_all = 1.0 if cursor == 0 else max(int(client.dbsize()), seen) / seen
    pipeline = client.pipeline(transaction=False)
    weighed = found if len(found) <= _SIZES else random.sample(found, _SIZES)
    for key in weighed:
        pipeline.memory_usage(key)
    sizes = [size or 0 for size in pipeline.execute()]  # one that went meanwhile has none
    return round(sum(sizes) / len(sizes) * len(found) * of_all)


def memory_of(client: redis.Redis) -> tuple[int, int]:
    """Return the bytes that count towards the limit of the server, and the limit, 0 for none."""
    about: Any = client.info("memory")
    return about["used_memory"] - about.get("mem_not_counted_for_evict", 0), about.get("maxmemory", 0)


def check_rights(client: redis.Redis, name: str) -> None:
    """Ask what measuring asks, in little.

    Raises:
        NoPermissionError: the user may not.
        RedisError: the server does not answer.
    """
    client.scan(0, count=1)
    client.dbsize()
    client.memory_usage(results_key(name))


def read_state(client: redis.Redis, name: str) -> tuple[ResultsState, float] | None:
    """Return what was measured last and how many seconds ago; None where that is too long ago."""
    pipeline = client.pipeline(transaction=False)
    pipeline.get(results_key(name))
    pipeline.pttl(results_key(name))
    text, lifetime_ms = pipeline.execute()
    try:
        return ResultsState(*json.loads(text)), _LIFETIME_S - lifetime_ms / 1000
    except (TypeError, ValueError):
        return None


class ResultsWatch:
    """Measures results now and then, from a thread of its own, and says so to the readers of this process.

    Args:
        at: the server.
        name: of the service; nothing is watched where it has none.
        streams: that it serves.
        most_bytes: its `data: max_result_bytes`; None where only the server's limit counts.
    """

    def __init__(self, at: RedisAt, name: str, streams: Sequence[str], most_bytes: int | None) -> None:
        self._at = at
        self._name = name
        self._streams = streams
        self._most_bytes = most_bytes
        self._is_cluster = isinstance(at.route, Cluster)
        context = service_context()
        self._bound, self._counts = context.shared(Bound), context.stats.counts
        self._served = -1
        self._client = at.client()
        self._thread = PeriodicThread("results", _LOOK_EVERY_S, self._look) if name else None

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.close()
        self._bound.full = False
        self._client.close()

    def _look(self) -> float | None:
        try:
            self._bound.full = self._held()
        except NoPermissionError as err:
            self._bound.full = False
            _log.debug("cannot measure what results take: %s", err)
            return _LATEST_S
        except RedisError as err:
            _log.debug("cannot look what results take: %s", err)
        return None

    def _held(self) -> bool:
        known = read_state(self._client, self._name)
        before, age_s = known or (None, _LATEST_S)
        held = before is not None and before.held
        is_due = before is None or age_s >= before.next_s
        is_quiet = self._counts["served"] == self._served and not held
        if not is_due or is_quiet or not self._may_measure():
            return held
        self._served = self._counts["served"]
        state = self._measured(before, age_s)
        evaluate(self._client, PUT, 1, results_key(self._name), json.dumps(state), int(1000 * _LIFETIME_S))
        self._report(before, state)
        return state.held

    def _may_measure(self) -> bool:
        # Expires by itself: who measures next does so after a second at the soonest.
        lock = f"{results_key(self._name)}:lock"
        return bool(evaluate(self._client, TAKE_LOCK, 1, lock, "measuring", int(1000 * _SOONEST_S * 0.9)))

    def _measured(self, before: ResultsState | None, age_s: float) -> ResultsState:
        used, limit = memory_of(self._client)
        most = self._most_bytes
        if most is None:
            return ResultsState(None, used, limit)
        now = measure_results(self._client, self._streams, self._is_cluster)
        held = before is not None and before.held
        last = before.result_bytes if before else None
        growth = 0.0 if last is None else max(0.0, (now - last) / max(age_s, _SOONEST_S))
        holds = now + growth * _AHEAD_S >= most or (held and now >= _ENOUGH * most)
        # A quarter of the way to the warning, at the present pace.
        next_s = (_EARLY * most - now) / (4 * growth) if growth and not holds else _LATEST_S
        if holds or now >= _EARLY * most:
            next_s = _SOONEST_S
        return ResultsState(now, used, limit, holds, min(max(next_s, _SOONEST_S), _LATEST_S))

    def _report(self, before: ResultsState | None, state: ResultsState) -> None:
        """Log what has changed since it was measured last, whoever did that."""
        was_early = before is not None and _is_early(before, self._most_bytes)
        if state.held and not (before and before.held):
            _log.warning(
                "%s: reading pauses, requests stay queued. It goes on when results were deleted by who reads them, or "
                "expire (data: result_ttl_s)",
                self._shown(state),
            )
        elif before is not None and before.held and not state.held:
            _log.info("%s: reading goes on", self._shown(state))
        elif _is_early(state, self._most_bytes) and not was_early:
            _log.warning(
                "%s, at which reading pauses: have results deleted by who reads them, or shorten data: result_ttl_s",
                self._shown(state),
            )
        if _is_nearly_full(state) and not (before and _is_nearly_full(before)):
            _log.warning(
                "Redis at %s uses %.1f of maxmemory %.1f MB: have results deleted by who reads them, shorten "
                "data: result_ttl_s, or raise it; at its limit clients cannot queue",
                self._at,
                state.used_bytes / 1e6,
                state.memory_bytes / 1e6,
            )

    def _shown(self, state: ResultsState) -> str:
        most = self._most_bytes or 0
        return f"results take about {(state.result_bytes or 0) / 1e6:.1f} of data: max_result_bytes {most / 1e6:.1f} MB"


def _is_early(state: ResultsState, most_bytes: int | None) -> bool:
    return most_bytes is not None and (state.result_bytes or 0) >= _EARLY * most_bytes


def _is_nearly_full(state: ResultsState) -> bool:
    return bool(state.memory_bytes) and state.used_bytes >= _EARLY * state.memory_bytes
