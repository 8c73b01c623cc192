"""Starts the workers of a machine: as copies of one process that has imported what they need, or one by one.

The copies share the memory of the imports, and none of them waits for these: see `beam_serving.launch.template`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, Protocol

from beam_serving.launch.template import MESSAGE_BYTES
from beam_serving.launch.worker import Job, python_module, worker_environment
from beam_serving.owner import tied

_log = logging.getLogger(__name__)
_ANSWER_S, _TICK_S = 10.0, 0.1
_THREADED = ("onnxruntime",)
"""Engines whose import starts a thread, which a copy would lack: each worker imports them."""
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""What keeps NumPy and Arrow from starting threads when they are imported."""


class WorkerProcess(Protocol):
    """What a supervisor needs of a process, as `subprocess.Popen` has it."""

    pid: int
    stdout: IO[bytes] | None

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code; raise subprocess.TimeoutExpired."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


def spawned(module: str, job: Job, name: str) -> subprocess.Popen[bytes]:
    """Start a module of ours in a new process and give it its job; its standard input ends with this process."""
    # A session of its own: Ctrl-C reaches the workers through us, once.
    process = subprocess.Popen(
        python_module(module),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=worker_environment(),
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101 - asked for above
    try:
        process.stdin.write(job.encode())
        process.stdin.flush()
    except BrokenPipeError:
        _log.warning("worker %s ended before it took its job", name)
    return process


class Workers:
    """Starts the workers of one service.

    `open` begins with the imports that all need, `need` names the engine; from then on workers can be started whenever
    `settled` says so. Where no process can be the original of others, each is started by itself.
    """

    def __init__(self, openmp_threads: int, grace_s: float) -> None:
        self._grace_s = grace_s
        self._environment = {"OMP_NUM_THREADS": str(openmp_threads), **_ENVIRONMENT, **worker_environment()}
        self._template: _Template | None = None
        self._modules: tuple[str, ...] = ()
        self._alone = sys.platform != "linux"

    def open(self) -> None:
        """Start the process that imports."""
        if not self._alone:
            self._template = _Template(self._environment)

    def need(self, engine: str = "", module: str = "") -> None:
        """Tell which engine serves the model, and which module loads it there; the no-op model needs none."""
        self._modules = (module,) if module and engine not in _THREADED else ()
        if self._template is not None:
            self._template.prepare(self._modules)

    def settled(self) -> bool:
        """Return whether workers can be started now."""
        template = self._template
        if template is None:
            return True
        template.listen(0.0)
        if template.refusal or (template.ended() and not template.was_ready):
            _log.info("workers are started one by one: %s", template.refusal or "their template ended")
            self.close()
        elif template.ended():
            _log.error("the template of the workers died, and they with it: starting it again")
            template.close()
            self._template = _Template(self._environment)
            self._template.prepare(self._modules)
            return False
        return self._template is None or template.was_ready

    def start(self, job: Job, *, copy: bool) -> WorkerProcess:
        """Start a worker: one with the address space of the others, if that may be, or with its own."""
        forked = self._template.fork(job, self._grace_s) if copy and self._template is not None else None
        return forked or spawned("beam_serving.launch.worker", job, job.consumers[0])

    def close(self) -> None:
        """End the process that imported. Those that it forked have ended, or do so now."""
        if self._template is not None:
            self._template.close()
            self._template = None


class _Template:
    """The process of `beam_serving.launch.template`, as its supervisor sees it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                python_module("beam_serving.launch.template"),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
                preexec_fn=tied(),
            )
        self.codes: dict[int, int] = {}
        self.was_ready = False
        self.refusal = ""
        self._forked: tuple[int, ...] = ()

    def prepare(self, modules: Sequence[str]) -> None:
        """Ask it to import these, and to say whether it is ready."""
        self._send({"import": modules})

    def ended(self) -> bool:
        """Return whether it has ended."""
        return self._process.poll() is not None

    def fork(self, job: Job, grace_s: float) -> ForkedWorker | None:
        """Return a copy that works at a job; None where none can be made. A process that does not answer is ended."""
        # Not a pipe, which takes only so much before somebody reads.
        given = os.memfd_create("job")
        reported, output = os.pipe()
        try:
            os.write(given, job.encode())
            os.lseek(given, 0, os.SEEK_SET)
            self._send({"fork": grace_s}, given, output)
        finally:
            os.close(given)
            os.close(output)
        give_up_at = time.monotonic() + _ANSWER_S
        while not self._forked and not self.ended() and time.monotonic() < give_up_at:
            self.listen(max(0.0, give_up_at - time.monotonic()))
        if len(self._forked) < 2:
            os.close(reported)
            if not self._forked:
                self._process.kill()
            self._forked = ()
            return None
        (pid, watched), self._forked = self._forked, ()
        return ForkedWorker(self, pid, watched, os.fdopen(reported, "rb"))

    def listen(self, within_s: float) -> None:
        """Take in what it has said, and wait so long for the first word."""
        while select.select([self._control], [], [], within_s)[0]:
            try:
                message, descriptors, _, _ = socket.recv_fds(
                    self._control, MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
                )
            except ConnectionResetError:
                message, descriptors = b"", []
            if not message:
                # It is gone, or about to be.
                self._process.wait()
                return
            self._note(json.loads(message), descriptors)
            within_s = 0.0

    def _note(self, reported: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        if "forked" in reported:
            self._forked = reported["forked"], *descriptors
        elif "ended" in reported:
            self.codes[reported["ended"]] = reported["code"]
        else:
            self.refusal, self.was_ready = reported["ready"], not reported["ready"]

    def _send(self, order: Mapping[str, object], *descriptors: int) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(order).encode()], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            return  # it is gone, which is seen next

    def close(self) -> None:
        """End it, and what it forked."""
        self._process.kill()
        self._process.wait()
        self._control.close()


class ForkedWorker:
    """A worker that its template forked; see `WorkerProcess`."""

    def __init__(self, template: _Template, pid: int, watched: int, stdout: IO[bytes]) -> None:
        self.pid = pid
        self.stdout: IO[bytes] | None = stdout
        self._template = template
        self._watched = watched
        self._code: int | None = None

    def poll(self) -> int | None:
        """See `WorkerProcess`."""
        return self._await(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """See `WorkerProcess`."""
        code = self._await(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout or 0.0)
        return code

    def terminate(self) -> None:
        """See `WorkerProcess`."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """See `WorkerProcess`."""
        self._signal(signal.SIGKILL)

    def _await(self, within_s: float | None) -> int | None:
        if self._code is None and select.select([self._watched], [], [], within_s)[0]:
            self._bury()
        return self._code

    def _bury(self) -> None:
        """Learn how it ended, which only its parent learns, at once: where that was killed, this was with it."""
        give_up_at = time.monotonic() + _ANSWER_S
        self._template.listen(0.0)
        while self.pid not in self._template.codes and not self._template.ended() and time.monotonic() < give_up_at:
            self._template.listen(_TICK_S)
        self._code = self._template.codes.pop(self.pid, -signal.SIGKILL)
        os.close(self._watched)

    def _signal(self, signum: signal.Signals) -> None:
        if self.poll() is None:
            # By the descriptor, which is never another process's; it may have ended since.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._watched, signum)
