"""The job server as a process of ours: it runs an engine or talks to a cluster, and what Java says goes to a file."""

from __future__ import annotations

import logging
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from beam_serving.errors import BeamServingError
from beam_serving.launch.embedded_redis import free_port
from beam_serving.launch.ending import end
from beam_serving.launch.portable.jar import Engine
from beam_serving.launch.portable.java import start_java
from beam_serving.launch.portable.java_errors import telling_line
from beam_serving.launch.portable.sockets import is_ours

_log = logging.getLogger(__name__)
_STOP_S = 5.0


class JobServer:
    """Runs a job server until `stop`; it dies with this process, however that ends.

    `command_in` gives the engine's own part of the command, and is told the folder for files that go with the server.
    """

    def __init__(self, engine: Engine, command_in: Callable[[Path], Sequence[str]]) -> None:
        self._name = f"{engine.name}'s job server"
        self._folder = tempfile.TemporaryDirectory(prefix=f"beam-serving-{engine.section}-", ignore_cleanup_errors=True)
        self._log_path = Path(self._folder.name, "job-server.log")
        self._port = free_port()
        command = [*command_in(Path(self._folder.name))]
        command += ["--job-host", "127.0.0.1", "--job-port", str(self._port), "--artifact-port", "0"]
        command += ["--expansion-port", "0", "--artifacts-dir", self._folder.name]
        self._process = start_java(command, self._log_path)

    def __enter__(self) -> JobServer:
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """Where it takes jobs."""
        return f"127.0.0.1:{self._port}"

    def alive(self, for_s: float = 0.0) -> bool:
        """Return whether its process runs, and goes on for so long."""
        try:
            self._process.wait(for_s)
        except subprocess.TimeoutExpired:
            return True
        return False

    def await_start(self, within_s: float) -> None:
        """Wait until it takes jobs.

        Raises:
            BeamServingError: it ended, or does not answer in time; with the tail of its log.
        """
        give_up_at = time.monotonic() + within_s
        while not is_ours(self._port):
            if not self.alive():
                raise BeamServingError(f"{self._name} ended at once; it said: {self.log_tail()}")
            if time.monotonic() > give_up_at:
                raise BeamServingError(f"{self._name} does not answer in {within_s:g} s: {self.log_tail()}")
            time.sleep(0.05)

    def log_tail(self) -> str:
        """Return the line of its log that tells most of what went wrong."""
        return telling_line(self._log_path.read_text(encoding="utf-8", errors="replace")) or "nothing"

    def stop(self) -> None:
        """End the process and remove its files."""
        end(self._process, _STOP_S)
        self._folder.cleanup()
