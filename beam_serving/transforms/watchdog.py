"""Ends a worker process whose inference hangs, as a crash would: others take its entries over, none waits for ever."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)
EXIT_HUNG = 70
"""The exit code of a worker that ended itself (EX_SOFTWARE of sysexits.h)."""


class Watchdog:
    """Watches stretches of work from a thread of its own."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since: float | None = None
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Ends the process if the body takes longer than the limit."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(min(self._limit_s / 4, 1.0)):
            since = self._since
            if since is not None and time.monotonic() - since > self._limit_s:
                _log.critical("an inference runs for more than %g s: ending this worker", self._limit_s)
                os._exit(EXIT_HUNG)
