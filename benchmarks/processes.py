"""Programs of the comparison, and what processes cost, as Linux tells: CPU time and resident memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from beam_serving.errors import ConfigError

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def program_environment() -> dict[str, str]:
    """Return the environment in which `python_module` finds the modules of this package."""
    root = str(Path(__file__).parents[1])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, path] if path else [root])}


def require_proc() -> None:
    """Raise ConfigError where the system has no /proc to measure with."""
    if not Path("/proc/self/stat").exists():
        raise ConfigError("the benchmark reads CPU time and memory from /proc, which this system does not have")


def cpu_s(pids: Sequence[int]) -> float:
    """Return the CPU seconds, user and system, of all these processes so far, in steps of 10 ms each."""
    # Fields 14 and 15 of proc(5), counted after the command's name, which may hold blanks.
    fields = [Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / _TICKS_PER_S


def tree_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and of all that it started so far, whether they live or have ended."""
    # Fields 14 to 17: those of a process, and those of its children that have ended and were waited for.
    found = []
    for one in (pid, *descendants(pid)):
        try:
            found.append(Path(f"/proc/{one}/stat").read_text(encoding="utf-8").rpartition(")")[2].split())
        except OSError:
            continue  # it ended meanwhile, and its parent has its times now
    return sum(int(field) for fields in found for field in fields[11:15]) / _TICKS_PER_S


def memory_bytes(pids: Sequence[int]) -> int:
    """Return the sum of the resident memory of these processes; what they share is counted for each."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) for pid in pids) * _PAGE_BYTES


def descendants(pid: int) -> list[int]:
    """Return the living processes that a process started, and those that these started."""
    found = [pid]
    for parent in found:
        try:
            tasks = list(Path(f"/proc/{parent}/task").glob("*/children"))
            found += [int(child) for task in tasks for child in task.read_text(encoding="ascii").split()]
        except OSError:
            continue  # it ended meanwhile
    return found[1:]
