"""What the tests do with a service in a container: start it, ask it, look at what is left of its queue."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine import DOCKER, Engine

from beam_serving.client import InputQueue, OutputQueue
from beam_serving.transport.connection import RedisAt

SCRIPT = str(DOCKER / "docker-run.sh")
IMAGE, NAME = "beam-serving:latest", "beam-serving"
DEMO = DOCKER.parent / "beam_serving" / "demo"
IMAGES = sorted((DEMO / "images").glob("*.png"))
RIGHT = {image.stem: image.stem for image in IMAGES}
STREAM = "serving_stream"
_STREAMS, _GROUP = ("image_stream", STREAM), "serving"
_START_S = 120.0


def await_true(condition: Callable[[], object], what: str, within_s: float = _START_S) -> None:
    """Wait until a condition holds; fails with `what` was awaited."""
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, f"{what}: not within {within_s} s"
        time.sleep(0.05)


class Running:
    """A container in the foreground of a command, by default of docker-run.sh."""

    def __init__(self, engine: Engine, folder: Path, command: Sequence[str] = (SCRIPT,)) -> None:
        self.engine = engine
        self._log = folder / "container.log"
        self.process = engine.started(command, self._log, folder)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def await_log(self, words: str) -> None:
        await_true(lambda: words in self.log or self.process.poll() is not None, words)
        assert words in self.log, self.log

    def inside(self, *command: str) -> str:
        """Return what a command prints that runs in the container."""
        return self.engine.run("exec", NAME, *command)

    def healthy(self) -> bool:
        """Run the image's health check."""
        return self.engine.code("healthcheck", "run", NAME) == 0

    def stop(self) -> int:
        """End it as `docker stop` does; return the exit code of the container."""
        self.engine.run("stop", NAME)
        return self.process.wait(60)


@contextmanager
def running(engine: Engine, folder: Path, *command: str) -> Iterator[Running]:
    """Run docker-run.sh, or another command, in a directory and leave no container behind."""
    started = Running(engine, folder, command) if command else Running(engine, folder)
    try:
        yield started
    finally:
        engine.run("rm", "--force", "--ignore", NAME)
        started.process.wait(60)


def serve_digits(folder: Path, at: RedisAt) -> None:
    """Make a directory as users have it, config.yaml and model/, that the container's user may read."""
    shutil.copytree(DEMO / "model", folder / "model")
    text = (DOCKER / "config.yaml").read_text(encoding="utf-8")
    (folder / "config.yaml").write_text(text.replace("redis:6379", str(at)), encoding="utf-8")


LISTENERS = """
import json
from pathlib import Path
from beam_serving.launch.portable.sockets import listeners_of
found = []
for path in Path("/proc").glob("[0-9]*"):
    try:
        found += listeners_of(int(path.name))
    except PermissionError:
        assert path.name == "1", path  # the container's init
print(json.dumps([[one.address, one.on_this_machine_only] for one in found]))
"""
"""A program for the inside of a container: prints where its processes listen, and whether other machines reach it."""


def digits(at: RedisAt) -> dict[str, str]:
    """Send the demo's images and return the best class of each, by the name of its file."""
    with InputQueue(at.host, at.port, stream=STREAM) as queue, OutputQueue(at.host, at.port, stream=STREAM) as results:
        for image in IMAGES:
            queue.enqueue_image(image.stem, image)
        replies: dict[str, Any] = dict(results.query_many([image.stem for image in IMAGES], timeout_s=60, delete=True))
    return {
        name: f"digit_{next(iter(reply))}" if isinstance(reply, dict) else str(reply) for name, reply in replies.items()
    }


def answered(at: RedisAt) -> int:
    """Count the results that nobody has fetched."""
    client: Any = at.client()
    found = sum(1 for _ in client.scan_iter(f"cluster-serving_{STREAM}:*", count=1000))
    client.close()
    return found


def backlog(at: RedisAt) -> tuple[int, int]:
    """Return how many entries are queued, and how many of them are delivered and not acknowledged."""
    client: Any = at.client()
    groups = [group for stream in _STREAMS for group in client.xinfo_groups(stream) if group["name"] == _GROUP.encode()]
    queued = sum(client.xlen(stream) for stream in _STREAMS)
    client.close()
    return queued, sum(group["pending"] for group in groups)
