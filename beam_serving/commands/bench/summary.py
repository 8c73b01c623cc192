"""Medians over the rounds, and ratios to the plain loop, as a table, as JSON and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from beam_serving.commands.bench.rounds import Figures
from beam_serving.errors import ConfigError

BASELINE = "loop"
_TITLES = {
    "records_per_s": "records/s",
    "latency_1_in_flight_p50_ms": "p50, 1 in flight, ms",
    "latency_1_in_flight_p99_ms": "p99, 1 in flight, ms",
    "latency_64_in_flight_p50_ms": "p50, 64 in flight, ms",
    "latency_64_in_flight_p99_ms": "p99, 64 in flight, ms",
    "cpu_ms_per_record": "CPU per record, ms",
    "redis_cpu_ms_per_record": "CPU of Redis per record, ms",
    "memory_mb": "memory of the processes, MB",
}


def summarise(figures: Mapping[str, Figures]) -> dict[str, dict[str, Any]]:
    """Gives, by contestant and figure, the median, the ratio and all rounds.

    The ratio is the median of the ratios within each round: contestant and plain loop were disturbed alike there.
    """
    summary: dict[str, dict[str, Any]] = {}
    for name, own in figures.items():
        summary[name] = {}
        for figure, values in own.items():
            about: dict[str, Any] = {"median": median(values), "rounds": values}
            if figure in figures[BASELINE]:
                pairs = zip(values, figures[BASELINE][figure], strict=True)
                about["ratio"] = median(value / base for value, base in pairs)
            summary[name][figure] = about
    return summary


def table(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """Gives one row per figure and one column per contestant: the median and, in brackets, the ratio."""
    rows = [["", *summary]]
    for figure, title in _TITLES.items():
        rows.append([title, *(_cell(own.get(figure)) for own in summary.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    return "\n".join(lines)


def _cell(about: Mapping[str, Any] | None) -> str:
    if about is None:
        return "-"
    value = about["median"]
    shown = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{shown} ({about['ratio']:.2f})" if "ratio" in about else f"{shown}       "


def require_matplotlib() -> None:
    """Raises ConfigError where matplotlib, which draws the plot, is not installed."""
    try:
        import matplotlib  # noqa: F401 - only whether it is there
    except ImportError as err:
        raise ConfigError("--plot needs matplotlib; pip install 'beam-serving[bench]' brings it") from err


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Draws a row of bar charts for each workload."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    workloads = report["workloads"]
    figure, rows = pyplot.subplots(
        len(workloads), len(_TITLES), figsize=(3 * len(_TITLES), 3.2 * len(workloads)), squeeze=False
    )
    for axes, (name, about) in zip(rows, workloads.items(), strict=True):
        for axis, (key, title) in zip(axes, _TITLES.items(), strict=True):
            own = {who: values[key]["median"] for who, values in about["contestants"].items() if key in values}
            bars = axis.bar(list(own), list(own.values()), color=[f"C{index}" for index in range(len(own))])
            axis.bar_label(bars, fmt="%.3g", fontsize=8)
            axis.set_title(f"{name}: {title}", fontsize=9)
            axis.tick_params(axis="x", labelrotation=30, labelsize=8)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
