"""The figures as a picture: a grid of bar charts for each workload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from beam_serving.cli.commands.bench.figures import shown
from benchmarks.summary import TITLES

_COLUMNS = 4
_PANEL_INCHES = (4.2, 3.6)
_FONT = {"font.size": 12, "axes.titlesize": 13}


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Draw all workloads of a report below each other, each figure that one of their targets has."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    workloads, formats = report["workloads"], report.get("formats")
    panels = {name: list(_measured(about["targets"])) for name, about in workloads.items()}
    # Formats are drawn across, two rows high.
    rows = sum(-(-len(keys) // _COLUMNS) for keys in panels.values()) + (2 if formats else 0)
    with pyplot.rc_context(_FONT):
        figure = pyplot.figure(figsize=(_PANEL_INCHES[0] * _COLUMNS, _PANEL_INCHES[1] * rows), layout="constrained")
        grid = figure.add_gridspec(rows, _COLUMNS)
        about = report["machine"]
        figure.suptitle(f"{about['processor']}, {about['cores']} cores, {about['date'][:10]}")
        first = 0
        for name, keys in panels.items():
            for index, key in enumerate(keys):
                row, column = divmod(index, _COLUMNS)
                axis = figure.add_subplot(grid[first + row, column])
                axis.set_title(f"{name}: {TITLES[key]}")
                _draw_targets(axis, workloads[name]["targets"], key)
            first += -(-len(keys) // _COLUMNS)
        if formats:
            _draw_formats(figure.add_subplot(grid[-2, :]), figure.add_subplot(grid[-1, :]), formats["measured"])
        figure.savefig(path)
        pyplot.close(figure)


def _measured(targets: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of the figures that some target has."""
    return (key for key in TITLES if any(key in values for values in targets.values()))


def _draw_targets(axis: Any, targets: Mapping[str, Any], key: str) -> None:
    colours = {who: f"C{index}" for index, who in enumerate(targets)}
    own = {who: values[key]["median"] for who, values in targets.items() if key in values}
    bars = axis.bar(list(own), list(own.values()), color=[colours[who] for who in own])
    axis.bar_label(bars, labels=[shown(value) for value in own.values()])
    axis.margins(y=0.12)


def _draw_formats(speeds: Any, ratios: Any, measured: Mapping[str, Any]) -> None:
    """Draw records/s of the plain loop and the service above, both ratios below."""
    plain = [about["targets"][about["baseline"]]["records_per_s"]["median"] for about in measured.values()]
    served = [about["targets"]["service"]["records_per_s"] for about in measured.values()]
    _draw_pairs(
        speeds,
        [name.replace("_", "\n") for name in measured],
        {"own framework's loop": plain, "service": [about["median"] for about in served]},
    )
    gained = [about["gain"]["ratio"] if about["gain"] else 0.0 for about in measured.values()]
    both = {"served / own framework's loop": [about["ratio"] for about in served], "engine: auto / native": gained}
    _draw_pairs(ratios, [name.replace("_", "\n") for name in measured], both)
    ratios.axhline(1.0, color="black", linewidth=1)
    speeds.set_title("formats: records/s")
    ratios.set_title("formats: ratios")


def _draw_pairs(axis: Any, names: list[str], pairs: Mapping[str, list[float]]) -> None:
    width = 0.8 / len(pairs)
    for index, (title, values) in enumerate(pairs.items()):
        places = [place + (index - (len(pairs) - 1) / 2) * width for place in range(len(names))]
        bars = axis.bar(places, values, width, label=title)
        axis.bar_label(bars, labels=[shown(value) if value else "" for value in values])
    axis.set_xticks(range(len(names)), names)
    axis.margins(y=0.3)
    axis.legend(loc="upper right", ncols=len(pairs))
