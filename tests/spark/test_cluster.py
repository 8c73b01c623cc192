"""Draining on a real Spark cluster of two workers, and what its pages say that a drain got of it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from beam_serving.telemetry.report import LIFETIME_S, read_reports
from beam_serving.transport.connection import RedisAt
from tests.processes import assert_for_its_user_alone, descendants
from tests.service import await_true, result_writes, service
from tests.spark.cluster import Cluster, cluster
from tests.spark.drains import SPARK, await_readers, drain
from tests.test_faults import assert_all_served_once, queue_records, results

RECORDS = 40_000
pytestmark = [pytest.mark.usefixtures("job_server_jar"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def config(spark: Cluster, **section: object) -> dict[str, Any]:
    own = {"master": spark.url, "num_executors": 2, "executor_memory": "512m", "driver_memory": "1g"}
    return {"params": {"batch_size": 8, "reclaim_idle_s": 2.0}, "spark": {**own, **section}}


def shares(client: redis.Redis) -> list[int]:
    """Gives how many records each worker has served."""
    return [report.counts["served"] for report in read_reports(client, "tested", within_s=LIFETIME_S)]


def test_both_executors_serve_with_what_the_configuration_gives_them(
    spark: Cluster, at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    writes = result_writes(client)
    queue_records(client, RECORDS)
    with drain(at, tmp_path, config(spark)) as running:
        await_readers(client, running, 2)
        (application,) = spark.applications()
        executors = spark.executors()
        driver = descendants(running.process.pid)
        heaps = [re.findall(rb"-Xmx(\w+)\0", Path(f"/proc/{pid}/cmdline").read_bytes()) for pid in driver]
        assert running.process.wait(120) == 0, running.log
        assert_all_served_once(client, writes, RECORDS)
        assert f"state DONE: {RECORDS} records served, 0 of them with an error" in running.log
        # The fields of the section, as the cluster understood them.
        assert (application["cores"], application["memoryperexecutor"]) == (2, 512)
        assert [executor["memory"] for executor in executors] == [512, 512]
        assert [b"1g"] in heaps
        assert all(shares(client))
        await_true(lambda: spark.applications() == [], "the end of the application")


def test_all_ports_are_for_the_user_alone_while_a_drain_runs(
    spark: Cluster, at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    queue_records(client, 200_000)  # the ports of a driver and of executors go with the end of a drain
    with drain(at, tmp_path, config(spark)) as running:
        await_readers(client, running, 2)
        assert_for_its_user_alone(running.process.pid, least=5)
        assert_for_its_user_alone(spark.process.pid, least=8)
        running.process.terminate()
        assert running.process.wait(60) == 0
    await_true(lambda: spark.applications() == [], "the end of the application")


@pytest.mark.long
def test_each_of_two_executors_serves_its_share(
    spark: Cluster, at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    records = 200_000  # they do not start in the same moment
    writes = result_writes(client)
    queue_records(client, records)
    with drain(at, tmp_path, config(spark)) as running:
        assert running.process.wait(240) == 0, running.log
        assert_all_served_once(client, writes, records)
        served = shares(client)
        print("\nshares", *(f"{share / records:.0%}" for share in served))
        assert len(served) == 2
        assert min(served) >= 0.35 * records


@pytest.mark.long
def test_one_executor_is_enough(spark: Cluster, at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    writes = result_writes(client)
    queue_records(client, 2000)
    asked = config(spark, num_executors=2, total_executor_cores=1, executor_memory="600m")
    with drain(at, tmp_path, asked) as running:
        await_readers(client, running, 1)
        (application,) = spark.applications()
        assert (application["cores"], application["memoryperexecutor"], len(spark.executors())) == (1, 600, 1)
        assert running.process.wait(120) == 0, running.log
        assert_all_served_once(client, writes, 2000)


@pytest.mark.long
def test_an_executor_of_two_cores_has_two_readers_in_one_worker(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    writes = result_writes(client)
    queue_records(client, RECORDS)
    with cluster(tmp_path / "cluster", "--workers", "1", "--cores", "2") as large:
        asked = config(large, num_executors=1, executor_cores=2, executor_memory="700m")
        with drain(at, tmp_path, asked) as running:
            await_readers(client, running, 2)
            (application,), (executor,) = large.applications(), large.executors()
            assert (application["cores"], application["memoryperexecutor"]) == (2, 700)
            assert executor["memory"] == 700
            assert running.process.wait(120) == 0, running.log
            assert_all_served_once(client, writes, RECORDS)
            assert len(shares(client)) == 1


def test_drains_in_every_interval_keep_their_executors(
    spark: Cluster, at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    with service(at, tmp_path, config(spark), SPARK, "--every=0.5") as running:
        writes = result_writes(client)
        applications = []
        for number in range(2):
            queue_records(client, 1000, prefix=f"r{number}-")
            await_true(lambda wanted=1000 * (number + 1): results(client) == wanted, "the results of a drain")
            applications.append(spark.applications()[0]["id"])
        assert applications[0] == applications[1]
        assert_all_served_once(client, writes, 2000)
        assert running.stop() == 0, running.log
        await_true(lambda: spark.applications() == [], "the end of the application")


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"worker_command": "/nowhere/worker"}, "/nowhere/worker"),
        ({"executor_memory": "100g", "start_s": 10}, "no worker came up within 10 s: has the cluster no executor free"),
    ],
)
def test_a_drain_whose_workers_do_not_come_up_says_why(
    spark: Cluster, at: RedisAt, client: redis.Redis, tmp_path: Path, section: dict[str, Any], said: str
) -> None:
    queue_records(client, 1000)
    with drain(at, tmp_path, config(spark, **section)) as running:
        assert running.process.wait(120) == 1, running.log
        assert said in running.log.splitlines()[-1]
        assert client.xlen("serving_stream") == 1000
        await_true(lambda: spark.applications() == [], "the end of the application")
