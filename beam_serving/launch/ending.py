"""How every process that we started is ended."""

import logging
import subprocess

_log = logging.getLogger(__name__)


def end(process: subprocess.Popen[bytes], within_s: float) -> None:
    """Ask a process to end by SIGTERM, and kill it where it does not in time."""
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        _log.error("process %d does not end within %g s: killing it", process.pid, within_s)
        process.kill()
        process.wait()
