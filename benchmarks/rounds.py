"""Who is measured when: A B C A B C ..., so that whatever else the machine does disturbs all alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.targets import Burst, Target

Figures = dict[str, list[float]]
"""The figures of one target by name, one value per round; a name ends in its unit."""


@dataclass(frozen=True)
class Plan:
    """`rounds` rounds in which every target works about `seconds` for each kind of figure.

    Latencies are measured with each of these numbers of records `in_flight`. Rounds of warm-up do not count.
    """

    rounds: int
    seconds: float
    in_flight: tuple[int, ...] = (1, 64)
    warm_up_rounds: int = 2

    def steps(self, targets: int) -> int:
        """Return the number of measurements, warm-up included."""
        return (self.rounds + self.warm_up_rounds) * targets * (1 + len(self.in_flight))


def measure(targets: Sequence[Target], plan: Plan, on_step: Callable[[str], object]) -> dict[str, Figures]:
    """Measure all targets by turns and return their figures by name; `on_step` hears what comes next."""
    figures: dict[str, Figures] = {target.name: defaultdict(list) for target in targets}
    for number in range(-plan.warm_up_rounds, plan.rounds):
        measured = _round(targets, plan, on_step)
        if number < 0:
            continue
        for name, own in measured.items():
            for figure, value in own.items():
                figures[name][figure].append(value)
    return {name: dict(own) for name, own in figures.items()}


def _round(targets: Sequence[Target], plan: Plan, on_step: Callable[[str], object]) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    for target in targets:
        on_step(f"{target.name}, full load")
        figures[target.name] = _of_burst(target.burst(plan.seconds))
    for in_flight in plan.in_flight:
        for target in targets:
            on_step(f"{target.name}, {in_flight} in flight")
            latencies_ms = np.array(target.closed_loop(in_flight, plan.seconds)) * 1000
            for share in (50, 99):
                figure = f"latency_{in_flight}_in_flight_p{share}_ms"
                figures[target.name][figure] = float(np.percentile(latencies_ms, share))
    return figures


def _of_burst(burst: Burst) -> dict[str, float]:
    figures = {
        "records_per_s": burst.records / burst.elapsed_s,
        "cpu_ms_per_record": burst.cpu_s / burst.records * 1000,
        "memory_mb": burst.memory_bytes / 1e6,
    }
    if burst.start_s:
        figures["start_s"] = burst.start_s
        figures["records_per_s_after_start"] = burst.records / (burst.elapsed_s - burst.start_s)
    if burst.redis_cpu_s:
        figures["redis_cpu_ms_per_record"] = burst.redis_cpu_s / burst.records * 1000
    return figures
