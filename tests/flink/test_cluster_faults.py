"""What is killed on a cluster in the middle of 10,000 records, and what that costs. Behind `make test-long`.

Each test prints a row of the table in the README: what was killed, records, lost, doubled, seconds until all workers
served again.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from beam_serving.launch.embedded_redis import embedded_redis, free_port
from beam_serving.telemetry.report import read_reports
from beam_serving.transport.connection import RedisAt
from tests.flink.cluster import Cluster, cluster
from tests.flink.test_cluster import FLINK, config
from tests.service import Service, await_true, result_writes
from tests.test_faults import await_half, queue_records, results

RECORDS = 10_000
RECOVERY_S = 120.0
pytestmark = [pytest.mark.long, pytest.mark.usefixtures("job_server_jar"), pytest.mark.timeout(900)]


@pytest.fixture
def flink(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    with cluster(folder) as running:
        yield running


def serving(client: redis.Redis) -> set[str]:
    """Gives the workers that serve now."""
    return {report.worker for report in read_reports(client, "tested") if report.states == ["serving"]}


def logged_writes(folder: Path) -> int:
    """Counts the HSET commands in a server's log, which has those of its earlier lives too."""
    files = [path for path in folder.rglob("*") if path.suffix == ".aof"]
    return sum(path.read_bytes().count(b"\r\nHSET\r\n") for path in files)


def row(what: str, lost: int, doubled: int, recovered_s: float, more: str = "") -> None:
    print(f"\n| {what} | {RECORDS} | 1 | {lost} | {doubled} | {recovered_s:.1f} |{more}")


def kill_worker(flink: Cluster, service: Service) -> None:
    del flink
    os.kill(service.worker_pids()[0], signal.SIGKILL)


def kill_task_manager(flink: Cluster, service: Service) -> None:
    del service
    flink.kill("taskmanager-1")


def kill_job_manager(flink: Cluster, service: Service) -> None:
    del service
    flink.kill("jobmanager-1")


@pytest.mark.parametrize("kill", [kill_worker, kill_task_manager, kill_job_manager])
@pytest.mark.parametrize("driver", ["stays", "is gone"])
def test_what_is_killed_loses_and_doubles_nothing(
    flink: Cluster,
    at: RedisAt,
    client: redis.Redis,
    tmp_path: Path,
    kill: Callable[[Cluster, Service], None],
    driver: str,
) -> None:
    service = Service(at, tmp_path, config(flink), FLINK)
    service.await_ready()
    if driver == "is gone":
        assert service.stop() == 0
    before = serving(client)
    assert len(before) == 2
    writes = result_writes(client)
    queue_records(client)
    await_half(client)
    kill(flink, service)
    killed_at = time.monotonic()
    await_true(lambda: serving(client) - before, "a new worker", RECOVERY_S)
    await_true(lambda: len(serving(client)) == 2, "two workers", RECOVERY_S)
    recovered_s = time.monotonic() - killed_at
    await_true(lambda: client.xlen("serving_stream") == 0, "an empty stream", RECOVERY_S)
    lost, doubled = RECORDS - results(client), result_writes(client) - writes - RECORDS
    row(f"{kill.__name__.replace('_', ' ')}, the driver {driver}", lost, doubled, recovered_s)
    assert (lost, doubled, client.xpending("serving_stream", "serving")["pending"]) == (0, 0, 0)
    # It still serves.
    queue_records(client, 1000, prefix="after")
    await_true(lambda: results(client) == RECORDS + 1000, "results after the recovery")
    if driver == "stays":
        assert service.stop() == 0


def lose_task_managers_for_a_minute(flink: Cluster, service: Service) -> float:
    with flink.nothing_is_started_again():
        for part in ("taskmanager-1", "taskmanager-2"):
            flink.kill(part)
        await_true(lambda: flink.rest.slots() == (0, 0), "a cluster without slots")
        # It was once over after 30 s.
        minute_is_over_at = time.monotonic() + 60

        def is_decided() -> bool:
            return time.monotonic() > minute_is_over_at or service.process.poll() is not None

        await_true(is_decided, "a minute", 90.0)
        assert service.process.poll() is None, "the service did not wait for its cluster"
    return time.monotonic()


def lose_the_whole_cluster(flink: Cluster, service: Service) -> float:
    flink.lose_all()
    lost_at = time.monotonic()
    await_true(lambda: "submitting it again" in service.log, "a second submission", RECOVERY_S)
    return lost_at


@pytest.mark.parametrize("lose", [lose_task_managers_for_a_minute, lose_the_whole_cluster])
def test_a_service_goes_on_when_its_cluster_is_back(
    flink: Cluster, at: RedisAt, client: redis.Redis, tmp_path: Path, lose: Callable[[Cluster, Service], float]
) -> None:
    service = Service(at, tmp_path, config(flink), FLINK)
    service.await_ready()
    before = serving(client)
    writes = result_writes(client)
    queue_records(client)
    await_half(client)
    since = lose(flink, service)
    await_true(lambda: len(serving(client) - before) == 2, "two new workers", RECOVERY_S)
    recovered_s = time.monotonic() - since
    await_true(lambda: client.xlen("serving_stream") == 0, "an empty stream", RECOVERY_S)
    lost, doubled = RECORDS - results(client), result_writes(client) - writes - RECORDS
    row(lose.__name__.replace("_", " "), lost, doubled, recovered_s)
    assert (lost, doubled, client.xpending("serving_stream", "serving")["pending"]) == (0, 0, 0)
    assert service.stop() == 0


def test_a_killed_redis_that_comes_back_with_its_log_loses_and_doubles_nothing(flink: Cluster, tmp_path: Path) -> None:
    port, data = free_port(), tmp_path / "data"
    data.mkdir()
    options = ("--appendonly", "yes", "--appendfsync", "always", "--dir", str(data))
    at = RedisAt("127.0.0.1", port)
    with ExitStack() as stack:
        stack.enter_context(embedded_redis(port, *options))
        service = Service(at, tmp_path, config(flink), FLINK)
        service.await_ready()
        client = at.client()
        queue_records(client)
        await_half(client)
        os.kill(client.info("server")["process_id"], signal.SIGKILL)
        killed_at = time.monotonic()
        stack.enter_context(embedded_redis(port, *options))
        client = at.client()
        await_true(lambda: client.xlen("serving_stream") == 0, "an empty stream", RECOVERY_S)
        recovered_s = time.monotonic() - killed_at
        lost, doubled = RECORDS - results(client), logged_writes(data) - RECORDS
        row("kill redis, the driver stays", lost, doubled, recovered_s)
        assert (lost, doubled, client.xpending("serving_stream", "serving")["pending"]) == (0, 0, 0)
        assert service.stop() == 0
