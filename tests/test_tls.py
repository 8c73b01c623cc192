"""TLS, users and passwords: a service and its clients that may do no more than they must, on a real server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from beam_serving.client import AsyncInputQueue, AsyncOutputQueue, ConnectError, InputQueue, OutputQueue
from beam_serving.transport.connection import PASSWORD_VARIABLE, RedisAt, check
from tests.rights import rules
from tests.servers import Certificate, certificate, tls_redis
from tests.service import Service, service
from tests.test_operating import command

WORKER = rules("worker", "worker-secret", name="tested")
CLIENT = rules("client", "client-secret")


class Secured(NamedTuple):
    plain: int
    tls: int
    certificate: Certificate
    password_file: Path

    @property
    def admin(self) -> RedisAt:
        return RedisAt("127.0.0.1", self.plain, password_file=str(self.password_file))

    def url(self, user: str = "client:client-secret", host: str = "localhost") -> str:
        return f"rediss://{user}@{host}:{self.tls}/0"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    (folder / "admin").write_text("admin-secret", encoding="utf-8")
    shown = certificate(folder)
    with tls_redis(shown, "--requirepass", "admin-secret") as (plain, tls):
        secured = Secured(plain, tls, shown, folder / "admin")
        admin = secured.admin.client()
        admin.execute_command("ACL", "SETUSER", "worker", *WORKER)
        admin.execute_command("ACL", "SETUSER", "client", *CLIENT)
        yield secured


@pytest.fixture(scope="module")
def running(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose user is `worker`."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "password").write_text("worker-secret\n", encoding="utf-8")
    config = {
        "data": {"src": f"rediss://worker@localhost:{secured.tls}", "streams": "serving_stream"},
        "redis": {"ca_file": str(secured.certificate.path), "password_file": str(folder / "password")},
        "params": {"workers": 1, "top_n": 0},
    }
    with service(secured.admin, folder, config) as running:
        yield running


def test_a_service_and_its_clients_work_over_tls_with_the_rights_in_the_readme(
    secured: Secured, running: Service
) -> None:
    ca_file = str(secured.certificate.path)
    with InputQueue(secured.url(), ca_file=ca_file) as queue, OutputQueue(secured.url(), ca_file=ca_file) as results:
        queue.enqueue("one", np.ones(3, np.float32))
        queue.enqueue_many([(f"many{number}", np.zeros(3, np.float32)) for number in range(200)])
        assert isinstance(results.query("one", timeout_s=30, delete=True), np.ndarray)
        assert len(results.query_many([f"many{number}" for number in range(200)], timeout_s=30)) == 200
        assert len(results.dequeue()) == 200
        assert isinstance(queue.predict({"": np.ones(3, np.float32)}, timeout=30), np.ndarray)
    assert "NOPERM" not in running.log
    assert "permission" not in running.log


def test_status_needs_no_further_right(running: Service) -> None:
    shown = command("status", running.log_path.with_name("config.yaml"), "--json")
    assert shown.returncode == 0, shown.stderr
    about = json.loads(shown.stdout)
    assert about["ready"]
    assert about["streams"]["serving_stream"]["for_files"] is None


async def test_so_do_the_clients_for_asyncio(secured: Secured, running: Service) -> None:
    ca_file = str(secured.certificate.path)
    async with (
        AsyncInputQueue(secured.url(), ca_file=ca_file) as queue,
        AsyncOutputQueue(secured.url(), ca_file=ca_file) as results,
    ):
        await queue.enqueue("awaited", np.ones(3, np.float32))
        assert isinstance(await results.query("awaited", timeout_s=30, delete=True), np.ndarray)


def test_a_bad_request_and_its_dead_letter_need_no_further_right(secured: Secured, running: Service) -> None:
    admin = secured.admin.client()
    admin.xadd("serving_stream", {"uri": "bad", "tensor:": b"1", "dtype:": "float32", "shape:": "2"})
    with OutputQueue(secured.url(), ca_file=str(secured.certificate.path)) as results:
        answers = results.query_many(["bad"], timeout_s=30)
    assert "payload is 1 bytes" in str(answers["bad"])
    assert "NOPERM" not in running.log


def test_a_certificate_of_an_unknown_authority_is_fatal(secured: Secured) -> None:
    stranger = RedisAt("localhost", secured.tls, tls=True)
    with pytest.raises(ConnectError, match=r"its certificate is not to be trusted \(.*; redis: ca_file names"):
        check(stranger, stranger.client())
    with InputQueue(secured.url()) as queue, pytest.raises(ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        queue.enqueue("a", np.zeros(1))


def test_a_certificate_of_another_host_is_fatal(secured: Secured) -> None:
    ca_file = str(secured.certificate.path)
    other = RedisAt("127.0.0.1", secured.tls, tls=True, ca_file=ca_file)
    with pytest.raises(ConnectError, match="its certificate is not to be trusted"):
        check(other, other.client())
    url = secured.url(host="127.0.0.1")
    with InputQueue(url, ca_file=ca_file) as queue, pytest.raises(ConnectError, match="IP address mismatch"):
        queue.enqueue("a", np.zeros(1))


def test_a_wrong_password_over_tls_is_fatal(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong")
    at = RedisAt("localhost", secured.tls, tls=True, username="worker", ca_file=str(secured.certificate.path))
    with pytest.raises(ConnectError, match="it refuses our user or password"):
        check(at, at.client())


def test_a_client_without_the_right_to_a_stream_is_told(secured: Secured) -> None:
    with (
        InputQueue(secured.url(), stream="private", ca_file=str(secured.certificate.path)) as queue,
        pytest.raises(ConnectError, match=r"(?i)no permissions"),
    ):
        queue.enqueue("a", np.zeros(1))
