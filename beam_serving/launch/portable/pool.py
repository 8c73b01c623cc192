"""Beam's worker pool service, by which a runner asks for its workers: each is a process of ours.

An embedded engine gets processes that its driver has started before; on a cluster, `HostPool` starts them when they are
asked for, one pool on each host of task managers. Whoever names a worker's endpoint decides what it runs, so a pool
asks who calls: processes of its own user or, where there is a secret, those who know it (see `callers`).
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from beam_serving.config.schema import Settings
from beam_serving.errors import ConfigError
from beam_serving.launch.ending import end
from beam_serving.launch.portable.callers import Caller, caller_of, is_here, is_proof
from beam_serving.launch.portable.options import JOB_PARAMETER, JOB_VARIABLE, PROOF_PARAMETER
from beam_serving.launch.portable.processes import WORKER_STOP_S
from beam_serving.launch.worker import Job, python_module, worker_environment

_log = logging.getLogger(__name__)


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Hands the runner, a process of our user, one of the processes for each worker that it asks for."""

    def __init__(self, processes: list[subprocess.Popen[bytes]]) -> None:
        self.port = 0
        self._processes = processes
        self._idle = list(processes)
        self._by_id: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def StartWorker(  # noqa: N802 - a name of gRPC
        self, request: beam_fn_api_pb2.StartWorkerRequest, context: grpc.ServicerContext
    ) -> beam_fn_api_pb2.StartWorkerResponse:
        """Answer the runner: tell a process that waits where its work comes from."""
        _require_own_user(context, self.port)
        _require_here(context, request.control_endpoint.url)
        with self._lock:
            if not self._idle:
                return beam_fn_api_pb2.StartWorkerResponse(error=f"there are only {len(self._processes)} workers")
            process = self._by_id[request.worker_id] = self._idle.pop(0)
        assert process.stdin is not None  # noqa: S101 - every process has one
        about = {"worker_id": request.worker_id, "control_endpoint": request.control_endpoint.url}
        try:
            process.stdin.write(json.dumps(about).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return beam_fn_api_pb2.StartWorkerResponse(error=f"worker process {process.pid} ended early")
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(  # noqa: N802 - a name of gRPC
        self, request: beam_fn_api_pb2.StopWorkerRequest, context: grpc.ServicerContext
    ) -> beam_fn_api_pb2.StopWorkerResponse:
        """Answer the runner: let the process go, whose way of ending says nothing from now on."""
        _require_own_user(context, self.port)
        if process := self._by_id.pop(request.worker_id, None):
            process.terminate()
        return beam_fn_api_pb2.StopWorkerResponse()

    def dead(self) -> bool:
        """Return whether a worker ended badly that the runner still wants."""
        return any(process.poll() for process in [*self._by_id.values()])

    def stop_reading(self) -> None:
        """Ask all workers to finish what is in flight and to read no more."""
        for process in self._processes:
            process.terminate()

    def incomplete(self) -> bool:
        """Return whether one has ended."""
        return any(process.poll() is not None for process in self._processes)


class HostPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts a process for each worker that a runner on this host asks for.

    A worker serves with the pool's own settings; of the request come the names under which it does, and where on this
    machine its work is to be had.
    """

    def __init__(self, settings: Settings, secret: bytes | None = None) -> None:
        self.port = 0
        self._settings = settings
        self._secret = secret
        self._by_id: dict[str, _HostWorker] = {}
        self._lock = threading.Lock()

    def StartWorker(  # noqa: N802 - a name of gRPC
        self, request: beam_fn_api_pb2.StartWorkerRequest, context: grpc.ServicerContext
    ) -> beam_fn_api_pb2.StartWorkerResponse:
        """Answer the runner: start a process that will ask it for its work."""
        caller = self._admitted(context, request)
        _require_here(context, request.provision_endpoint.url)
        try:
            job = self._job_of(request.params[JOB_PARAMETER])
        except (KeyError, TypeError, ValueError) as err:
            return beam_fn_api_pb2.StartWorkerResponse(error=f"the parameter {JOB_PARAMETER!r} holds no job: {err!r}")
        except ConfigError as err:
            return beam_fn_api_pb2.StartWorkerResponse(error=str(err))
        command = [*python_module("beam_serving.launch.portable.sdk_worker"), f"--id={request.worker_id}"]
        command.append(f"--provision_endpoint={request.provision_endpoint.url}")
        environment = {**worker_environment(), JOB_VARIABLE: job.encode().decode()}
        with self._lock:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
            self._by_id[request.worker_id] = _HostWorker(process, caller)
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(  # noqa: N802 - a name of gRPC
        self, request: beam_fn_api_pb2.StopWorkerRequest, context: grpc.ServicerContext
    ) -> beam_fn_api_pb2.StopWorkerResponse:
        """Answer the runner: end the process, if it is the one who had it started."""
        caller = caller_of(context.peer(), self.port)
        with self._lock:
            worker = self._by_id.get(request.worker_id)
            if worker is None or caller is None or worker.caller != caller:
                return beam_fn_api_pb2.StopWorkerResponse(error=f"no worker {request.worker_id!r} of yours is here")
            del self._by_id[request.worker_id]
        end(worker.process, WORKER_STOP_S)
        return beam_fn_api_pb2.StopWorkerResponse()

    def _admitted(self, context: grpc.ServicerContext, request: beam_fn_api_pb2.StartWorkerRequest) -> Caller:
        if self._secret is None:
            return _require_own_user(context, self.port)
        caller = caller_of(context.peer(), self.port)
        job, given = request.params.get(JOB_PARAMETER, ""), request.params.get(PROOF_PARAMETER, "")
        if caller is None or not is_proof(self._secret, job, given):
            _refuse(context, "it does not know the secret of flink: worker_pool_secret_file")
        assert caller is not None  # noqa: S101 - refused above
        return caller

    def _job_of(self, text: str) -> Job:
        job = Job.decode(text)
        name = json.loads(job.settings)["name"]
        if name != self._settings.name:
            raise ConfigError(f"this pool is configured for the service {self._settings.name!r}, not for {name!r}")
        return replace(job, settings=self._settings.model_dump_json(), arguments=(), log=job.log._replace(file=""))

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            processes = [worker.process for worker in self._by_id.values()]
            self._by_id.clear()
        for process in processes:
            process.terminate()
        for process in processes:
            end(process, WORKER_STOP_S)


@dataclass(frozen=True)
class _HostWorker:
    process: subprocess.Popen[bytes]
    caller: Caller


def _require_own_user(context: grpc.ServicerContext, port: int) -> Caller:
    caller = caller_of(context.peer(), port)
    if caller is None or caller.user != os.geteuid():
        _refuse(context, "it is not of the user who runs this pool")
    assert caller is not None  # noqa: S101 - refused above
    return caller


def _require_here(context: grpc.ServicerContext, endpoint: str) -> None:
    """Check that a worker would take its work from this machine, as each runner beside its workers has it."""
    if not is_here(endpoint):
        _refuse(context, f"its endpoint {endpoint!r} is not on this machine")


def _refuse(context: grpc.ServicerContext, reason: str) -> None:
    """End the call by an exception of gRPC's."""
    _log.warning("a caller at %s is refused: %s", context.peer(), reason)
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "this pool has no workers for you")


@contextmanager
def served(pool: WorkerPool | HostPool, address: str = "127.0.0.1:0") -> Iterator[str]:
    """Offer the pool at an address and yield it with the port that was taken.

    Raises:
        ConfigError: the address cannot be used.
    """
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)])
    try:
        pool.port = port = server.add_insecure_port(address)
    except RuntimeError as err:
        raise ConfigError(f"a worker pool cannot listen at {address}: is the port in use?") from err
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    server.start()
    try:
        yield f"{address.rsplit(':', 1)[0]}:{port}"
    finally:
        server.stop(1).wait()
