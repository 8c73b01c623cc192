"""The process that workers are copies of: it imports what they need, and forks them.

`python -m beam_serving.launch.template` is started by a supervisor.
Its standard input is a socket, on which `beam_serving.launch.forking` gives orders, one message each, and gets answers:

    {"import": [module, ...]}                    ->  {"ready": "" or why this process cannot be forked}
    {"fork": its grace_s}, with a file for the   ->  {"forked": its pid}, with a descriptor of it (-1: none), and once
    worker's standard input and one for its output   it has ended {"ended": its pid, "code": its exit code}

A copy has the memory of the original and of its threads only the one that forked. So nothing but imports happens here:
no thread, no connection, no model, no secret. The processes that it forked end with it: where it is killed, at once;
where its socket is closed, as after a SIGTERM, within `grace_s`. While it imports, it ends with its owner. Signals that
a whole group gets are for the workers, which it outlives.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from beam_serving.owner import tied, untie
from beam_serving.telemetry.logs import LogOptions, configure_logging

MESSAGE_BYTES = 4096
_IMPORTS = (
    "apache_beam.runners.portability.fn_api_runner.fn_runner",
    "beam_serving.pipeline",
    "beam_serving.launch.worker",
    "cv2",
    "orjson",
)
_NO_PROCESS = -1
_REASON = 500
"""The most characters of a reason, which in JSON are at most six times as many bytes."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Files(NamedTuple):
    """What a worker gets as standard input and output."""

    stdin: int
    stdout: int


def main() -> int:
    """Import, fork and wait until the socket is closed; in a copy, serve as a worker."""
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    control = socket.socket(fileno=os.dup(0))
    _become(0, os.open(os.devnull, os.O_RDONLY))
    configure_logging(LogOptions("warning"), "template")
    files = _Template(control).run()
    if files is None:
        return 0
    return _serve(files)


class _Template:
    """Obeys the orders of one socket."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, int] = {}
        self._reason = ""
        self._grace_s = 0.0
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def run(self) -> _Files | None:
        """Return the files of a worker in each copy of this process, and None in itself when it is to end."""
        # What is garbage now leaves holes, which objects of the workers would fill: each a page that is shared no more.
        gc.disable()
        self._reason = _import(_IMPORTS)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._control:
                    self._bury(key.fd)
                    continue
                message, descriptors = self._heard()
                if not message:
                    self._end_children()
                    return None
                if files := self._obey(json.loads(message), descriptors):
                    return files

    def _heard(self) -> tuple[bytes, list[int]]:
        try:
            return socket.recv_fds(self._control, MESSAGE_BYTES, len(_Files._fields), socket.MSG_CMSG_CLOEXEC)[:2]
        except ConnectionResetError:
            return b"", []  # it ended before it had read all that was said

    def _obey(self, order: Mapping[str, Any], descriptors: Sequence[int]) -> _Files | None:
        if "import" in order:
            self._reason = self._reason or _import(order["import"]) or _reason_not_to_fork()
            gc.collect()
            gc.freeze()
            untie()  # from now on the end of the socket is seen at once
            self._say({"ready": self._reason[:_REASON]})
            return None
        files = _Files(*descriptors)
        self._grace_s = max(self._grace_s, order["fork"])
        tie = tied()
        # What is sent to the copy before it heeds signals waits until then.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
        except OSError as err:
            print(f"no copy can be made: {err}", file=sys.stderr, flush=True)
            pid = _NO_PROCESS
        if pid == 0:
            self._forget()
            _follow(tie)
            return files
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        for descriptor in files:
            os.close(descriptor)
        self._tell_of(pid)
        return None

    def _tell_of(self, pid: int) -> None:
        if pid == _NO_PROCESS:
            self._say({"forked": pid})
            return
        # Nobody else waits for the child, so that until then its number is no other process's.
        watched = os.pidfd_open(pid)
        self._children[watched] = pid
        self._selector.register(watched, selectors.EVENT_READ)
        self._say({"forked": pid}, watched)

    def _say(self, message: Mapping[str, object], *descriptors: int) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            return  # the end of the socket is read next

    def _bury(self, watched: int) -> None:
        pid = self._children.pop(watched)
        self._selector.unregister(watched)
        os.close(watched)
        _, status = os.waitpid(pid, 0)
        self._say({"ended": pid, "code": os.waitstatus_to_exitcode(status)})

    def _forget(self) -> None:
        """Let go, in a copy, of what belongs to the original."""
        self._selector.close()
        self._control.close()
        for watched in self._children:
            os.close(watched)

    def _end_children(self) -> None:
        """End the children of a service that is gone; at last the end of this process ends them."""
        for watched in self._children:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(watched, signal.SIGTERM)
        give_up_at = time.monotonic() + self._grace_s
        self._selector.unregister(self._control)
        while self._children and time.monotonic() < give_up_at:
            for key, _ in self._selector.select(give_up_at - time.monotonic()):
                self._bury(key.fd)


def _import(modules: Sequence[str]) -> str:
    """Import modules; return why one cannot be, "" where all were."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as err:
            return f"{module}: {err}"
    return ""


def _reason_not_to_fork() -> str:
    """Return what a copy of this process would lack, or what this system does; "" where neither does."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as err:
        return f"pidfd_open(2): {err.strerror}"
    names = [Path(task, "comm").read_text(encoding="utf-8").strip() for task in Path("/proc/self/task").iterdir()]
    return "" if len(names) == 1 else f"{len(names)} threads: {', '.join(sorted(names))}"


def _follow(tie: Callable[[], None] | None) -> None:
    """Make this copy a process that ends with its original, and that Ctrl-C in the terminal does not reach."""
    if tie is not None:
        tie()
    os.setsid()
    for signum in _SIGNALS:
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _become(number: int, descriptor: int) -> None:
    os.dup2(descriptor, number)
    os.close(descriptor)


def _serve(files: _Files) -> int:
    from numpy.random import seed

    from beam_serving.launch import worker

    for number, descriptor in enumerate(files):
        _become(number, descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as this process
    random.seed()
    seed()
    gc.enable()
    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
