"""What all steps of one process share: when to end, what is counted, what time it is."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import TypeVar, cast

from beam_serving.telemetry.stats import WorkerStats

_T = TypeVar("_T")


class ServiceContext:
    """The context of one process. Steps look it up when they are set up, never when they are made or pickled.

    Attributes:
        stop: set when reading shall end: by signals, by a key in Redis, by the last read of a drain.
        stats: what this process has done.
        clock: gives seconds, which only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.stop = threading.Event()
        self.stats = WorkerStats()
        self.clock = clock
        self._shared: dict[type, object] = {}
        self._lock = threading.Lock()

    def shared(self, kind: Callable[[], _T]) -> _T:
        """Return the one object of a class that steps of this process share; the first call makes it.

        Args:
            kind: a class that is made without arguments.
        """
        with self._lock:
            if kind not in self._shared:
                self._shared[cast(type, kind)] = kind()
            return cast(_T, self._shared[cast(type, kind)])


@functools.cache
def service_context() -> ServiceContext:
    """Return the context of this process."""
    return ServiceContext()
