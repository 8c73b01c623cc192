"""A whole service for tests: the real command line in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import yaml

from beam_serving.telemetry.report import ready_key, working_reports
from beam_serving.transport.connection import RedisAt
from beam_serving.transport.keys import owner_key

DIGITS = Path(__file__).parents[1] / "beam_serving" / "demo"
START_S = 120.0
USUAL = ["image_stream", "serving_stream"]
"""The streams of clients that name none."""


def await_true(condition: Callable[[], object], what: str | Callable[[], str], within_s: float = 60.0) -> None:
    """Waits until a condition holds; fails with `what` was awaited, which may be asked then."""
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, f"{what() if callable(what) else what}: not within {within_s} s"
        time.sleep(0.01)


class Service:
    """A running service, its configuration and what it says."""

    def __init__(self, at: RedisAt, folder: Path, config: dict[str, Any], *arguments: str) -> None:
        self.name: str = config.get("name", "tested")
        self.client = at.client()
        self.log_path = folder / "service.log"
        merged = {"name": self.name, "model": {"path": "noop"}, "data": {}, "params": {}, **config}
        merged["data"] = {"src": str(at), "streams": USUAL, **merged["data"]}
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(merged), encoding="utf-8")
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "beam_serving", "--config", str(path), *arguments], stderr=log
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def ready(self) -> dict[str, Any] | None:
        about: Any = self.client.get(ready_key(self.name))
        return json.loads(about) if about else None

    def await_ready(self) -> None:
        await_true(lambda: self.process.poll() is not None or self.ready(), "ready", START_S)
        assert self.process.poll() is None, self.log

    def worker_pids(self) -> list[int]:
        return [report.pid for report in working_reports(self.client, self.name)]

    def stop(self) -> int:
        """Asks it to stop and gives its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def service(at: RedisAt, folder: Path, config: dict[str, Any], *arguments: str) -> Iterator[Service]:
    """Starts a service, waits until it is ready, and leaves nothing of it behind."""
    running = Service(at, folder, config, *arguments)
    try:
        running.await_ready()
        yield running
    finally:
        ended = running.process.poll() is not None
        running.process.terminate()
        pids = [] if ended else running.worker_pids()
        for pid in pids:
            _signal(pid, signal.SIGCONT)
        try:
            running.process.wait(60)
        except subprocess.TimeoutExpired:
            running.process.kill()
            for pid in pids:
                _signal(pid, signal.SIGKILL)
            raise


def _signal(pid: int, signum: signal.Signals) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return


def say_it_is_read(client: redis.Redis, stream: str = "serving_stream") -> None:
    """Lets a stream look as if a service read it, so that who queues there is not warned."""
    client.xgroup_create(stream, "serving", mkstream=True)
    client.set(owner_key(stream, "serving"), "tested")


def result_writes(client: redis.Redis) -> int:
    """Counts the HSET commands that the server ran since it started, those inside scripts included."""
    stats: Any = client.info("commandstats")
    return int(stats.get("cmdstat_hset", {"calls": 0})["calls"])
