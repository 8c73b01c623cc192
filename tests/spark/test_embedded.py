"""Draining by the Spark inside a job server, with the real command line."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from beam_serving.telemetry.report import LIFETIME_S, read_reports
from beam_serving.transport.connection import RedisAt
from tests.flink.test_embedded import alive
from tests.processes import descendants
from tests.service import Service, await_true, result_writes, service
from tests.spark.drains import SPARK, await_left, await_readers, drain
from tests.test_faults import assert_all_served_once, queue_records, results

RECORDS = 30_000
DIED = "the driver died (exit code 3): starting it again"
pytestmark = [pytest.mark.usefixtures("job_server_jar"), pytest.mark.timeout(600)]


def config(batch_size: int = 8, **section: object) -> dict[str, Any]:
    return {"params": {"batch_size": batch_size, "reclaim_idle_s": 2.0}, "spark": {"master": "local[2]", **section}}


def processes_of(running: Service, kind: str) -> list[int]:
    """Gives the processes of a service whose command line has this word."""
    found = []
    for pid in descendants(running.process.pid):
        try:
            if kind.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def test_a_drain_serves_what_is_queued_by_all_workers_and_ends_done(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    writes = result_writes(client)
    queue_records(client, RECORDS)
    with drain(at, tmp_path, config()) as running:
        await_readers(client, running, 2)
        processes = descendants(running.process.pid)
        assert running.process.wait(120) == 0, running.log
        assert_all_served_once(client, writes, RECORDS)
        assert f"state DONE: {RECORDS} records served, 0 of them with an error" in running.log
        assert len({report.pid for report in read_reports(client, running.name, within_s=LIFETIME_S)}) == 2
        assert not [pid for pid in processes if alive(pid)]
        assert client.xinfo_consumers("serving_stream", "serving") == []
        told = ("[service]", "[spark]", "top_n: auto: results are whole tensors")
        assert [line for line in running.log.splitlines() if not any(part in line for part in told)] == []


def test_a_killed_worker_and_a_killed_job_server_lose_nothing_in_a_drain(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    records = 10_000
    writes = result_writes(client)
    with drain(at, tmp_path, config()) as running:
        for number, kind in enumerate(("sdk_worker", "spark-job-server")):
            queue_records(client, records, prefix=f"r{number}-")
            await_left(client, running, client.xlen("serving_stream") - 1000)
            os.kill(processes_of(running, kind)[0], signal.SIGKILL)
            await_true(lambda wanted=number + 1: running.log.count(DIED) == wanted, f"a word on the {kind}")
        assert running.process.wait(180) == 0, running.log
        assert_all_served_once(client, writes, 2 * records)


def test_a_drain_in_every_interval_is_a_service_and_stops_as_one(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    with service(at, tmp_path, config(batch_size=64), SPARK, "--every=0.5") as running:
        about = running.ready()
        assert about is not None
        assert about["workers"] == 2
        writes = result_writes(client)
        queue_records(client, 1000)
        assert_all_served_once(client, writes, 1000)
        (server,) = processes_of(running, "spark-job-server")
        await_true(lambda: client.xinfo_consumers("serving_stream", "serving") == [], "the end of the drain")
        queue_records(client, 1000, prefix="later")
        await_true(lambda: results(client) == 2000, "the results of a second drain")
        assert processes_of(running, "spark-job-server") == [server]
        processes = descendants(running.process.pid)
        assert running.stop() == 0, running.log
        assert not [pid for pid in processes if alive(pid)]
    assert "state DONE: 2000 records served" in running.log
    assert "died" not in running.log


@pytest.mark.long
def test_the_next_drain_serves_what_a_killed_one_left(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    records = 30_000
    writes = result_writes(client)
    queue_records(client, records)
    with drain(at, tmp_path, config()) as first:
        await_left(client, first, 0.7 * records)
        processes = descendants(first.process.pid)
        first.process.kill()
        await_true(lambda: not any(alive(pid) for pid in processes), "an end of all processes")
        left = client.xlen("serving_stream")
        assert left > 0
        started = time.monotonic()
        with drain(at, tmp_path, config()) as second:
            assert second.process.wait(180) == 0, second.log
            print(f"\n| the command | {records} | next drain after {time.monotonic() - started:.1f} s, {left} left |")
            assert_all_served_once(client, writes, records)
