"""The latencies of a run as a picture: for each measurement, what share of the requests was answered in what time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from beam_serving.cli.commands.bench.load import Measured
from beam_serving.errors import ConfigError

_INCHES = (8.0, 5.0)


def require_matplotlib() -> None:
    """Raise ConfigError where matplotlib, which draws the plot, is not installed."""
    try:
        import matplotlib  # noqa: F401 - only whether it is there
    except ImportError as err:
        raise ConfigError("--plot needs matplotlib; pip install 'beam-serving[bench]' brings it") from err


def plot(title: str, measurements: Sequence[Measured], path: Path) -> None:
    """Draw the curves of all measurements into one picture.

    Raises:
        ConfigError: it cannot be written, or matplotlib does not know the kind of file.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=_INCHES, layout="constrained")
    for measured in measurements:
        latencies_ms = np.sort(measured.latencies_s) * 1000
        shares = np.arange(1, len(latencies_ms) + 1) / max(1, len(latencies_ms)) * 100
        rate = len(latencies_ms) / measured.elapsed_s
        axis.plot(latencies_ms, shares, label=f"{measured.plan.title}: {rate:,.0f} records/s")
    axis.set(title=title, xlabel="latency, ms", ylabel="% of the requests", xscale="log")
    axis.grid(visible=True, alpha=0.3)
    axis.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as err:
        raise ConfigError(f"--plot {path}: cannot be written ({err})") from err
    finally:
        pyplot.close(figure)
