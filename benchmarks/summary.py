"""Medians over the rounds, and ratios to the plain loop, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from beam_serving.cli.commands.bench.figures import shown
from beam_serving.cli.tables import aligned
from benchmarks.rounds import Figures

BASELINE = "loop"
TITLES = {
    "records_per_s": "records/s",
    "start_s": "of it until the first record, s",
    "records_per_s_after_start": "records/s after that",
    "latency_1_in_flight_p50_ms": "p50, 1 in flight, ms",
    "latency_1_in_flight_p99_ms": "p99, 1 in flight, ms",
    "latency_64_in_flight_p50_ms": "p50, 64 in flight, ms",
    "latency_64_in_flight_p99_ms": "p99, 64 in flight, ms",
    "cpu_ms_per_record": "CPU per record, ms",
    "redis_cpu_ms_per_record": "CPU of Redis per record, ms",
    "memory_mb": "memory of the processes, MB",
}


def summarise(figures: Mapping[str, Figures], baseline: str = BASELINE) -> dict[str, dict[str, Any]]:
    """Return, by target and figure, the median, the ratio to `baseline` and all rounds.

    The ratio is the median of the ratios within each round: target and baseline were disturbed alike there.
    """
    summary: dict[str, dict[str, Any]] = {}
    for name, own in figures.items():
        summary[name] = {}
        for figure, values in own.items():
            about: dict[str, Any] = {"median": median(values), "rounds": values}
            if figure in figures[baseline]:
                pairs = zip(values, figures[baseline][figure], strict=True)
                about["ratio"] = median(value / base for value, base in pairs)
            summary[name][figure] = about
    return summary


def table(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one row per figure and one column per target: the median and, in brackets, the ratio."""
    rows = [["", *summary]]
    for figure, title in TITLES.items():
        rows.append([title, *(_cell(own.get(figure)) for own in summary.values())])
    return aligned(rows)


def _cell(about: Mapping[str, Any] | None) -> str:
    if about is None:
        return "-"
    figure = shown(about["median"])
    return f"{figure} ({about['ratio']:.2f})" if "ratio" in about else f"{figure}       "
