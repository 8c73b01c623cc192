"""Whom a worker pool gives workers: real calls, by our own user and by another."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from beam_serving.cli.commands.worker_pool import main as worker_pool
from beam_serving.config.schema import Settings
from beam_serving.errors import ConfigError
from beam_serving.launch.portable.callers import is_here, proof, read_secret
from beam_serving.launch.portable.options import JOB_VARIABLE
from beam_serving.launch.portable.pool import HostPool, WorkerPool, served
from beam_serving.launch.worker import Job
from beam_serving.telemetry.logs import LogOptions
from tests.processes import STRANGER

SECRET = b"0123456789abcdef"
NOWHERE = "localhost:1"
REFUSED = (grpc.StatusCode.PERMISSION_DENIED, "this pool has no workers for you")


def settings(name: str = "tested", **sections: Any) -> Settings:
    return Settings.model_validate({"name": name, "model": {"path": "noop"}, **sections})


def job_text(name: str = "tested", **sections: Any) -> str:
    log = LogOptions(file="/etc/passwd")
    return Job(settings(name, **sections).model_dump_json(), "run", (), ("--evil",), False, log).encode().decode()


@contextmanager
def stub(address: str) -> Iterator[Any]:
    with grpc.insecure_channel(address) as channel:
        yield beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)


def wanted(params: dict[str, str], endpoint: str = NOWHERE, worker_id: str = "1-1") -> Any:
    request = beam_fn_api_pb2.StartWorkerRequest(worker_id=worker_id, params=params)
    request.provision_endpoint.url = request.control_endpoint.url = endpoint
    return request


def refusal(address: str, request: Any) -> tuple[grpc.StatusCode, str]:
    with stub(address) as pool, pytest.raises(grpc.RpcError) as caught:
        pool.StartWorker(request)
    return caught.value.code(), caught.value.details()


@contextmanager
def host_pool(secret: bytes | None = None) -> Iterator[tuple[HostPool, str]]:
    pool = HostPool(settings(), secret)
    try:
        with served(pool) as address:
            yield pool, address
    finally:
        pool.close()


def children_of_sdk_worker() -> list[dict[str, str]]:
    """Gives the environments of the workers that this process started."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"beam_serving.launch.portable.sdk_worker" in command.read_bytes():
                rows = (command.parent / "environ").read_bytes().decode().split("\0")
                found.append(dict(row.split("=", 1) for row in rows if row))
        except OSError:
            continue
    return found


def test_a_worker_serves_with_the_settings_of_its_pool() -> None:
    told = job_text(redis={"password_file": "/etc/shadow"}, data={"src": "attacker:6379"})
    with host_pool() as (_, address), stub(address) as pool:
        assert pool.StartWorker(wanted({"job": told})).error == ""
        (job,) = [json.loads(one[JOB_VARIABLE]) for one in children_of_sdk_worker() if JOB_VARIABLE in one]
        assert Settings.model_validate_json(job["settings"]) == settings()
        assert (job["deployment"], job["arguments"], job["log"]) == ("run", [], ["info", "text", ""])
        assert pool.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1")).error == ""


@pytest.mark.parametrize("told", ["", "{", "[]", "{}", job_text()[:-9], '{"settings": "{}"}'])
def test_what_is_no_job_is_told(told: str) -> None:
    with host_pool() as (_, address), stub(address) as pool:
        assert "holds no job" in pool.StartWorker(wanted({"job": told} if told else {})).error


def test_a_job_of_another_service_is_told() -> None:
    with host_pool() as (_, address), stub(address) as pool:
        said = pool.StartWorker(wanted({"job": job_text("other")})).error
    assert said == "this pool is configured for the service 'tested', not for 'other'"


@pytest.mark.parametrize(
    "endpoint", ["10.1.2.3:80", "attacker:80", "localhost.evil:1", "127.0.0.1.evil:1", "", "[::2]:1", "unix:/x", "1:1"]
)
def test_work_comes_from_this_machine_alone(endpoint: str) -> None:
    assert not is_here(endpoint)
    with host_pool() as (_, address):
        assert refusal(address, wanted({"job": job_text()}, endpoint)) == REFUSED


@pytest.mark.parametrize("endpoint", ["localhost:1", "127.0.0.1:80", "127.9.9.9:1", "[::1]:2", "[::ffff:127.0.0.1]:3"])
def test_this_machine_has_several_names(endpoint: str) -> None:
    assert is_here(endpoint)


