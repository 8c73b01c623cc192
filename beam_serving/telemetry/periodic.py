"""Work that a thread of its own does again and again: renewing, publishing, watching."""

from __future__ import annotations

import threading
from collections.abc import Callable


class PeriodicThread:
    """Calls `work` every so many seconds from a daemon thread until it is closed; the first call is after one wait.

    Args:
        name: what the thread is called.
        every_s: seconds between the end of a call and the next.
        work: what is called. It may return the seconds until the next call, where these are others. It handles the
            errors that it expects; any other ends the thread, with a traceback.
    """

    def __init__(self, name: str, every_s: float, work: Callable[[], float | None]) -> None:
        self._every_s = every_s
        self._work = work
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self, within_s: float = 5.0) -> None:
        """End the thread; a call that runs is waited for, but not longer than this."""
        self._closed.set()
        self._thread.join(timeout=within_s)

    def _run(self) -> None:
        wait_s: float | None = None
        while not self._closed.wait(wait_s or self._every_s):
            wait_s = self._work()
