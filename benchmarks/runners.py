"""This service on each of several runners, as targets of each other."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from beam_serving.cli.service import running_service
from beam_serving.transport.connection import RedisAt
from benchmarks.load import Destination, Load
from benchmarks.processes import descendants, memory_bytes, tree_cpu_s
from benchmarks.targets import FIRST_BACKLOG, Burst, Shape, Target, service
from benchmarks.workloads import Workload

_DRAIN_EVERY_S = 0.1


@contextmanager
def runners(names: Sequence[str], workload: Workload, shape: Shape, port: int, folder: Path) -> Iterator[list[Target]]:
    """Start the service once for each runner, under the runner's name, and yield all when every one is ready.

    A name is Beam's own, or the address of a cluster of Flink (HOST:PORT) or Spark (spark://HOST:PORT).

    Raises:
        BeamServingError: one ended before it was ready.
    """
    with ExitStack() as stack:
        started: list[Target] = []
        for name in names:
            if on_spark(name):
                started.append(stack.enter_context(_drains(workload, shape, port, folder, name)))
            else:
                started.append(stack.enter_context(service(workload, shape, port, folder, name)))
        yield started


def on_spark(runner: str) -> bool:
    """Return whether a runner's name is one of Spark."""
    return runner == "SparkRunner" or runner.startswith("spark://")


class Drained:
    """A service on Spark, which drains the queue at intervals: the processes that serve live for one drain."""

    def __init__(self, name: str, load: Load, shape: Shape, pid: int) -> None:
        self.name = name
        self._load = load
        self._shape = shape
        self._pid = pid
        self._rate = 0.0

    def burst(self, seconds: float) -> Burst:
        """See `Queued.burst`; the time has the start of the drain in it."""
        records = self._shape.records or max(FIRST_BACKLOG, int(self._rate * seconds))
        cpu_before_s, redis_before_s = tree_cpu_s(self._pid), self._load.redis_cpu_s()
        last = self._load.fill(records)
        started = time.perf_counter()
        self._load.await_begun()
        begun_s = time.perf_counter() - started
        memory = memory_bytes([self._pid, *descendants(self._pid)])
        self._load.await_drained(last)
        elapsed_s = time.perf_counter() - started
        used_s, redis_used_s = tree_cpu_s(self._pid) - cpu_before_s, self._load.redis_cpu_s() - redis_before_s
        self._load.clear(records)
        self._rate = records / elapsed_s
        return Burst(records, elapsed_s, used_s, redis_used_s, memory, begun_s)

    def closed_loop(self, in_flight: int, seconds: float) -> list[float]:
        """See `Target`."""
        return self._load.closed_loop(in_flight, seconds)


@contextmanager
def _drains(workload: Workload, shape: Shape, port: int, folder: Path, runner: str) -> Iterator[Drained]:
    """Run the service on Spark until the body ends, and yield it when its job server is up.

    Raises:
        BeamServingError: it ended before that.
    """
    stream = f"service-{workload.name}-{runner.rpartition('/')[2]}"
    cluster = {"master": runner, "num_executors": shape.workers}
    config = {
        "name": f"bench-{uuid.uuid4().hex[:8]}",
        "model": {"path": workload.model},
        "data": {"src": f"127.0.0.1:{port}", "streams": [stream], **workload.data},
        "params": {"batch_size": shape.batch_size, "top_n": workload.top_n},
        "spark": cluster if "://" in runner else {"master": f"local[{shape.workers}]"},
    }
    load = Load(Destination(port, stream, "serving", workload.requests, announces=True))
    arguments = ["--log-level", "warning", "--runner=SparkRunner", f"--every={_DRAIN_EVERY_S}"]
    with running_service(config, folder, RedisAt("127.0.0.1", port), arguments) as process:
        yield Drained(runner, load, shape, process.pid)
    load.close()
