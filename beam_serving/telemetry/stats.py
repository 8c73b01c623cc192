"""Live numbers of one worker process: counters and latency histograms, cheap enough for the hot path.

Beam shows its metrics only when a bundle ends, and ours last for minutes. So each worker counts by itself and
publishes them in Redis (see `beam_serving.telemetry.report`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

_FLOOR_S = 1e-6
_PER_DOUBLING = 8
"""Buckets per factor of two: a quantile is right within 9 %."""
_LAST_BUCKET = 40 * _PER_DOUBLING


class Histogram:
    """Counts of durations in logarithmic buckets from 1 microsecond to 12 days."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: Counter[int] = Counter(counts or {})

    def record(self, duration_s: float, times: int = 1) -> None:
        """Count a duration, `times` over when it stands for several records."""
        bucket = int(math.log2(duration_s / _FLOOR_S) * _PER_DOUBLING) if duration_s > _FLOOR_S else 0
        self.counts[bucket if bucket < _LAST_BUCKET else _LAST_BUCKET] += times

    def quantile(self, share: float) -> float:
        """Return the duration in seconds that `share` (0..1) of the records did not exceed; NaN without records."""
        wanted = share * sum(self.counts.values())
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return float(_FLOOR_S * 2 ** ((bucket + 0.5) / _PER_DOUBLING))
        return math.nan

    def since(self, earlier: Histogram) -> Histogram:
        """Return what was recorded after `earlier`, an older copy of this histogram."""
        return Histogram(self.counts - earlier.counts)

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.counts + other.counts)


class State(StrEnum):
    """What a worker process does."""

    STARTING = "starting"
    SERVING = "serving"
    WAITING = "waiting for Redis"
    STOPPED = "stopped"


STAGES = ("wait", "decode", "infer", "top_n", "write")
"""The stages that are timed: `wait` is from XADD to the delivery, the others are the worker's own steps."""


class WorkerStats:
    """What one worker process did since it started.

    `engine` is what runs the model, in batches of up to `batch_size`. `inputs` has the name, shape and dtype of each.
    `counts` has `served`, `errors`, `refused`, `failed`, `dead`, `reclaimed`, `fenced`, `regrouped`, `batches`,
    `alone`, `lease_failures`, and `checkpoints` of the source. `alone` are records that were inferred on all cores.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.stages = {stage: Histogram() for stage in STAGES}
        self.state = State.STARTING
        self.engine = ""
        self.batch_size = 0
        self.inputs: list[dict[str, object]] = []
