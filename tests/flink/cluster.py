"""A real Flink cluster for tests: the program of runners/flink, on ports of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beam_serving.embedded import free_port
from beam_serving.flink.rest import FlinkRest
from tests.service import await_true

PROGRAM = Path(__file__).parents[2] / "runners" / "flink" / "cluster.py"
START_S = 90.0


class Cluster:
    """A running cluster and what it says."""

    def __init__(self, folder: Path, task_managers: int = 2, *arguments: str) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self.rest = FlinkRest(self.address)
        self._log = folder / "cluster.out"
        command = [sys.executable, str(PROGRAM), "--folder", str(folder), "--rest-port", self.address.split(":")[1]]
        command += ["--zookeeper-port", str(free_port()), "--task-managers", str(task_managers), *arguments]
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

    def forget_jobs(self) -> None:
        """Kills what knows the jobs, and removes what it wrote, before it is started again."""
        self.process.send_signal(signal.SIGSTOP)
        for part in ("jobmanager-1", "zookeeper-1"):
            self.kill(part)
        for kept in ("jobs", "zookeeper"):
            shutil.rmtree(self.folder / kept)
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends all of it."""
        self.process.terminate()
        self.process.wait(60)


@contextmanager
def cluster(folder: Path, task_managers: int = 2, *arguments: str) -> Iterator[Cluster]:
    """Runs a cluster and leaves nothing of it behind."""
    running = Cluster(folder, task_managers, *arguments)
    try:
        yield running
    finally:
        running.stop()
