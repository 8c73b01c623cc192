"""On what it was measured, and when: a figure without its machine says nothing."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

from beam_serving.models.cpu import available_cores


def processor() -> str:
    """Return the name of this machine's processor, or of its kind where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def here_and_now() -> str:
    """Return processor, cores and date in a line."""
    cores = available_cores()
    return f"{processor()}, {cores} core{'s' * (cores != 1)}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"
