"""Beam's worker pool service, by which a runner asks for its workers: each is a process of ours.

An embedded engine gets processes that its driver has started before; on a cluster, `HostPool` starts them when they are
asked for, one pool on each host of task managers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from beam_serving.ending import end
from beam_serving.errors import ConfigError
from beam_serving.portable.options import JOB_VARIABLE
from beam_serving.portable.processes import WORKER_STOP_S
from beam_serving.worker import Job, worker_environment

JOB_PARAMETER = "job"


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Gives the runner one of the processes for each worker that it asks for."""

    def __init__(self, processes: list[subprocess.Popen[bytes]]) -> None:
        self._processes = processes
        self._idle = list(processes)
        self._by_id: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def StartWorker(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - names of gRPC
        """Answers the runner: tells a process that waits where its work comes from."""
        with self._lock:
            if not self._idle:
                return beam_fn_api_pb2.StartWorkerResponse(error=f"there are only {len(self._processes)} workers")
            process = self._by_id[request.worker_id] = self._idle.pop(0)
        assert process.stdin is not None  # noqa: S101 - every process has one
        about = {"worker_id": request.worker_id, "control_endpoint": request.control_endpoint.url}
        try:
            process.stdin.write(json.dumps(about).encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:
            return beam_fn_api_pb2.StartWorkerResponse(error=f"worker process {process.pid} ended early")
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - names of gRPC
        """Answers the runner: lets the process go, whose way of ending says nothing from now on."""
        if process := self._by_id.pop(request.worker_id, None):
            process.terminate()
        return beam_fn_api_pb2.StopWorkerResponse()

    def dead(self) -> bool:
        """Whether a worker ended badly that the runner still wants."""
        return any(process.poll() for process in [*self._by_id.values()])

    def stop_reading(self) -> None:
        """Asks all workers to finish what is in flight and to read no more."""
        for process in self._processes:
            process.terminate()


class HostPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts a process for each worker that a runner on this host asks for. The request says nothing but the job."""

    def __init__(self) -> None:
        self._by_id: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def StartWorker(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - names of gRPC
        """Answers the runner: starts a process that will ask it for its work."""
        try:
            job = Job.decode(request.params[JOB_PARAMETER])
        except (KeyError, TypeError, ValueError) as err:
            return beam_fn_api_pb2.StartWorkerResponse(error=f"the parameter {JOB_PARAMETER!r} holds no job: {err!r}")
        command = [sys.executable, "-m", "beam_serving.portable.sdk_worker", f"--id={request.worker_id}"]
        command.append(f"--provision_endpoint={request.provision_endpoint.url}")
        environment = {**worker_environment(), JOB_VARIABLE: job.encode().decode()}
        with self._lock:
            self._by_id[request.worker_id] = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - names of gRPC
        """Answers the runner: ends the process."""
        with self._lock:
            process = self._by_id.pop(request.worker_id, None)
        if process is not None:
            end(process, WORKER_STOP_S)
        return beam_fn_api_pb2.StopWorkerResponse()

    def close(self) -> None:
        """Ends all processes."""
        with self._lock:
            processes = [*self._by_id.values()]
            self._by_id.clear()
        for process in processes:
            process.terminate()
        for process in processes:
            end(process, WORKER_STOP_S)


@contextmanager
def served(pool: WorkerPool | HostPool, address: str = "127.0.0.1:0") -> Iterator[str]:
    """Offers the pool at an address and gives it with the port that was taken.

    Raises:
        ConfigError: the address cannot be used.
    """
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)])
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as err:
        raise ConfigError(f"a worker pool cannot listen at {address}: is the port in use?") from err
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    server.start()
    try:
        yield f"{address.rsplit(':', 1)[0]}:{port}"
    finally:
        server.stop(1).wait()
