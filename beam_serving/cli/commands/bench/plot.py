"""The latencies of a run as a picture: for each measurement, what share of the requests was answered in what time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from beam_serving.cli.commands.bench.load import Measured
from beam_serving.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INCHES = (8.0, 5.0)


def require_matplotlib() -> None:
    """Raise ConfigError where matplotlib, which draws the plot, is not installed."""
    try:
        import matplotlib  # noqa: F401 - only whether it is there
    except ImportError as err:
        raise ConfigError("--plot needs matplotlib; pip install 'beam-serving[bench]' brings it") from err


def plot(title: str, measured_on: str, measurements: Sequence[Measured], path: Path) -> bool:
    """Draw the curves of all measurements into one picture; say whether there was one to draw.

    Raises:
        ConfigError: it cannot be written, or matplotlib does not know the kind of file.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    figure = drawn(title, measured_on, measurements)
    if figure is None:
        return False
    try:
        figure.savefig(path)
    except (OSError, ValueError) as err:
        raise ConfigError(f"--plot {path}: cannot be written ({err})") from err
    return True


def drawn(title: str, measured_on: str, measurements: Sequence[Measured]) -> Figure | None:
    """Return the figure, None where no request of any measurement had a good result.

    Args:
        title: what was measured.
        measured_on: where and when.
        measurements: one curve each, of those that have good results.
    """
    from matplotlib.figure import Figure

    good = [measured for measured in measurements if measured.latencies_s]
    if not good:
        return None
    figure = Figure(figsize=_INCHES, layout="constrained")
    axis = figure.subplots()
    for measured in good:
        latencies_ms = np.sort(measured.latencies_s) * 1000
        shares = np.arange(1, len(latencies_ms) + 1) / len(latencies_ms) * 100
        rate = len(latencies_ms) / measured.elapsed_s
        axis.plot(latencies_ms, shares, label=f"{measured.plan.title}: {rate:,.0f} records/s")
    axis.set(xlabel="latency, ms", ylabel="% of the requests", xscale="log")
    axis.set_title(f"{title}\n{measured_on}", fontsize="medium")
    axis.grid(visible=True, alpha=0.3)
    axis.legend()
    return figure
