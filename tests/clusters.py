"""A cluster for tests: a program of `runners/` in a process of its own, and what it says."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.service import await_true

START_S = 90.0


def program_of(runner: str) -> Path:
    """Gives the program that runs a cluster of a runner, `flink` or `spark`."""
    return Path(__file__).parents[1] / "runners" / runner / "cluster.py"


class RunningCluster:
    """The cluster of one runner, `flink` or `spark`, awaited until it takes jobs."""

    def __init__(self, runner: str, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self._log = folder / "cluster.out"
        command = [sys.executable, str(program_of(runner)), "--folder", str(folder), *arguments]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        await_true(lambda: "ready:" in self.said or self.process.poll() is not None, "a cluster", START_S)
        assert self.process.poll() is None, self.said

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def pid(self, part: str) -> int:
        """Gives the process of a part as it runs now, for example `taskmanager-1`."""
        return int(re.findall(rf"^{part}: process (\d+)", self.said, re.M)[-1])

    def kill(self, part: str) -> None:
        """Kills a part, which the cluster starts again."""
        os.kill(self.pid(part), signal.SIGKILL)

    def stop(self) -> None:
        """Ends all of it."""
        self.process.terminate()
        self.process.wait(60)
