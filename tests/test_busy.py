"""Which workers hold requests: bytes that processes share, and that tell nobody busy who holds nothing."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from beam_serving.client import InputQueue, OutputQueue
from beam_serving.config.schema import Model, Settings
from beam_serving.launch.supervisor import may_find_idle_cores
from beam_serving.launch.worker import Job
from beam_serving.models.cpu import available_cores
from beam_serving.telemetry.busy import BusyBytes, BusyFile, OwnByte
from beam_serving.telemetry.logs import BY_DEFAULT
from beam_serving.telemetry.report import working_reports
from beam_serving.transport.connection import RedisAt
from tests.models.onnx_files import FLOAT, node, saved
from tests.service import DIGITS, Service, await_true, service
from tests.test_faults import queue_records
from tests.test_operating import command
from tests.test_template import assert_served

TWO_WORKERS = {"model": {"path": str(DIGITS / "model")}, "params": {"workers": 2, "batch_size": 8}}
NEIGHBOUR = """
import sys
from beam_serving.telemetry.busy import BusyFile, OwnByte
byte = OwnByte.of(BusyFile(sys.argv[1], 1))
for line in sys.stdin:
    byte.set(line == "busy\\n")
    print(byte.others_idle(), flush=True)
"""


@pytest.fixture
def states() -> Iterator[BusyBytes]:
    opened = BusyBytes(2)
    yield opened
    opened.close()


def test_a_byte_that_one_process_sets_is_seen_by_another_and_stays_until_it_is_cleared(states: BusyBytes) -> None:
    own = OwnByte.of(states.file_of(0))
    neighbour = subprocess.Popen(
        [sys.executable, "-c", NEIGHBOUR, states.file_of(1).path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert neighbour.stdin
    assert neighbour.stdout
    with neighbour:
        seen = []
        for busy, said in ((True, b"busy\n"), (False, b"idle\n"), (False, b"busy\n")):
            own.set(busy)
            neighbour.stdin.write(said)
            neighbour.stdin.flush()
            seen.append((neighbour.stdout.readline(), own.others_idle(), states.busy()))
        assert seen == [(b"False\n", False, [0, 1]), (b"True\n", True, []), (b"True\n", False, [1])]
        neighbour.kill()
    assert not own.others_idle()
    states.clear(1)
    assert own.others_idle()


@pytest.mark.parametrize("file", [None, BusyFile("/proc/self/fd/none", 0)])
def test_who_cannot_see_its_neighbours_takes_them_for_busy(file: BusyFile | None) -> None:
    byte = OwnByte.of(file)
    for busy in (True, False):
        byte.set(busy)
        assert not byte.others_idle()


def test_where_the_bytes_are_travels_with_a_job(states: BusyBytes) -> None:
    job = Job("{}", "run", ("run-1",), (), False, BY_DEFAULT, busy=states.file_of(1))
    assert Job.decode(job.encode().decode()) == job
    assert Job.decode(Job("{}", "run", ("run-1",), (), False, BY_DEFAULT).encode().decode()).busy is None


def test_cores_of_idle_workers_are_for_those_that_may_have_them() -> None:
    auto = Settings(model=Model(path="m"))
    assert auto.model.threads == "auto"
    assert may_find_idle_cores(auto, 2, drain=False) == (available_cores() > 1)
    assert not may_find_idle_cores(auto, 1, drain=False)
    assert not may_find_idle_cores(auto, 2, drain=True)
    for threads in (0, 1, 2):
        assert not may_find_idle_cores(Settings(model=Model(path="m", threads=threads)), 2, drain=False)


class Bytes:
    """The bytes of a running service, which stay readable when it has ended."""

    def __init__(self, running: Service) -> None:
        folder = Path(f"/proc/{running.process.pid}/fd")
        (path, *_) = [one for one in folder.iterdir() if os.readlink(one).startswith("/memfd:beam-serving-busy")]
        self._file = path.open("rb", buffering=0)

    def read(self) -> list[int]:
        return list(os.pread(self._file.fileno(), 256, 0))


def served_alone(running: Service) -> int:
    return sum(report.counts["alone"] for report in working_reports(running.client, running.name))


def held(states: Bytes) -> bool:
    return any(states.read())


def test_one_request_at_a_time_is_inferred_on_all_cores_and_answered_as_any_other(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    tensor = np.random.default_rng(0).random((3, 32, 32), np.float32)
    several = available_cores() > 1
    with service(at, tmp_path, TWO_WORKERS) as running:
        with InputQueue(at.host, at.port) as queue, OutputQueue(at.host, at.port) as answers:
            states = Bytes(running) if several else None
            for number in range(16):
                queue.enqueue(f"r{number}", tensor)
                assert answers.query(f"r{number}", timeout_s=30) is not None
                # The result is there a moment before its worker holds nothing any more.
                await_true(lambda: states is None or not held(states), "idle workers", 10)
        await_true(lambda: served_alone(running) > 0 or not several, "a word of it", 10)
        counts = json.loads(command("status", tmp_path / "config.yaml", "--json").stdout)["counts"]
        # From the third in a row; whoever was first served two as any other.
        assert (0 < counts.get("alone", 0) < counts["served"]) == several
        values = {client.hget(f"cluster-serving_serving_stream:r{number}", "value") for number in range(16)}
        assert len(values) == 1


def test_whoever_holds_nothing_is_idle(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    times = node("MatMul", "x w", "y")
    model = saved(tmp_path / "model", [times], [("x", FLOAT, ("N", "W"))], [("y", FLOAT, ("N", 4))], {"w": np.eye(4)})
    config = {"model": {"path": str(model), "sample": "4"}, "params": {"workers": 2, "batch_size": 8, "grace_s": 10.0}}
    with service(at, tmp_path, config) as running:
        states = Bytes(running)
        assert states.read() == [0, 0]
        ends = {}
        with InputQueue(at.host, at.port) as queue, OutputQueue(at.host, at.port) as answers:
            for uri, shape in (("served", (4,)), ("refused", (2, 2)), ("failed", (3,))):
                queue.enqueue(uri, np.ones(shape, np.float32))
                ends |= answers.query_many([uri], timeout_s=30)
                await_true(lambda: not held(states), "its end", 10)
        assert str(ends["refused"]).startswith("request 'refused': input 'x' has shape [2, 2]")
        assert str(ends["failed"]).startswith("the model failed on float32[1, 3]: ")
        client.xadd("serving_stream", {"no": "uri"})
        await_true(lambda: client.xlen("serving_stream:dead") == 1 and not held(states), "an end as a dead letter", 10)
        queue_records(client, 5000)
        await_true(lambda: held(states), "workers that serve", 10)
        assert running.stop() == 0
        assert not held(states)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]


def stop_while_it_holds_requests(pid: int, states: Bytes, client: redis.Redis) -> None:
    """Stops the first worker of a service, with work for it on the way."""
    for turn in range(1000):
        queue_records(client, 1000, prefix=f"turn{turn}-")
        os.kill(pid, signal.SIGSTOP)
        await_true(lambda: state_of(pid) == "T", "its stop", 10)
        if states.read()[0]:
            return
        os.kill(pid, signal.SIGCONT)
    raise AssertionError("it never held requests")


def is_all_of_one_worker(client: redis.Redis) -> bool:
    """Says whether whatever is left in the stream, if anything, was delivered to the same worker."""
    pending = client.xpending("serving_stream", "serving")
    return len(pending["consumers"]) <= 1 and pending["pending"] == client.xlen("serving_stream")


def test_a_worker_that_died_is_idle_before_its_successor_is(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    with service(at, tmp_path, {"params": {"workers": 2, "batch_size": 64}}) as running:
        states = Bytes(running)
        stopped, other = running.worker_pids()
        stop_while_it_holds_requests(stopped, states, client)
        await_true(
            lambda: is_all_of_one_worker(client) and states.read() == [1, 0], "the other to have served the rest", 60
        )
        os.kill(stopped, signal.SIGKILL)
        await_true(lambda: "died (signal SIGKILL)" in running.log, "a word of its death", 10)
        assert states.read() == [0, 0]
        assert other in running.worker_pids()
        await_true(lambda: client.xlen("serving_stream") == 0, "what the dead one held")
        await_true(lambda: not held(states), "its end", 10)


@pytest.mark.parametrize("config", [{"model": {"path": "noop", "threads": 1}}, {"params": {"workers": 1}}])
def test_where_threads_are_said_or_nobody_is_beside_no_bytes_are_shared(
    at: RedisAt, client: redis.Redis, tmp_path: Path, config: dict[str, Any]
) -> None:
    with service(at, tmp_path, {"params": {"workers": 2}, **config}) as running:
        with pytest.raises(ValueError, match="not enough values"):
            Bytes(running)
        for number in range(8):
            assert_served(client, f"r{number}")
        assert served_alone(running) == 0
