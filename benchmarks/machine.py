"""On what it was measured: a figure without its machine says nothing."""

import datetime
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from beam_serving import __version__
from beam_serving.cli.commands.bench.machine import processor
from beam_serving.models.cpu import available_cores

_PACKAGES = (
    *("apache-beam", "openvino", "opencv-python-headless", "redis"),
    *("onnxruntime", "tensorflow", "keras", "torch"),
)


def machine_facts() -> dict[str, Any]:
    """Return processor, cores, load average of the last minute, date and versions."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": available_cores(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "beam_serving": __version__,
        **dict(_versions()),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        # The frameworks are extras.
        with suppress(PackageNotFoundError):
            yield name, version(name)
