"""The targets: each is started once, idles while others are measured, and works when it is asked to."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from beam_serving.cli.service import running_service
from beam_serving.config.schema import Settings
from beam_serving.errors import BeamServingError
from beam_serving.launch.deployed import Deployed
from beam_serving.launch.worker import python_module
from beam_serving.telemetry.report import read_reports
from beam_serving.transport.connection import PASSWORD_VARIABLE, RedisAt
from benchmarks import plain_loop, redis_loop
from benchmarks.load import Destination, Load
from benchmarks.processes import cpu_s, descendants, memory_bytes, program_environment
from benchmarks.workloads import Workload

FIRST_BACKLOG = 256

Job = tuple[str, dict[str, Any]]
"""A program: its module, and what it has to know, as its only argument."""


@dataclass(frozen=True)
class Shape:
    """How the machine is used: `workers` processes of the service, each with one engine thread.

    `records` are those of each measurement at full load; as many as take its time where unset.
    """

    workers: int
    batch_size: int
    records: int | None = None


@dataclass(frozen=True)
class Burst:
    """Records served at full load, in what time and at what cost; `redis_cpu_s` is 0 where there is no Redis.

    `start_s` is the part of that time until the first record was taken, where something had to start for it.
    """

    records: int
    elapsed_s: float
    cpu_s: float
    redis_cpu_s: float
    memory_bytes: int
    start_s: float = 0.0


class Target(Protocol):
    """One way to serve a workload."""

    name: str

    def burst(self, seconds: float) -> Burst:
        """Serve at full load for about this long."""
        ...

    def closed_loop(self, in_flight: int, seconds: float) -> list[float]:
        """Return the latency in seconds of each record while `in_flight` records are kept going."""
        ...


class PlainLoop:
    """One or more processes that serve from their own memory."""

    def __init__(self, name: str, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self.name = name
        self._processes = processes
        self._pids = [process.pid for process in processes]

    def burst(self, seconds: float) -> Burst:
        """See `Target`."""
        cpu_before_s = cpu_s(self._pids)
        answers = self._ask([{"seconds": seconds}] * len(self._processes))
        used_s = cpu_s(self._pids) - cpu_before_s
        records = sum(answer["records"] for answer in answers)
        # Each ends with its own last batch: their rates add up, their times do not.
        rate = sum(answer["records"] / answer["seconds"] for answer in answers)
        return Burst(records, records / rate, used_s, 0.0, memory_bytes(self._pids))

    def closed_loop(self, in_flight: int, seconds: float) -> list[float]:
        """See `Target`."""
        share, rest = divmod(in_flight, len(self._processes))
        shares = [share + (index < rest) for index in range(len(self._processes))]
        answers = self._ask([{"seconds": seconds, "in_flight": own} for own in shares if own])
        return [latency_s for answer in answers for latency_s in answer["latencies_s"]]

    def _ask(self, orders: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        asked = list(zip(self._processes, orders, strict=False))
        for process, order in asked:
            assert process.stdin is not None
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        return [_answer(process) for process, _ in asked]


class Queued:
    """Worker processes behind a Redis stream, which serve batches of `batch_size`.

    `others` are processes that belong to them and do not serve.
    """

    def __init__(self, name: str, load: Load, shape: Shape, workers: Sequence[int], others: Sequence[int] = ()) -> None:
        self.name = name
        self._records = shape.records
        # The plain loops serve whole batches only: with less for one worker at the end, queues would look slower.
        self._whole = shape.batch_size * len(workers)
        self._load = load
        self._workers = list(workers)
        self._all = [*workers, *others]
        self._rate = 0.0

    def burst(self, seconds: float) -> Burst:
        """Queue what takes about this long at the rate of the last time and see it drained; see `Target`."""
        records = self._records or -(-max(FIRST_BACKLOG, int(self._rate * seconds)) // self._whole) * self._whole
        last = self._load.fill(records)
        started = time.perf_counter()
        cpu_before_s, redis_before_s = cpu_s(self._all), self._load.redis_cpu_s()
        self._load.await_drained(last)
        elapsed_s = time.perf_counter() - started
        used_s, redis_used_s = cpu_s(self._all) - cpu_before_s, self._load.redis_cpu_s() - redis_before_s
        self._load.clear(records)
        self._rate = records / elapsed_s
        return Burst(records, elapsed_s, used_s, redis_used_s, memory_bytes(self._workers))

    def closed_loop(self, in_flight: int, seconds: float) -> list[float]:
        """See `Target`."""
        return self._load.closed_loop(in_flight, seconds)


@contextmanager
def targets(workload: Workload, shape: Shape, port: int, folder: Path) -> Iterator[list[Target]]:
    """Start all targets and yield them when every one is ready.

    Raises:
        BeamServingError: one ended before it was ready.
    """
    job = job_of(workload, shape, folder)
    with ExitStack() as stack:
        loops = stack.enter_context(programs(loop_jobs(job, shape)))
        yield [
            PlainLoop("loop", loops[:1]),
            PlainLoop("loops", loops[1:]),
            stack.enter_context(_redis_loop(workload, shape, port, job)),
            stack.enter_context(service(workload, shape, port, folder)),
        ]


def job_of(workload: Workload, shape: Shape, folder: Path) -> dict[str, Any]:
    """Write the payloads into the folder; return what a program has to know but for its threads."""
    payloads = folder / "payloads"
    payloads.mkdir()
    for index, payload in enumerate(workload.payloads):
        (payloads / f"{index:03}").write_bytes(payload)
    return {"model": workload.model, "top_n": workload.top_n, "batch_size": shape.batch_size, "payloads": str(payloads)}


def loop_jobs(job: dict[str, Any], shape: Shape) -> list[Job]:
    """Return the program of `loop`, then those of `loops`."""
    return [(plain_loop.__name__, job | {"threads": threads}) for threads in (shape.workers, *[1] * shape.workers)]


@contextmanager
def _redis_loop(workload: Workload, shape: Shape, port: int, job: dict[str, Any]) -> Iterator[Queued]:
    stream = f"redis_loop-{workload.name}"
    load = Load(Destination(port, stream, redis_loop.GROUP, workload.requests, announces=False))
    load.make_group()
    more = {"threads": 1, "port": port, "stream": stream}
    jobs = [(redis_loop.__name__, job | more | {"consumer": f"c{n}"}) for n in range(shape.workers)]
    with programs(jobs) as processes:
        yield Queued("redis_loop", load, shape, [process.pid for process in processes])
    load.close()


@contextmanager
def service(workload: Workload, shape: Shape, port: int, folder: Path, runner: str | None = None) -> Iterator[Queued]:
    """Run the service until the body ends, and yield it when it is ready.

    Raises:
        BeamServingError: it ended before it was ready.
    """
    target = runner or "service"
    stream = f"service-{workload.name}-{target}"
    cluster = runner if runner and ":" in runner else None
    arguments = ["--log-level", "warning", f"--runner={'FlinkRunner' if cluster else runner or 'DirectRunner'}"]
    name = f"bench-{uuid.uuid4().hex[:8]}"
    # The workers of a cluster do not have our environment.
    password = folder / "redis-password"
    password.write_text(os.environ.get(PASSWORD_VARIABLE, ""), encoding="ascii")
    config = {
        "name": name,
        "redis": {"password_file": str(password)},
        "model": {"path": workload.model},
        "data": {"src": f"127.0.0.1:{port}", "streams": [stream], **workload.data},
        "params": {"batch_size": shape.batch_size, "top_n": workload.top_n, "workers": shape.workers},
        "flink": {"rest": cluster},
    }
    at = RedisAt("127.0.0.1", port)
    load = Load(Destination(port, stream, "serving", workload.requests, announces=True))
    with running_service(config, folder, at, arguments) as process, at.reachable() as client:
        workers = [report.pid for report in read_reports(client, name)]
        others = {process.pid, *descendants(process.pid)} - {*workers}
        yield Queued(target, load, shape, workers, [*others])
        if cluster:
            Deployed(Settings.model_validate(config), {}).stop(client)
    load.close()


@contextmanager
def programs(jobs: Sequence[Job]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run one process per job until the body ends; each says with a line of JSON that it is ready.

    Raises:
        BeamServingError: one ended before that.
    """
    processes = [
        subprocess.Popen(
            [*python_module(module), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=program_environment(),
        )
        for module, job in jobs
    ]
    try:
        for process in processes:
            _answer(process)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _answer(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise BeamServingError(f"a loop to compare with ended with exit code {process.wait()}; its message is above")
    answer: dict[str, Any] = json.loads(line)
    return answer
