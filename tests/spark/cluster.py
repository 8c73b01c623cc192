"""A real Spark cluster for tests: the program of runners/spark, on ports of its own, and what its pages say."""

import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beam_serving.launch.embedded_redis import free_port
from tests.clusters import RunningCluster


class Cluster(RunningCluster):
    """A running cluster and what it says."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        port, self._web = free_port(), free_port()
        self.url = f"spark://127.0.0.1:{port}"
        super().__init__("spark", folder, "--port", str(port), "--web-port", str(self._web), *arguments)

    def applications(self) -> list[dict[str, Any]]:
        """Gives what the master's page says of the applications that run."""
        about: list[dict[str, Any]] = _page(f"http://127.0.0.1:{self._web}")["activeapps"]
        return about

    def executors(self) -> list[dict[str, Any]]:
        """Gives what the pages of the workers say of the executors that run."""
        workers = _page(f"http://127.0.0.1:{self._web}")["workers"]
        return [executor for worker in workers for executor in _page(worker["webuiaddress"])["executors"]]

    def executor_pids(self) -> list[int]:
        """Gives the processes of the executors."""
        workers = re.findall(r"^worker-\d+: process (\d+)", self.said, re.M)
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = stat.read_text(encoding="ascii").rsplit(")", 1)[1].split()[1]
                called = (stat.parent / "cmdline").read_bytes()
            except OSError:
                continue
            if parent in workers and b"CoarseGrainedExecutorBackend" in called:
                found.append(int(stat.parent.name))
        return found


def _page(address: str) -> Any:
    with urllib.request.urlopen(f"{address}/json/", timeout=10) as reply:  # noqa: S310 - a page of Spark's
        return json.load(reply)


@contextmanager
def cluster(folder: Path, *arguments: str) -> Iterator[Cluster]:
    """Runs a cluster and leaves nothing of it behind."""
    folder.mkdir(exist_ok=True)
    running = Cluster(folder, *arguments)
    try:
        yield running
    finally:
        running.stop()
