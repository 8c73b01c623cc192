"""The figures of a measurement: rates, percentiles, failures; as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from beam_serving.cli.commands.bench.load import Measured
from beam_serving.cli.tables import aligned

PERCENTILES = (50, 90, 99)
_BUSY = 0.9


def figures(measured: Measured) -> dict[str, Any]:
    """Return the figures of one measurement as plain values; latencies are in milliseconds, null where there is none.

    `generator_cpu` is the share of one core that the bench itself used: near 1 it measures itself.
    """
    plan, good = measured.plan, len(measured.latencies_s)
    latencies_ms = np.array(measured.latencies_s) * 1000
    of_latency = {f"p{share}": float(np.percentile(latencies_ms, share)) if good else None for share in PERCENTILES}
    return {
        "in_flight": plan.in_flight if plan.rate is None else None,
        "rate": plan.rate,
        "requests": good + measured.failures.total(),
        "errors": measured.failures.total(),
        "first_error": next(iter(measured.failures), None),
        "seconds": measured.elapsed_s,
        "records_per_s": good / measured.elapsed_s,
        "latency_ms": {
            "mean": float(latencies_ms.mean()) if good else None,
            **of_latency,
            "max": float(latencies_ms.max()) if good else None,
        },
        "generator_cpu": measured.cpu_s / measured.elapsed_s,
    }


def table(report: Mapping[str, Any]) -> str:
    """Return a report as text for people: what was measured, a row for each measurement, what to know of it."""
    measurements: Sequence[Mapping[str, Any]] = report["measurements"]
    head = ["", "records/s", "p50, ms", "p90, ms", "p99, ms", "max, ms", "requests", "errors"]
    lines = [
        f"{report['name']}: {report['model']}, {_counted(report['workers'], 'worker')}, Redis at {report['redis']}",
        f"inputs: {report['inputs']}",
        "",
        aligned([head, *map(_row, measurements)]),
    ]
    if failed := next((one for one in measurements if one["errors"]), None):
        lines += ["", f"first error: {failed['first_error']}"]
    if any(one["generator_cpu"] > _BUSY for one in measurements):
        busy = max(one["generator_cpu"] for one in measurements)
        lines += ["", f"the bench itself used {busy:.0%} of a core: a faster service would not show"]
    return "\n".join(lines)


def shown(value: float | None) -> str:
    """Write a figure with three digits or, from a thousand on, as a whole number."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _row(one: Mapping[str, Any]) -> list[str]:
    title = f"{one['in_flight']} in flight" if one["rate"] is None else f"{one['rate']:g} each second"
    latencies = (shown(one["latency_ms"][key]) for key in (*(f"p{share}" for share in PERCENTILES), "max"))
    return [title, shown(one["records_per_s"]), *latencies, str(one["requests"]), str(one["errors"])]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
