"""No process outlives the one that started it, whenever that is killed, on whatever runner; nothing is lost by it."""

import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from beam_serving.config.schema import Settings
from beam_serving.launch.portable.jar import FLINK, SPARK
from beam_serving.launch.worker import Job
from beam_serving.telemetry.logs import BY_DEFAULT
from beam_serving.transport.connection import RedisAt
from tests.jars import jar_of
from tests.processes import descendants
from tests.service import Service, await_true, result_writes
from tests.test_faults import TENSOR, results

MARK = "BEAM_SERVING_TEST_MARK"
GONE_S = 15.0
BATCH = 50
ARGUMENTS: dict[str, Sequence[str]] = {
    "DirectRunner": (),
    "FlinkRunner": ("--runner=FlinkRunner",),
    "SparkRunner": ("--runner=SparkRunner", "--every=1"),
}
CONFIG: dict[str, Any] = {
    "params": {"workers": 2, "batch_size": 8, "reclaim_idle_s": 2.0},
    "spark": {"master": "local[2]"},
}
LIFE_S = {"DirectRunner": 8.0, "FlinkRunner": 25.0, "SparkRunner": 20.0}


@pytest.fixture(scope="module")
def job_server_jar() -> None:
    """The real jars; on a new machine Maven builds them here, once."""
    for engine in (FLINK, SPARK):
        jar_of(engine)


def marked(mark: str) -> dict[int, str]:
    """Gives the living processes that were started with a mark in their environment, whoever is their parent now."""
    found = {}
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in environ.read_bytes():
                found[int(environ.parent.name)] = environ.with_name("cmdline").read_bytes().decode()
        except OSError:
            continue
    return found


@contextmanager
def mark_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Marks what is started in the body, and leaves none of it behind."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    try:
        yield mark
    finally:
        monkeypatch.delenv(MARK)
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)


def victims(running: Service, mark: str, wanted: str) -> list[int]:
    """Gives the supervisor; or the driver, or Java, where it is there."""
    words = {"driver": ".driver\0", "job server": "--job-port"}
    found = [pid for pid, command in marked(mark).items() if wanted in words and words[wanted] in command]
    return found[:1] or [running.process.pid]


def await_end(mark: str, pids: Sequence[int], when: str) -> None:
    def left() -> dict[int, str]:
        return {pid: command for pid, command in marked(mark).items() if pid in pids}

    await_true(lambda: not left(), lambda: f"{when}: the end of {left()}", GONE_S)


def kill_often(
    at: RedisAt, client: redis.Redis, folder: Path, runner: str, moments: Sequence[tuple[str, float]]
) -> None:
    """Starts services one after the other and kills one process of each, so many seconds after its start."""
    writes = result_writes(client)
    served = drivers = 0
    temporary = folder / "temporary"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TMPDIR", str(temporary))
        for number, (wanted, after_s) in enumerate(moments):
            with mark_of(environment) as mark:
                running = Service(at, folder, CONFIG, *ARGUMENTS[runner])
                pipeline = client.pipeline(transaction=False)
                for one in range(BATCH):
                    pipeline.xadd("serving_stream", {"uri": f"{number}-{one}", **TENSOR})
                pipeline.execute()
                served += BATCH
                # It lives on to the moment of its death; one that ends before would have failed by itself.
                with pytest.raises(subprocess.TimeoutExpired):
                    running.process.wait(after_s)
                (killed,) = victims(running, mark, wanted)
                pids = [killed, *descendants(killed)]
                who = "supervisor" if killed == running.process.pid else wanted
                what = f"{runner} {number}: {who} after {after_s:.2f} s"
                os.kill(killed, signal.SIGKILL)
                if killed != running.process.pid:
                    drivers += who == "driver"
                    await_end(mark, pids, what)
                    running.process.kill()
                running.process.wait()
                await_end(mark, [*marked(mark)], what)
                print(what, f"{results(client)} served", flush=True)
    # Who is killed by SIGKILL itself leaves its own folder, and nobody else does.
    assert len([*temporary.glob("beam-serving-driver-*")]) <= drivers, [*temporary.iterdir()]
    last = Service(at, folder, CONFIG, *ARGUMENTS[runner])
    try:
        await_true(lambda: results(client) == served, "a result for each record", 120)
        await_true(lambda: client.xlen("serving_stream") == 0, "an empty stream")
        assert result_writes(client) - writes == served
        assert client.xpending("serving_stream", "serving")["pending"] == 0
    finally:
        last.stop()


def moments(runner: str, count: int, seed: int) -> list[tuple[str, float]]:
    """Gives moments of a life, most of them in its start, and who is killed."""
    choice = random.Random(seed)  # noqa: S311 - moments, no secrets
    who = ["supervisor"] if runner == "DirectRunner" else ["supervisor", "supervisor", "driver", "job server"]
    return [(choice.choice(who), LIFE_S[runner] * choice.random() ** 1.5) for _ in range(count)]


def test_nothing_outlives_a_supervisor_that_is_killed_in_its_start(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    kill_often(at, client, tmp_path, "DirectRunner", [("supervisor", 0.6 * step) for step in range(1, 9)])


@pytest.mark.usefixtures("job_server_jar")
@pytest.mark.timeout(300)
def test_nothing_outlives_a_supervisor_driver_or_job_server_of_flink(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    who = [("supervisor", 1.5), ("supervisor", 3.0), ("driver", 5.0), ("job server", 8.0), ("supervisor", 15.0)]
    kill_often(at, client, tmp_path, "FlinkRunner", who)


@pytest.mark.long
@pytest.mark.usefixtures("job_server_jar")
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("runner", ARGUMENTS)
def test_two_hundred_kills_leave_no_process_and_lose_nothing(
    runner: str, at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    kill_often(at, client, tmp_path, runner, moments(runner, 200, seed=15))


OWNER = """\
import os, signal, subprocess, sys
process = subprocess.Popen([sys.executable, "-P", "-m", sys.argv[1]], stdin=subprocess.PIPE, start_new_session=True)
process.stdin.write(sys.argv[2].encode() + b"\\n")
process.stdin.flush()
print(process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("module", ["worker", "portable.sdk_worker", "flink.driver", "spark.driver"])
def test_a_process_whose_owner_died_before_its_first_instruction_ends(
    module: str, at: RedisAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.model_validate({"model": {"path": "noop"}, "data": {"src": str(at)}})
    job = Job(settings.model_dump_json(), "deployment", ("one",), (), False, BY_DEFAULT).encode().decode().strip()
    with mark_of(monkeypatch) as mark:
        owner = [sys.executable, "-c", OWNER, f"beam_serving.launch.{module}", job]
        subprocess.run(owner, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        await_true(lambda: not marked(mark), f"the end of {marked(mark)}", GONE_S)


def test_a_worker_without_an_owner_ends_in_time_although_redis_is_frozen(
    at: RedisAt, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: Any = client.info("server")
    params = {"workers": 2, "batch_size": 8, "grace_s": 4.0}
    with mark_of(monkeypatch) as mark:
        running = Service(at, tmp_path, {"params": params})
        running.await_ready()
        os.kill(server["process_id"], signal.SIGSTOP)
        try:
            running.process.kill()
            running.process.wait()
            await_true(lambda: not marked(mark), f"the end of {marked(mark)}", params["grace_s"] + 2)
        finally:
            os.kill(server["process_id"], signal.SIGCONT)
