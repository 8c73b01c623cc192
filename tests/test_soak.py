"""Ten minutes of steady load: memory stays flat. Behind `make test-long`."""

import time
from pathlib import Path
from typing import Any

import pytest
import redis

from beam_serving.transport.connection import RedisAt
from tests.service import Service, await_true, service
from tests.test_faults import TENSOR

MINUTES = 10
RECORDS_PER_S, AT_ONCE = 200, 10
GROWTH_LIMIT_BYTES = 40 * MINUTES * 60 * RECORDS_PER_S
"""Less than 40 bytes for each record: whoever keeps anything of a record keeps more than that."""


def memory_bytes(pid: int) -> int:
    """Reads the anonymous memory of a process, swapped out or not.

    Pages of files are left out: the kernel drops them as it likes, and that would hide as much growth.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Anonymous:", "Swap:")))


def feed(client: redis.Redis, seconds: float) -> int:
    """Queues records at a steady rate, and removes the results as a client would; gives how many it queued."""
    started = time.monotonic()

    def due() -> int:
        return int((time.monotonic() - started) * RECORDS_PER_S)

    queued = 0
    while queued < seconds * RECORDS_PER_S:
        await_true(lambda least=queued + AT_ONCE: due() >= least, "the time of the next records")
        pipeline = client.pipeline(transaction=False)
        for number in range(queued, due()):
            pipeline.xadd("serving_stream", {"uri": f"r{number}", **TENSOR})
            pipeline.delete(f"cluster-serving_serving_stream:r{number - 1000}")
            queued += 1
        pipeline.execute()
    return queued


@pytest.mark.long
@pytest.mark.timeout(MINUTES * 60 + 300)
def test_memory_is_flat_over_ten_minutes(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    with service(at, tmp_path, {"params": {"workers": 1, "checkpoint_interval_s": 60}}) as running:
        (worker,) = running.worker_pids()
        feed(client, 60)
        before = _memory(running, worker)
        queued = feed(client, MINUTES * 60)
        await_true(lambda: client.xlen("serving_stream") == 0, "an empty stream")
        growth = {who: after - before[who] for who, after in _memory(running, worker).items()}
    print(f"{queued} records, growth in bytes: {growth}")
    assert all(grown < GROWTH_LIMIT_BYTES for grown in growth.values()), growth


def _memory(running: Service, worker: int) -> dict[str, Any]:
    return {"worker": memory_bytes(worker), "supervisor": memory_bytes(running.process.pid)}
