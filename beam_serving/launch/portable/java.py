"""Java processes: one that dies with us, and several that are a cluster on this machine and are started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from beam_serving.errors import ConfigError
from beam_serving.launch.ending import end
from beam_serving.owner import tied

LOOPBACK = "127.0.0.1"
_STARTING_TICK_S = 0.2
_RESTART_S = 1.0
_STOP_S = 10.0


def start_java(
    command: Sequence[str], output: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process that dies with this one, however that ends; what it prints is added to a file."""
    with output.open("ab") as file:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=tied(),
        )


class Part:
    """One process of a cluster. `log` is the file to look at, which need not be that of what it prints, `output`."""

    def __init__(
        self,
        name: str,
        index: int,
        command: Sequence[str],
        log: Path,
        output: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._label = f"{name}-{index}"
        self._command = command
        self._log = log
        self._output = output
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        self._process = start_java(self._command, self._output, self._environment)
        print(f"{self._label}: process {self._process.pid}, log {self._log}", flush=True)

    def died(self) -> bool:
        """Return whether it was started and has ended."""
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            end(self._process, _STOP_S)


def run_cluster(parts: Sequence[Part], offer: Callable[[], str | None]) -> None:
    """Run the parts until SIGTERM or Ctrl-C, and start those again that die.

    `offer` gives what the cluster offers, which is said once, or None while it offers nothing.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    reported = False
    try:
        for part in parts:
            part.start()
        while True:
            time.sleep(_RESTART_S if reported else _STARTING_TICK_S)
            for part in parts:
                if part.died():
                    print(f"{part.name} died: starting it again", flush=True)
                    part.start()
            if not reported and (ready := offer()) is not None:
                reported = True
                print(f"ready: {ready}", flush=True)
    except KeyboardInterrupt:
        return
    finally:
        for part in reversed(parts):
            part.stop()


def run_cluster_in(
    folder: Path | None,
    host: str,
    parts_in: Callable[[Path], Sequence[Part]],
    offer_of: Callable[[Sequence[Part]], str | None],
) -> int:
    """Run the parts of a cluster in a folder, its own where none is given; return the exit code.

    `parts_in` makes the parts, whose files are in the folder; `offer_of` says what they offer, see `run_cluster`.
    """
    with tempfile.TemporaryDirectory(prefix="beam-serving-cluster-", ignore_cleanup_errors=True) as own:
        place = folder or Path(own)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _warn_of_others(host)
        try:
            parts = parts_in(place)
        except ConfigError as err:
            print(f"error: {err}", file=sys.stderr)
            return 2
        run_cluster(parts, lambda: offer_of(parts))
    return 0


def _warn_of_others(host: str) -> None:
    """Say what a cluster at an address of the network is open for: neither Flink nor Spark asks who comes."""
    if host != LOOPBACK:
        print(
            f"warning: whoever reaches {host} can run programs on this cluster: keep its network private, or turn on "
            "the engine's own authentication (docs/ports.md)",
            flush=True,
        )


def answer_at(url: str) -> dict[str, Any]:
    """Return the JSON object at an address of a cluster's page; an empty one while it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310 - an address of our own making
            reported: dict[str, Any] = json.load(reply)
            return reported
    except (urllib.error.URLError, OSError, ValueError):
        return {}


def _interrupt(signum: int, frame: object) -> None:
    del signum, frame
    raise KeyboardInterrupt
