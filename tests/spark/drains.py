"""A drain for tests: the real command line, of which nothing is left when the test ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from beam_serving.transport.connection import RedisAt
from tests.service import Service, await_true

SPARK = "--runner=SparkRunner"
START_S = 120.0


@contextmanager
def drain(at: RedisAt, folder: Path, config: dict[str, Any]) -> Iterator[Service]:
    """Starts a drain; the test waits for its end."""
    running = Service(at, folder, config, SPARK, "--drain")
    try:
        yield running
    finally:
        running.process.terminate()
        running.process.wait(60)


def await_left(client: redis.Redis, running: Service, left: float) -> None:
    """Waits until fewer records than this are queued."""
    await_true(lambda: client.xlen("serving_stream") < left or running.process.poll() is not None, "progress", START_S)
    assert running.process.poll() is None, running.log


def await_readers(client: redis.Redis, running: Service, count: int) -> None:
    """Waits until so many readers have taken up records."""

    def readers() -> int:
        groups: Any = client.xinfo_groups("serving_stream")
        return sum(group["consumers"] for group in groups)

    await_true(lambda: readers() == count or running.process.poll() is not None, f"{count} readers", START_S)
    assert running.process.poll() is None, running.log
