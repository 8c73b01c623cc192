"""A real Flink cluster for tests: the program of runners/flink, on ports of its own."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beam_serving.launch.embedded_redis import free_port
from beam_serving.launch.flink.rest import FlinkRest
from tests.clusters import RunningCluster


class Cluster(RunningCluster):
    """A running cluster and what it says."""

    def __init__(self, folder: Path, task_managers: int = 2, *arguments: str) -> None:
        port = str(free_port())
        self.address = f"127.0.0.1:{port}"
        self.rest = FlinkRest(self.address)
        own = ("--rest-port", port, "--zookeeper-port", str(free_port()), "--task-managers", str(task_managers))
        super().__init__("flink", folder, *own, *arguments)

    @contextmanager
    def nothing_is_started_again(self) -> Iterator[None]:
        """Keeps what dies from being started again."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def lose_all(self) -> None:
        """Kills every part, and removes what they know of jobs before they are started again."""
        with self.nothing_is_started_again():
            for part in ("jobmanager-1", "zookeeper-1", "taskmanager-1", "taskmanager-2"):
                self.kill(part)
            for kept in ("jobs", "zookeeper"):
                shutil.rmtree(self.folder / kept)


@contextmanager
def cluster(folder: Path, task_managers: int = 2, *arguments: str) -> Iterator[Cluster]:
    """Runs a cluster and leaves nothing of it behind."""
    running = Cluster(folder, task_managers, *arguments)
    try:
        yield running
    finally:
        running.stop()