def test_with_a_secret_only_who_knows_it_gets_workers() -> None:
    told = job_text()
    with host_pool(SECRET) as (_, address):
        for given in (
            {},
            {"proof": ""},
            {"proof": proof(b"another secret..", told)},
            {"proof": proof(SECRET, "other")},
        ):
            assert refusal(address, wanted({"job": told, **given})) == REFUSED
        assert refusal(address, wanted({"job": told, "proof": "\u00e9"})) == REFUSED
        with stub(address) as pool:
            assert pool.StartWorker(wanted({"job": told, "proof": proof(SECRET, told)})).error == ""


CALLS = f"""
import json, os, sys
import grpc
from apache_beam.portability.api import beam_fn_api_pb2 as pb, beam_fn_api_pb2_grpc as rpc
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid({STRANGER}, {STRANGER}, {STRANGER})
    os.setresuid({STRANGER}, {STRANGER}, {STRANGER})
for line in sys.stdin:
    address, params = json.loads(line)
    pool = rpc.BeamFnExternalWorkerPoolStub(grpc.insecure_channel(address))
    start = pb.StartWorkerRequest(worker_id="2-1", params=params)
    start.provision_endpoint.url = start.control_endpoint.url = "localhost:1"
    for call, request in ((pool.StartWorker, start), (pool.StopWorker, pb.StopWorkerRequest(worker_id="1-1"))):
        try:
            print(call(request).error or "done", flush=True)
        except grpc.RpcError as err:
            print(err.code().name, flush=True)
"""


@pytest.fixture
def as_stranger(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Calls that start a worker 2-1 and stop a worker 1-1, as another user.

    Who is not root cannot be that; then the pool is made to take itself for another user's.
    """
    command = [sys.executable, "-c", CALLS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stranger:
        assert stranger.stdin
        assert stranger.stdout

        def call(address: str, **params: str) -> list[str]:
            with monkeypatch.context() as patch:
                if (own := os.geteuid()) != 0:
                    patch.setattr(os, "geteuid", lambda: own + 1)
                print(json.dumps([address, params]), file=stranger.stdin, flush=True)
                return [stranger.stdout.readline().strip() for _ in range(2)]

        yield call
        stranger.stdin.close()


def test_another_user_gets_no_worker_and_stops_none(as_stranger: Callable[..., list[str]]) -> None:
    told = job_text()
    theirs = "no worker '1-1' of yours is here" if os.geteuid() == 0 else "done"
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE) as waiting:
        with served(WorkerPool([waiting])) as address, stub(address) as pool:
            assert as_stranger(address) == ["PERMISSION_DENIED", "PERMISSION_DENIED"]
            assert pool.StartWorker(wanted({})).error == ""
        waiting.kill()
    with host_pool() as (_, address), stub(address) as pool:
        assert pool.StartWorker(wanted({"job": told})).error == ""
        assert as_stranger(address, job=told) == ["PERMISSION_DENIED", theirs]
    with host_pool(SECRET) as (_, address), stub(address) as pool:
        assert pool.StartWorker(wanted({"job": told, "proof": proof(SECRET, told)})).error == ""
        # Who knows the secret may be another user, and still has no say in workers that are not his.
        assert as_stranger(address, job=told, proof=proof(SECRET, told)) == ["done", theirs]


@pytest.mark.parametrize("address", ["0.0.0.0:50000", "[::]:50000", "10.0.0.1:1", "host:1", ":50000", "unix:/tmp/x"])
def test_an_address_for_others_wants_a_secret(address: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model:\n  path: noop\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        worker_pool(["--config", str(config), "--listen", address])
    assert str(caught.value) == (
        f"--listen {address} can be reached from other machines: set flink: worker_pool_secret_file, "
        "or listen at 127.0.0.1"
    )


def test_a_secret_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    with pytest.raises(ConfigError, match=r"worker_pool_secret_file .*/secret: No such file or directory$"):
        read_secret(str(file))
    file.write_bytes(b"short\n")
    with pytest.raises(ConfigError, match="holds 5 bytes, wants 16 or more that nobody guesses"):
        read_secret(str(file))
    file.write_bytes(SECRET + b"\n")
    assert read_secret(str(file)) == SECRET
