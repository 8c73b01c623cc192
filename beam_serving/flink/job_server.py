"""The job server as a process of ours: it runs a Flink or talks to a cluster, and all that Java says goes to a file."""

from __future__ import annotations

import ctypes
import logging
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from beam_serving.embedded import free_port, listens
from beam_serving.errors import BeamServingError
from beam_serving.flink.causes import telling_line

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_STOP_S = 5.0


class JobServer:
    """Runs the jar until `stop`, with a Flink inside or for a cluster; it dies with this process, however that ends."""

    def __init__(self, java: Sequence[str], jar: Path, cluster: str | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="beam-serving-flink-")
        self._log_path = Path(self._folder.name, "job-server.log")
        self._port = free_port()
        # Unknown to Flink's configuration are settings of ours: an empty folder keeps a local installation's away.
        command = [
            *java,
            "-jar",
            str(jar),
            "--flink-master",
            cluster or "[local]",
            "--flink-conf-dir",
            self._flink_conf(),
        ]
        command += ["--job-host", "127.0.0.1", "--job-port", str(self._port), "--artifact-port", "0"]
        command += ["--expansion-port", "0", "--artifacts-dir", self._folder.name]
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def __enter__(self) -> JobServer:
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """Where it takes jobs."""
        return f"127.0.0.1:{self._port}"

    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    def await_start(self, within_s: float) -> None:
        """Waits until it takes jobs.

        Raises:
            BeamServingError: it ended, or does not answer in time; with its last words.
        """
        give_up_at = time.monotonic() + within_s
        while not listens("127.0.0.1", self._port):
            if not self.alive():
                raise BeamServingError(f"Flink's job server ended at once; it said: {self.last_words()}")
            if time.monotonic() > give_up_at:
                raise BeamServingError(f"Flink's job server does not answer in {within_s:g} s: {self.last_words()}")
            time.sleep(0.05)

    def last_words(self) -> str:
        """Gives the line of its log that tells most of what went wrong."""
        return telling_line(self._log_path.read_text(encoding="utf-8", errors="replace")) or "nothing"

    def stop(self) -> None:
        """Ends the process and removes its files."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def _flink_conf(self) -> str:
        folder = Path(self._folder.name, "conf")
        folder.mkdir()
        # No restarts inside Flink: the supervisor restarts the driver, and with it all that hangs on it.
        (folder / "flink-conf.yaml").write_text("restart-strategy.type: none\nrest.port: 0\n", encoding="utf-8")
        return str(folder)


def _die_with_parent() -> None:
    """Asks the kernel, in the child before it becomes Java, to kill it when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
