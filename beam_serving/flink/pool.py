"""The workers of an embedded Flink: it asks for them over Beam's worker pool service, and each is a process of ours."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc


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


@contextmanager
def served(pool: WorkerPool) -> Iterator[str]:
    """Offers the pool on a port of 127.0.0.1 and gives its address."""
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    port = server.add_insecure_port("127.0.0.1:0")
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(1).wait()
