"""How a process of ours comes to its end: by SIGTERM or SIGINT, or because its owner, which started it, is gone.

Either sets the one token that all of it looks at: it reads no more, finishes what is in flight and ends by itself.

A thread of its own does what a signal asks for. Python runs handlers in the main thread only, between two of its steps:
not while a model is loaded there, and a handler that sets a token on which that thread is about to wait would wait for
itself.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from beam_serving.launch.systemd import reloading, tell_stopping
from beam_serving.owner import Owner
from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.logs import reopen_log
from beam_serving.telemetry.stats import State

_log = logging.getLogger(__name__)
_ENDING = (signal.SIGTERM, signal.SIGINT)
_FAREWELL_S = 1.0


@contextmanager
def stop_on_signals(*, log: bool = False) -> Iterator[threading.Event]:
    """Let the signals end reading in this process while the body runs; yield the token that they set.

    SIGHUP, which also comes when a terminal is closed, opens the log file anew.

    Args:
        log: say so when one arrives, where an operator looks on.
    """
    stop = service_context().stop

    def end(signum: int) -> None:
        if not stop.is_set():
            if log:
                _log.info("%s: finishing what is in flight", signal.Signals(signum).name)
            tell_stopping()
            stop.set()

    def reopen(signum: int) -> None:
        with reloading():
            reopen_log()
        if log:
            _log.info("%s: the log goes on here", signal.Signals(signum).name)

    with _signals().handled({signal.SIGTERM: end, signal.SIGINT: end, signal.SIGHUP: reopen}):
        yield stop


def take_output() -> int:
    """Return a descriptor of standard output, where whoever started this process reads one line at its end.

    What the operator's code and libraries print goes to standard error from now on: nobody would read it, and who
    prints more than a pipe takes would wait for ever.
    """
    output = os.dup(1)
    os.dup2(2, 1)
    return output


class Ending:
    """Sees to it that this process ends when it shall, from its first instruction on.

    Who has not begun to serve has nothing in flight, and may be in the midst of loading a model: it ends at once. Who
    has lost its owner ends within `grace_s`, whatever it waits for.

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
        self._output = take_output()
        _signals().ending = self
        threading.Thread(target=self._follow_owner, name="owner", daemon=True).start()

    def report(self, text: str) -> None:
        """Tell the owner in a line why this process ends."""
        os.write(self._output, f"{text}\n".encode())

    def end_if_idle(self) -> None:
        """End at once where nothing is in flight, since a signal asks for it."""
        if self._has_not_begun():
            self._end_now(0)

    def _follow_owner(self) -> None:
        self._owner.await_end()
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


class _Signals:
    """Takes up the signals of this process in a thread.

    Each comes twice: as a number that the interpreter writes when it arrives, also while the main thread is busy
    elsewhere, and as one, with a mark, of the handler, also where a library has made that its own.
    """

    _MARK = 0x80

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self._calls: dict[int, Callable[[int], None]] = {}
        self._read, self._written = os.pipe()
        os.set_blocking(self._written, False)
        signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    @contextmanager
    def handled(self, calls: dict[int, Callable[[int], None]]) -> Iterator[None]:
        """Let a signal call a function, in the thread, while the body runs."""
        outer, self._calls = self._calls, calls
        before = {signum: signal.signal(signum, self._on_signal) for signum in calls}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
            self._calls = outer

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        del frame
        os.write(self._written, bytes([signum | self._MARK]))

    def _watch(self) -> None:
        while True:
            for number in os.read(self._read, 64):
                signum = number & ~self._MARK
                if signum in _ENDING and self.ending is not None:
                    self.ending.end_if_idle()
                if number & self._MARK and (call := self._calls.get(signum)):
                    try:
                        call(signum)
                    except Exception:  # noqa: BLE001 - the next signal must find somebody
                        _log.exception("%s could not be handled", signal.Signals(signum).name)


@functools.cache
def _signals() -> _Signals:
    return _Signals()
