"""Ends a worker process whose work hangs, as a crash would: others take its entries over, none waits indefinitely."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from beam_serving.telemetry.periodic import PeriodicThread

_log = logging.getLogger(__name__)
EXIT_HUNG = 70
"""The exit code of a worker that ended itself (EX_SOFTWARE of sysexits.h)."""


class Watchdog:
    """Watches stretches of work from a thread of its own; `work` is what its last message calls them.

    `since` is when the work began (`time.perf_counter`), None while there is none: on the path of every record it is
    set as it is, elsewhere by `watch`.
    """

    def __init__(self, limit_s: float, work: str = "an inference") -> None:
        self._limit_s = limit_s
        self._work = work
        self.since: float | None = None
        self._thread = PeriodicThread("watchdog", min(limit_s / 4, 1.0), self._look)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """End the process if the body takes longer than the limit."""
        self.since = time.perf_counter()
        try:
            yield
        finally:
            self.since = None

    def close(self) -> None:
        """End the thread."""
        self._thread.close()

    def _look(self) -> None:
        since = self.since
        if since is not None and time.perf_counter() - since > self._limit_s:
            _log.critical("%s runs for more than %g s: ending this worker", self._work, self._limit_s)
            os._exit(EXIT_HUNG)
