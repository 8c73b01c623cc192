"""Starts a service in a session of its own, which outlives the command that started it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from beam_serving.errors import BeamServingError, ConfigError
from beam_serving.launch.ending import end
from beam_serving.launch.systemd import READY, VARIABLE
from beam_serving.launch.worker import EXIT_CONFIG, python_module

_START_S = 300.0
_TICK_S = 0.2
_LONGEST_FOLDER = 70


def start_detached(arguments: Sequence[str], log: Path, grace_s: float) -> int:
    """Start `serve` with these arguments, wait until it is ready, and return its pid; its log is added to a file.

    A service that is not ready after five minutes, or when the wait is broken off, is stopped.

    Raises:
        ConfigError: the log cannot be written, or the service found what the operator must fix.
        BeamServingError: the service ended for another reason, or is not ready in time.
    """
    # A socket of its own tells: the key in Redis may be that of a service of the same name on another host.
    with (
        tempfile.TemporaryDirectory(prefix="beam-serving-", dir=_folder_of_sockets()) as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
    ):
        ready.bind(f"{folder}/ready")
        ready.settimeout(_TICK_S)
        process, begin = _started(arguments, log, f"{folder}/ready")
        try:
            is_ready = _await_ready(process, ready)
        except BaseException:
            end(process, 2 * grace_s)
            raise
    if is_ready:
        return process.pid
    if process.poll() is None:
        end(process, 2 * grace_s)
        raise BeamServingError(f"the service is not ready after {_START_S:g} s and was stopped; see {log}")
    reason = _reason(log, begin) or f"the service ended with exit code {process.returncode}; see {log}"
    raise (ConfigError if process.returncode == EXIT_CONFIG else BeamServingError)(reason)


def _folder_of_sockets() -> str | None:
    """Return a folder for a socket, whose whole path has to fit into 107 bytes; None for the usual one."""
    return None if len(os.fsencode(tempfile.gettempdir())) < _LONGEST_FOLDER else "/tmp"  # noqa: S108


def _started(arguments: Sequence[str], log: Path, notify: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start the process; return it, and where its part of the log begins."""
    try:
        with log.open("ab") as file:
            command = [*python_module("beam_serving"), "serve", *arguments]
            environment = {**os.environ, VARIABLE: notify}
            begin = file.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,
            )
        return process, begin
    except OSError as err:
        raise ConfigError(f"{log}: cannot be written ({err.strerror}); --log-file names another file") from err


def _await_ready(process: subprocess.Popen[bytes], ready: socket.socket) -> bool:
    """Wait until the service is ready, has ended, or the time is over; say whether it is ready."""
    give_up_at = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < give_up_at:
        try:
            told = ready.recv(256)
        except TimeoutError:
            continue
        if told == READY:
            return True
    return False


def _message_of(line: str) -> str:
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError):
        return line


def _reason(log: Path, begin: int) -> str:
    """Return what the service said last of why it ended: the lines from the last error on."""
    with log.open("rb") as file:
        file.seek(begin)
        text = file.read().decode(errors="replace")
    for line in reversed(text.splitlines()):
        if line.startswith('{"time": ') and '"level": "CRITICAL"' in line:
            return _message_of(line)
    _, found, reported = f"\n{text}".rpartition("\nerror: ")
    return reported.strip() if found else ""
