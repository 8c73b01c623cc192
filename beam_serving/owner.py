"""How a process ends with its owner, the one that started it, however that one ends.

A program is tied to the process that starts it by the kernel: `tied` is for `preexec_fn` of `subprocess`. A process of
our own, which has something to finish, holds one end of a pipe instead, whose other end only its owner has: the kernel
closes that with the owner, so that it is seen however late one looks (`await_end`).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import stat
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
"""Loaded before any fork: between fork and exec only its functions are called."""
_TICK_MS = 1000


def tied(signum: signal.Signals = signal.SIGKILL) -> Callable[[], None] | None:
    """Return what a child runs before it becomes another program: then it gets a signal when its owner ends.

    The owner is the thread that starts it, so that this has to live as long as the program shall. Only Linux has it
    (prctl(2), PR_SET_PDEATHSIG); elsewhere this is None.

    Args:
        signum: what the program gets.
    """
    if _LIBC is None:
        return None
    prctl, owner = _LIBC.prctl, os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
        # It may have ended before.
        if os.getppid() != owner:
            os._exit(1)

    return tie


def untie() -> None:
    """Let this process outlive its owner, whose end it learns in another way from now on."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


class Owner:
    """The process that started this one: at the other end of a pipe or, where there is none, this one's parent.

    Args:
        descriptor: of the pipe; any other file says nothing of an owner.
    """

    def __init__(self, descriptor: int) -> None:
        self._is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        self._descriptor = descriptor
        self._parent = os.getppid()

    def await_end(self) -> None:
        """Wait until it has ended."""
        poll = select.poll()
        if self._is_pipe:
            # Nothing is asked for: what the owner has written is for somebody else, and the end is always told.
            poll.register(self._descriptor, 0)
        while not poll.poll(None if self._is_pipe else _TICK_MS):
            if os.getppid() != self._parent:
                return
