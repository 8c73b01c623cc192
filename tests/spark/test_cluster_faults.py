"""What is killed on a cluster in the middle of 30,000 records, and what that costs. Behind `make test-long`.

Each test prints a row of the table in docs/spark.md.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from beam_serving.transport.connection import RedisAt
from tests.flink.test_embedded import alive
from tests.processes import descendants
from tests.service import Service, await_true, result_writes
from tests.spark.cluster import Cluster, cluster
from tests.spark.drains import await_left, drain
from tests.spark.test_cluster import config
from tests.spark.test_embedded import processes_of
from tests.test_faults import queue_records, results

RECORDS = 30_000
pytestmark = [pytest.mark.long, pytest.mark.usefixtures("job_server_jar"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def a_worker(spark: Cluster, service: Service) -> int:
    return service.worker_pids()[0]


def an_executor(spark: Cluster, service: Service) -> int:
    return spark.executor_pids()[0]


def the_job_server(spark: Cluster, service: Service) -> int:
    return processes_of(service, "spark-job-server")[0]


def row(what: str, client: redis.Redis, writes: int, killed_at: float, left: int) -> None:
    """Prints what a kill has cost, and checks that it was nothing but time."""
    lost, doubled = RECORDS - results(client), result_writes(client) - writes - RECORDS
    print(f"\n| {what} | {RECORDS} | {left} | {lost} | {doubled} | {time.monotonic() - killed_at:.1f} |")
    assert (lost, doubled, client.xpending("serving_stream", "serving")["pending"]) == (0, 0, 0)
    assert client.xlen("serving_stream") == 0


@pytest.mark.parametrize("victim", [a_worker, an_executor, the_job_server])
def test_what_is_killed_in_a_drain_loses_and_doubles_nothing(
    spark: Cluster,
    at: RedisAt,
    client: redis.Redis,
    tmp_path: Path,
    victim: Callable[[Cluster, Service], int],
) -> None:
    writes = result_writes(client)
    queue_records(client, RECORDS)
    with drain(at, tmp_path, config(spark)) as running:
        await_left(client, running, 0.7 * RECORDS)
        os.kill(victim(spark, running), signal.SIGKILL)
        killed_at, left = time.monotonic(), client.xlen("serving_stream")
        assert left > 0
        assert running.process.wait(180) == 0, running.log
        row(victim.__name__.replace("_", " "), client, writes, killed_at, left)


def test_the_next_drain_serves_what_a_killed_one_left(
    spark: Cluster, at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    writes = result_writes(client)
    queue_records(client, RECORDS)
    with drain(at, tmp_path, config(spark)) as first:
        await_left(client, first, 0.7 * RECORDS)
        executors, processes = spark.executor_pids(), descendants(first.process.pid)
        first.process.kill()
        killed_at = time.monotonic()
        await_true(lambda: not any(alive(pid) for pid in [*processes, *executors]), "an end of all processes")
        left = client.xlen("serving_stream")
        assert left > 0
        with drain(at, tmp_path, config(spark)) as second:
            assert second.process.wait(180) == 0, second.log
            row("the command itself, with the next drain", client, writes, killed_at, left)
