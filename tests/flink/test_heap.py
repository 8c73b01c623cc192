"""What 25,000 checkpoints of the source cost, at the default interval those of half a year. Behind `make test-long`."""

import re
import subprocess
import time
from pathlib import Path

import pytest
import redis

from beam_serving.telemetry.report import read_reports
from beam_serving.transport.connection import RedisAt
from tests.flink.test_embedded import FLINK
from tests.processes import descendants
from tests.service import await_true, service
from tests.test_faults import queue_records
from tests.test_soak import memory_bytes

CHECKPOINTS = 25_000
WARM_UP, EVERY = 10_000, 5_000
HEAP_PER_CHECKPOINT_BYTES = 3_000
WORKER_PER_CHECKPOINT_BYTES = 200
pytestmark = [pytest.mark.long, pytest.mark.usefixtures("job_server_jar"), pytest.mark.timeout(3600)]


def heap_bytes(java: int) -> int:
    """Gives what is left on the heap of a Java process after a full collection."""
    subprocess.run(["jcmd", str(java), "GC.run"], check=True, capture_output=True)
    histogram = subprocess.run(["jcmd", str(java), "GC.class_histogram"], check=True, capture_output=True, text=True)
    found = re.search(r"^Total\s+\d+\s+(\d+)", histogram.stdout, re.M)
    assert found, histogram.stdout[-500:]
    return int(found[1])


def test_heap_and_worker_stay_bounded_over_many_checkpoints(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    config = {"params": {"workers": 1, "checkpoint_interval_s": 0.001, "poll_s": 0.001}}
    with service(at, tmp_path, config, FLINK) as running:
        everyone = descendants(running.process.pid)
        (java,) = [pid for pid in everyone if b"job-server" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        (worker,) = running.worker_pids()

        def checkpoints() -> int:
            return sum(report.counts["checkpoints"] for report in read_reports(client, "tested"))

        def least_memory_until(number: int) -> int:
            """Waits for a checkpoint. Garbage comes and goes, by some 10 MB: what stays is the least there is."""
            seen = [memory_bytes(worker)]

            def there() -> bool:
                seen.append(memory_bytes(worker))
                return checkpoints() >= number

            await_true(there, f"{number} checkpoints", 1800)
            return min(seen)

        least_memory_until(WARM_UP)
        seen: list[tuple[int, int, int]] = []
        started = time.monotonic()
        for number in range(WARM_UP + EVERY, CHECKPOINTS + 1, EVERY):
            memory = least_memory_until(number)
            seen.append((checkpoints(), heap_bytes(java), memory))
            took_s = time.monotonic() - started
            print(f"\n{took_s:.0f} s: {seen[-1][0]} checkpoints, heap {seen[-1][1] / 1e6:.1f} MB", end="")
            print(f", worker {seen[-1][2] / 1e6:.1f} MB", end="", flush=True)
        queue_records(client, 1000)
        await_true(lambda: client.xlen("serving_stream") == 0, "an empty stream")
        (first, heap, memory), (last, heap_after, memory_after) = seen[0], seen[-1]
        assert (heap_after - heap) / (last - first) < HEAP_PER_CHECKPOINT_BYTES
        assert (memory_after - memory) / (last - first) < WORKER_PER_CHECKPOINT_BYTES
        assert running.stop() == 0
