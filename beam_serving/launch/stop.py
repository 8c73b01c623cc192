"""How a process of ours comes to its end: by SIGTERM or SIGINT, or because its owner, which started it, is gone.

Either sets the one token that all of it looks at: it reads no more, finishes what is in flight and ends by itself.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from beam_serving.launch.systemd import tell_ready, tell_reloading, tell_stopping
from beam_serving.owner import Owner
from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.logs import reopen_log
from beam_serving.telemetry.stats import State

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_FAREWELL_S = 1.0


@contextmanager
def stop_on_signals(*, log: bool = False) -> Iterator[threading.Event]:
    """Let the signals end reading in this process while the body runs; yield the token that they set.

    SIGHUP, which also comes when a terminal is closed, opens the log file anew.

    Args:
        log: say so when one arrives, where an operator looks on.
    """
    stop = service_context().stop

    def on_signal(signum: int, frame: FrameType | None) -> None:
        del frame
        if log:
            _log.info("%s: finishing what is in flight", signal.Signals(signum).name)
        tell_stopping()
        stop.set()

    def on_hangup(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        tell_reloading()
        reopen_log()
        tell_ready()
        if log:
            _log.info("SIGHUP: the log goes on here")

    handlers = {signal.SIGTERM: on_signal, signal.SIGINT: on_signal, signal.SIGHUP: on_hangup}
    before = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class Ending:
    """Sees to it that this process ends when it shall, from its first instruction on; a thread of its own watches.

    Who has not begun to serve has nothing in flight, and may be in the midst of loading a model, where no handler of
    Python's runs: it ends at once. Who has lost its owner ends within `grace_s`, whatever it waits for.

    Attributes:
        grace_s: seconds that what is in flight may take when the owner is gone.
        farewell: called before an end at once, which waits a second for it.
    """

    def __init__(self) -> None:
        self.grace_s = 0.0
        self.farewell: Callable[[], None] = lambda: None
        self._context = service_context()
        # A descriptor of its own: whatever reads standard input, or puts another file in its place, reads not here.
        self._owner = Owner(os.dup(0))
        self._signals, written = os.pipe()
        os.set_blocking(written, False)
        # What Python writes there it writes when a signal arrives, also while no handler can run.
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="ending", daemon=True).start()

    def _watch(self) -> None:
        while not self._owner.await_end(self._signals):
            if {*os.read(self._signals, 64)} & {*_SIGNALS} and self._has_not_begun():
                self._end_now(0)
        _log.warning("the process that started this one is gone: stopping")
        self._context.stop.set()
        if not self._has_not_begun():
            time.sleep(self.grace_s)
            _log.error("what is in flight is not finished within %g s: ending without it", self.grace_s)
        self._end_now(1)

    def _has_not_begun(self) -> bool:
        return self._context.stats.state == State.STARTING

    def _end_now(self, code: int) -> None:
        threading.Timer(_FAREWELL_S, os._exit, [code]).start()
        self._context.stop.set()
        self.farewell()
        os._exit(code)
