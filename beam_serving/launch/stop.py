"""How reading ends in a process of ours: SIGTERM and SIGINT set the one token that all of it looks at."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from beam_serving.telemetry.context import service_context

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signals(*, log: bool = False) -> Iterator[threading.Event]:
    """Let the signals end reading in this process while the body runs; yield the token that they set.

    Args:
        log: say so when one arrives, where an operator looks on.
    """
    stop = service_context().stop

    def on_signal(signum: int, frame: FrameType | None) -> None:
        del frame
        if log:
            _log.info("%s: finishing what is in flight", signal.Signals(signum).name)
        stop.set()

    before = {signum: signal.signal(signum, on_signal) for signum in _SIGNALS}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
