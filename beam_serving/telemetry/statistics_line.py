"""The periodic line of numbers that an operator reads at night."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import redis
from redis.exceptions import RedisError

from beam_serving.telemetry.report import Report
from beam_serving.telemetry.stats import STAGES, State

_log = logging.getLogger(__name__)


class StatisticsLine:
    """Turns the workers' running totals into rates since the last line."""

    def __init__(self, streams: Sequence[str], group: str) -> None:
        self._streams = streams
        self._group = group
        self._last = Report()
        self._seen: dict[tuple[str, int, str], Report] = {}
        self._ended = Report()
        self._last_at = time.monotonic()
        self._last_queue = 0

    def line(self, client: redis.Redis, reports: Sequence[Report]) -> str | None:
        """Return the numbers since the last call; None while there is nothing to tell."""
        now = time.monotonic()
        self._seen.update(_by_process(reports))
        total = self._totals()
        counts = total.counts - self._last.counts
        queue, pending = self._backlog(client)
        stages = {stage: total.stages[stage].since(self._last.stages[stage]) for stage in STAGES}
        elapsed_s = now - self._last_at
        memory_bytes = sum(report.memory_bytes for report in reports)
        quiet = not counts and not queue and not self._last_queue
        self._last, self._last_at, self._last_queue = total, now, queue
        if quiet:
            return None
        times = ", ".join(
            f"{stage} {1000 * histogram.quantile(0.5):.2f}/{1000 * histogram.quantile(0.99):.2f}"
            for stage, histogram in stages.items()
            if histogram.counts
        )
        events = "".join(
            f", {name} {counts[name]}"
            for name in ("errors", "dead", "reclaimed", "fenced", "regrouped", "lease_failures")
            if counts[name]
        )
        return (
            f"{counts['served'] / elapsed_s:.1f} records/s, queue {queue}, pending {pending}{events}"
            f", memory {memory_bytes / 1e6:.0f} MB; ms p50/p99: {times or 'none'}"
        )

    def log(self, client: redis.Redis, reports: Sequence[Report]) -> None:
        """Log the numbers since the last call, where there is anything to tell."""
        try:
            line = self.line(client, reports)
        except RedisError as err:
            _log.warning("no statistics: Redis does not answer (%s)", err)
            return
        if line:
            _log.info("%s", line)

    def note(self, reports: Sequence[Report]) -> None:
        """Keep the numbers of workers beyond their lives: of one that ended by itself all, else the last it told.

        `reports` are all that are there, fresh or not.
        """
        now = _by_process(reports)
        for key in [key for key, report in self._seen.items() if report.states == [State.STOPPED] and key not in now]:
            ended = self._ended + self._seen.pop(key)
            self._ended = Report(counts=ended.counts, stages=ended.stages)
        self._seen.update(now)

    def total(self, reports: Sequence[Report]) -> str:
        """Return the totals since the service started."""
        self.note(reports)
        counts = self._totals().counts
        return f"{counts['served']} records served, {counts['errors']} of them with an error"

    def _totals(self) -> Report:
        return reduce(add, self._seen.values(), self._ended)

    def _backlog(self, client: redis.Redis) -> tuple[int, int]:
        queue = pending = 0
        for stream in self._streams:
            length = int(client.xlen(stream))
            queue += length
            if length:
                summary: Any = client.xpending(stream, self._group)
                pending += int(summary["pending"])
        return queue, pending


def _by_process(reports: Sequence[Report]) -> dict[tuple[str, int, str], Report]:
    """Tell apart the processes that reported under one worker's name, one after the other."""
    return {(report.host, report.pid, report.worker): report for report in reports}
