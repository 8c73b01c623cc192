"""Serving on the Flink inside a job server, with the real command line: what local serving promises, this does too."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis

from beam_serving.client import InputQueue, OutputQueue
from beam_serving.telemetry.report import read_reports
from beam_serving.transport.connection import RedisAt
from tests.processes import descendants
from tests.service import Service, await_true, result_writes, service
from tests.test_faults import assert_all_served_once, queue_records, results

FLINK = "--runner=FlinkRunner"
RECORDS = 6_000
pytestmark = [pytest.mark.usefixtures("job_server_jar"), pytest.mark.timeout(600)]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"


def test_each_record_is_served_once_by_all_workers_and_a_stop_leaves_nothing(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    with service(at, tmp_path, {"params": {"batch_size": 8, "workers": 3}}, FLINK) as running:
        about = running.ready()
        assert about is not None
        assert about["workers"] == 3
        writes = result_writes(client)
        queue_records(client, RECORDS)
        assert_all_served_once(client, writes, RECORDS)
        # A name for each worker, and Flink gave each worker one reader.
        names: list[Any] = client.xinfo_consumers("serving_stream", "serving")  # type: ignore[assignment]
        readers = Counter(consumer["name"].rsplit(b"-", 2)[0] for consumer in names)
        assert sum(readers.values()) == 3
        assert len(set(running.worker_pids())) == 3
        processes = descendants(running.process.pid)
        queue_records(client, RECORDS, prefix="later")
        assert running.stop() == 0
        left = client.xlen("serving_stream")
        assert results(client) == 2 * RECORDS - left
        assert client.xpending("serving_stream", "serving")["pending"] == 0
        assert client.exists("beam-serving:tested:ready") == 0
        assert not [pid for pid in processes if alive(pid)]
        told = ("[service]", "top_n: auto: results are whole tensors")
        lines = [line for line in running.log.splitlines() if not any(part in line for part in told)]
        assert lines == []


def test_a_killed_worker_is_replaced_and_loses_nothing(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    config = {"params": {"batch_size": 8, "workers": 2, "reclaim_idle_s": 1.0}}
    with service(at, tmp_path, config, FLINK) as running:
        writes = result_writes(client)
        queue_records(client)
        await_true(lambda: client.xlen("serving_stream") < 9_000, "some records served")
        victim = running.worker_pids()[0]
        os.kill(victim, signal.SIGKILL)
        assert_all_served_once(client, writes)
        assert "the driver died (exit code 3): starting it again" in running.log
        running.await_ready()
        assert victim not in running.worker_pids()


def test_serving_goes_on_over_checkpoints_of_the_source(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    config = {"params": {"workers": 1, "checkpoint_interval_s": 0.5, "poll_s": 0.1}}
    with service(at, tmp_path, config, FLINK) as running:
        writes = result_writes(client)

        def checkpoints() -> int:
            return sum(report.counts["checkpoints"] for report in read_reports(client, "tested"))

        for number in range(5):
            queue_records(client, 1000, prefix=f"r{number}-")
            await_true(lambda: client.xlen("serving_stream") == 0, "an empty stream")
            await_true(lambda least=number + 1: checkpoints() >= least, "a checkpoint")
        assert_all_served_once(client, writes, 5000)
        assert checkpoints() > 3
        # Each bundle reads under a name of its own, and takes it away again.
        assert len(client.xinfo_consumers("serving_stream", "serving")) == 1  # type: ignore[arg-type]
        assert running.stop() == 0


def test_a_drain_serves_what_is_queued_and_ends_done(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    writes = result_writes(client)
    queue_records(client, RECORDS)
    running = Service(at, tmp_path, {"params": {"batch_size": 64, "workers": 2}}, FLINK, "--drain")
    assert running.process.wait(90) == 0
    assert_all_served_once(client, writes, RECORDS)
    assert f"state DONE: {RECORDS} records served, 0 of them with an error" in running.log


@pytest.mark.parametrize("victim", ["supervisor", "driver"])
def test_nothing_outlives_what_started_it(at: RedisAt, client: redis.Redis, tmp_path: Path, victim: str) -> None:
    with service(at, tmp_path, {"params": {"workers": 1}}, FLINK) as running:
        processes = descendants(running.process.pid)
        (driver,) = [pid for pid in processes if b"flink.driver" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if victim == "supervisor":
            running.process.kill()
        else:
            os.kill(driver, signal.SIGKILL)
        await_true(lambda: not any(alive(pid) for pid in processes), "an end of all processes")


def test_values_from_beside_the_file_reach_the_workers(
    at: RedisAt, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEAM_SERVING__DATA__STREAMS", "of-the-environment")
    with (
        service(at, tmp_path, {"data": {"streams": "of-the-file"}}, FLINK, "--set", "params.workers=1"),
        InputQueue(at.url(), stream="of-the-environment") as queue,
        OutputQueue(at.url(), stream="of-the-environment") as answers,
    ):
        queue.enqueue("a", [1.0, 2.0])
        assert answers.query("a", timeout_s=30) is not None
        assert len(read_reports(client, "tested")) == 1
