"""Serving on a real Flink cluster of two task managers: start, status, stop, and what happens without the driver."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from beam_serving.transport.connection import RedisAt
from tests.flink.cluster import Cluster, cluster
from tests.processes import assert_for_its_user_alone
from tests.service import Service, await_true, result_writes
from tests.test_faults import assert_all_served_once, queue_records, results

RECORDS = 10_000
FLINK = "--runner=FlinkRunner"
JOB = "beam-serving-tested"
pytestmark = [pytest.mark.usefixtures("job_server_jar"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def config(flink: Cluster, **section: object) -> dict[str, Any]:
    return {
        "params": {"batch_size": 8, "workers": 2, "reclaim_idle_s": 2.0, "checkpoint_interval_s": 5.0},
        "flink": {"rest": flink.address, **section},
    }


def command(name: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "beam_serving", name, "--config", str(folder / "config.yaml"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_job_serves_outlives_its_driver_and_is_stopped_and_started_again(
    flink: Cluster, at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    service = Service(at, tmp_path, config(flink), FLINK)
    service.await_ready()
    # Beam's ports for the workers are open while these work.
    assert_for_its_user_alone(flink.process.pid, least=16)
    writes = result_writes(client)
    queue_records(client, RECORDS)
    assert_all_served_once(client, writes, RECORDS)
    names: list[Any] = client.xinfo_consumers("serving_stream", "serving")  # type: ignore[assignment]
    readers = Counter(consumer["name"].rsplit(b"-", 1)[0] for consumer in names)
    assert len(readers) == 2
    assert len(set(service.worker_pids())) == 2

    # The driver goes, the job stays and serves.
    assert service.stop() == 0
    assert f"the job {JOB} stays on the cluster" in service.log
    (job,) = flink.rest.jobs(JOB)
    assert job.state == "RUNNING"
    queue_records(client, RECORDS, prefix="later")
    await_true(lambda: results(client) == 2 * RECORDS, "the results of a job without a driver")
    asked = command("status", tmp_path, "--json")
    about = json.loads(asked.stdout)
    assert asked.returncode == 0, asked.stderr
    assert (about["ready"], len(about["workers"]), about["flink"]["state"]) == (True, 2, "RUNNING")
    await_true(
        lambda: json.loads(command("status", tmp_path, "--json").stdout)["counts"]["served"] == 2 * RECORDS, "all"
    )
    await_true(
        lambda: flink.rest.counters(job.job_id).get("results_written", 0) >= 2 * RECORDS,
        "the pipeline's counters in Flink",
    )
    # A second one of the name is refused.
    second = Service(at, tmp_path, config(flink), FLINK)
    assert second.process.wait(60) == 2
    assert f"error: {JOB} runs already" in second.log

    queue_records(client, RECORDS, prefix="last")
    stopped = command("stop", tmp_path)
    assert (stopped.returncode, stopped.stdout) == (0, "tested: stopped\n"), stopped.stderr
    assert {job.state for job in flink.rest.jobs(JOB)} == {"FINISHED"}
    assert client.xpending("serving_stream", "serving")["pending"] == 0
    assert results(client) + client.xlen("serving_stream") == 3 * RECORDS
    assert command("stop", tmp_path).returncode == 1
    assert command("status", tmp_path).returncode == 1

    # Started again, as one jar this time, it serves what was left.
    again = Service(at, tmp_path, config(flink, uber_jar=True), FLINK)
    again.await_ready()
    await_true(lambda: results(client) == 3 * RECORDS, "the results of what was left")
    assert client.xpending("serving_stream", "serving")["pending"] == 0

    # Somebody ends it in Flink's own way.
    flink.rest.cancel(flink.rest.jobs(JOB)[0].job_id)
    assert again.process.wait(60) == 1
    assert again.log.splitlines()[-1] == f"error: the job {JOB} was canceled on the cluster"


def test_a_drain_ends_by_itself(flink: Cluster, at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    writes = result_writes(client)
    queue_records(client, RECORDS)
    running = Service(at, tmp_path, config(flink), FLINK, "--drain")
    assert running.process.wait(120) == 0, running.log
    assert_all_served_once(client, writes, RECORDS)
    assert f"state DONE: {RECORDS} records served" in running.log


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"worker_command": "/nowhere/worker"}, "/nowhere/worker"),
        ({"worker_command": "/bin/false"}, "cannot start: Process died with exit code 1"),
        ({"worker_pool": "127.0.0.1:1"}, "cannot start"),
    ],
)
def test_a_job_whose_workers_do_not_come_up_says_why_and_is_ended(
    flink: Cluster, at: RedisAt, tmp_path: Path, section: dict[str, str], said: str
) -> None:
    running = Service(at, tmp_path, config(flink, **section), FLINK)
    assert running.process.wait(60) == 1, running.log
    assert said in running.log.splitlines()[-1]
    await_true(lambda: all(job.over for job in flink.rest.jobs(JOB)), "the end of the job")


def test_more_tasks_than_slots_are_refused(flink: Cluster, at: RedisAt, tmp_path: Path) -> None:
    running = Service(at, tmp_path, config(flink, parallelism=3), FLINK)
    assert running.process.wait(60) == 2
    assert "3 parallel tasks are wanted" in running.log
    assert "2 of its 2 slots free" in running.log


@pytest.mark.parametrize("parallelism", [1, 2])
def test_a_restart_serves_before_it_ends_the_old_job_where_there_are_slots_for_both(
    parallelism: int, flink: Cluster, at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    first = Service(at, tmp_path, config(flink, parallelism=parallelism), FLINK)
    first.await_ready()
    (old,) = [job.job_id for job in flink.rest.jobs(JOB) if not job.over]
    queue_records(client, RECORDS)
    said = command("restart", tmp_path, FLINK, "--detach")
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[-1] == "tested: what ran before has ended"
    (new,) = [job.job_id for job in flink.rest.jobs(JOB) if not job.over]
    assert new != old
    # Its driver goes with its job.
    assert first.process.wait(60) == 0, first.log
    queue_records(client, RECORDS, prefix="later")
    await_true(lambda: results(client) == 2 * RECORDS, "all results")
    log = (tmp_path / "tested.log").read_text(encoding="utf-8")
    assert ("there is no room for both" in log) == (parallelism == 2)
    assert command("stop", tmp_path).returncode == 0


def test_workers_come_from_a_pool_beside_the_task_managers(
    flink: Cluster, at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    log_path, own, secret = tmp_path / "pool.log", tmp_path / "pool.yaml", tmp_path / "secret"
    secret.write_text("a secret that nobody guesses", encoding="utf-8")
    settings = {"name": "tested", "model": {"path": "noop"}, "data": {"src": str(at)}}
    settings["flink"] = {"worker_pool_secret_file": "secret"}
    own.write_text(json.dumps(settings), encoding="utf-8")
    start = ["worker-pool", "--config", str(own), "--listen", "127.0.0.1:0"]
    with log_path.open("wb") as log:
        pool = subprocess.Popen([sys.executable, "-m", "beam_serving", *start], stderr=log)
    try:
        await_true(lambda: "asked for at" in log_path.read_text(encoding="utf-8"), "a pool", 30)
        address = log_path.read_text(encoding="utf-8").split("asked for at ")[1].split()[0]
        service = Service(at, tmp_path, config(flink, worker_pool=address, worker_pool_secret_file=str(secret)), FLINK)
        service.await_ready()
        writes = result_writes(client)
        queue_records(client, RECORDS)
        assert_all_served_once(client, writes, RECORDS)
        assert service.stop() == 0
        assert command("stop", tmp_path).returncode == 0
    finally:
        pool.send_signal(signal.SIGTERM)
        assert pool.wait(30) == 0
