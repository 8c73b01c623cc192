"""What a service says of itself in Redis: each worker's numbers, and whether the whole is ready.

    beam-serving:<name>:ready          JSON, there only while every worker serves; written by the supervisor
    beam-serving:<name>:worker:<id>    JSON of one worker's counters and histograms; written by the worker

Both expire some seconds after their writer is gone, so neither outlives it.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.exceptions import RedisError

from beam_serving.connection import RedisAt
from beam_serving.stats import STAGES, Histogram, WorkerStats

_log = logging.getLogger(__name__)
EVERY_S = 1.0
_LIFETIME_S = 15


def ready_key(name: str) -> str:
    """Names the key that exists while the service `name` is ready."""
    return f"beam-serving:{name}:ready"


def worker_key(name: str, worker: str) -> str:
    """Names the key that holds the numbers of one worker."""
    return f"beam-serving:{name}:worker:{worker}"


@dataclass
class Report:
    """The numbers of one worker, or the sum of several; `ancestry` are the pids of one and its parent, none in a sum."""

    states: list[str] = field(default_factory=list)
    engine: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    stages: dict[str, Histogram] = field(default_factory=lambda: {stage: Histogram() for stage in STAGES})
    memory_bytes: int = 0
    batch_size: int = 0
    ancestry: frozenset[int] = frozenset()

    def __add__(self, other: Report) -> Report:
        return Report(
            self.states + other.states,
            self.engine or other.engine,
            self.counts + other.counts,
            {stage: self.stages[stage] + other.stages[stage] for stage in STAGES},
            self.memory_bytes + other.memory_bytes,
            max(self.batch_size, other.batch_size),
        )


def encode_report(stats: WorkerStats) -> str:
    """Gives a worker's numbers as JSON; histograms as counts by bucket."""
    stages = {stage: dict(histogram.counts) for stage, histogram in stats.stages.items()}
    body = {
        "pid": os.getpid(),
        "parent_pid": os.getppid(),
        "state": stats.state,
        "engine": stats.engine,
        "batch_size": stats.batch_size,
        "counts": dict(stats.counts),
        "stages": stages,
        "memory_bytes": memory_bytes(),
    }
    return json.dumps(body)


def decode_report(text: bytes) -> Report:
    """Reads what `encode_report` wrote."""
    body: dict[str, Any] = json.loads(text)
    stages = {
        stage: Histogram({int(bucket): count for bucket, count in body["stages"].get(stage, {}).items()})
        for stage in STAGES
    }
    counts = Counter(body["counts"])
    ancestry = frozenset((body["pid"], body["parent_pid"]))
    return Report(
        [body["state"]], body["engine"], counts, stages, body["memory_bytes"], body["batch_size"], ancestry
    )


def memory_bytes() -> int:
    """Gives the resident memory of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def read_reports(client: redis.Redis, name: str, workers: Sequence[str]) -> list[Report]:
    """Reads the numbers of those workers that live."""
    texts: Any = client.mget([worker_key(name, worker) for worker in workers])
    return [decode_report(text) for text in texts if text]


class Reporter:
    """Publishes a worker's numbers once a second from a thread of its own, and looks whether its parent lives."""

    def __init__(
        self, at: RedisAt, name: str, worker: str, stats: WorkerStats, on_orphaned: Callable[[], None]
    ) -> None:
        self._client = at.client()
        self._key = worker_key(name, worker)
        self._stats = stats
        self._on_orphaned = on_orphaned
        self._parent = os.getppid()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Publishes the last numbers and ends the thread."""
        self._stop.set()
        self._thread.join(timeout=5)
        self._publish()
        self._client.close()

    def _run(self) -> None:
        state = ""
        wait_s = 0.05
        while not self._stop.wait(wait_s):
            # Until it serves, a worker is watched closely: "ready" should not wait for the next full second.
            wait_s = EVERY_S if self._stats.state == state == "serving" else 0.05
            if wait_s == EVERY_S or self._stats.state != state:
                self._publish()
            state = self._stats.state
            if os.getppid() != self._parent:
                _log.warning("the supervisor is gone: stopping")
                self._on_orphaned()
                return

    def _publish(self) -> None:
        try:
            self._client.set(self._key, encode_report(self._stats), ex=_LIFETIME_S)
        except RedisError as err:
            _log.debug("cannot publish the numbers of this worker: %s", err)


def announce(client: redis.Redis, name: str, about: dict[str, Any]) -> None:
    """Says, for the next seconds, that the service is ready and what it serves."""
    client.set(ready_key(name), json.dumps(about), ex=_LIFETIME_S)


def retract(client: redis.Redis, name: str) -> None:
    """Says at once that the service is not ready."""
    client.delete(ready_key(name))
