"""The worker processes of an embedded engine: started before it asks for them, and ended with it."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from beam_serving.launch.ending import end
from beam_serving.launch.worker import Job, python_module, worker_environment

_log = logging.getLogger(__name__)
WORKER_STOP_S = 10.0


@contextmanager
def started_workers(job: Job) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start a process for each name of the job, which loads Beam and wait to be told where its work comes from."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name in job.consumers:
            command = python_module("beam_serving.launch.portable.sdk_worker")
            process = subprocess.Popen(command, stdin=subprocess.PIPE, env=worker_environment(), start_new_session=True)
            processes.append(process)
            assert process.stdin is not None  # noqa: S101 - asked for two lines above
            process.stdin.write(dataclasses.replace(job, consumers=(name,)).encode())
            process.stdin.flush()
        yield processes
    finally:
        _end(processes)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
        if process.stdin is not None:
            process.stdin.close()
    for process in processes:
        end(process, WORKER_STOP_S)


def tell_of_thread(died: threading.ExceptHookArgs) -> None:
    """Log what ended a thread. Beam's threads end with an error of gRPC when the runner hangs up, as it does."""
    level = logging.DEBUG if isinstance(died.exc_value, grpc.RpcError) else logging.ERROR
    name = died.thread.name if died.thread else "?"
    _log.log(level, "thread %s ended", name, exc_info=died.exc_value)
