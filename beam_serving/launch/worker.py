"""One worker process: `python -m beam_serving.launch.worker` serves until told to stop.

Its job comes on standard input.
SIGTERM and SIGINT end reading; what is in flight is finished, and the process exits with 0.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.errors import BeamServingError, ConfigError
from beam_serving.io.ownership import Ownership
from beam_serving.launch.start import run_pipeline
from beam_serving.launch.stop import Ending, stop_on_signals
from beam_serving.launch.systemd import VARIABLE
from beam_serving.models.formats.registry import NOOP
from beam_serving.telemetry.busy import BusyFile
from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.logs import LogOptions, configure_logging
from beam_serving.telemetry.report import Deployment
from beam_serving.telemetry.reporter import Reporter
from beam_serving.telemetry.stats import State

EXIT_CONFIG = 2
EXIT_FAILED = 1
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 1024 * 1024),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Settings of glibc, which it reads when a process starts: freed arrays stay in the process, on large pages.

By default the pages of a batch go back to the kernel with it, and the next batch costs a fault for each of them: 250
for a photograph of 500x375 pixels. Without them a worker serves 7 % more of these (AMD EPYC, 2026-11-25).
"""


def python_module(name: str) -> list[str]:
    """Return the command that runs a module of ours, which imports nothing from the folder that it is started in."""
    return [sys.executable, "-P", "-m", name]


def worker_environment() -> dict[str, str]:
    """Return the environment to start a worker with; what the operator set in ours stays as it is.

    Nothing that it starts imports from its current directory either, and systemd hears of the service from us.
    """
    environment = {**ALLOCATOR, **os.environ, "PYTHONSAFEPATH": "1"}
    environment.pop(VARIABLE, None)
    if path := environment.get("PYTHONPATH"):
        # An empty entry is the current directory, and `PYTHONPATH=$PYTHONPATH:...` makes one.
        environment["PYTHONPATH"] = os.pathsep.join(entry for entry in path.split(os.pathsep) if entry)
    return environment


def new_deployment(model: str, config: str = "") -> Deployment:
    """Return what is started now, under a name that nothing else has or will have.

    Args:
        model: where the model is.
        config: a fingerprint of its configuration.
    """
    host = socket.gethostname()
    content = model if model == NOOP else ""
    return Deployment(f"{host}-{uuid.uuid4().hex[:8]}", host, time.time(), config, os.getpid(), model, content)


@dataclass(frozen=True)
class Job:
    """What a process is told: the settings, the names it reads and reports under, Beam's own arguments.

    `deployment` names what was started at one stroke. Where no supervisor needs to live, `announcing` tells the
    workers how many they are. With `every_s` a driver drains the queue in every interval. `busy` is where the
    workers of a machine see whether the others are idle, None where they need not know.
    """

    settings: str
    deployment: str
    consumers: tuple[str, ...]
    arguments: tuple[str, ...]
    drain: bool
    log: LogOptions
    announcing: int = 0
    every_s: float | None = None
    busy: BusyFile | None = None

    def encode(self) -> bytes:
        """Return the job as one line of JSON. No secret is in it: workers read theirs where they connect."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: str) -> Job:
        """Read what `encode` wrote."""
        body = json.loads(line)
        if not isinstance(body, dict):
            raise TypeError(f"a job is an object of JSON, got {type(body).__name__}")
        busy = None if body.get("busy") is None else BusyFile(*body["busy"])
        lists = {name: tuple(body[name]) for name in ("consumers", "arguments")}
        return cls(**{**body, **lists, "busy": busy, "log": LogOptions(*body["log"])})


@contextmanager
def serving_process(job: Job, ending: Ending) -> Iterator[Settings]:
    """Make this process the worker that carries the job's name: its log, signals, threads, and published numbers."""
    (name,) = job.consumers
    configure_logging(job.log, f"worker {name.rsplit('-', 1)[-1]}")
    with stop_on_signals() as stop:
        # Set before the engines load: one thread per worker, unless the operator said otherwise.
        settings = Settings.model_validate_json(job.settings)
        ending.grace_s = settings.params.grace_s
        os.environ.setdefault("OMP_NUM_THREADS", str(settings.model.openmp_threads))
        import cv2

        cv2.setNumThreads(1)
        stats = service_context().stats
        about = settings.about(job.announcing) if job.announcing else None
        holding = Ownership(settings)
        reporter = Reporter(redis_at(settings), settings.name, name, job.deployment, stats, stop.set, about, holding)
        ending.farewell = reporter.say_stopped
        try:
            yield settings
        finally:
            stats.state = State.STOPPED
            reporter.close()


def exit_code(err: BeamServingError, ending: Ending) -> int:
    """Report what ended this process for good to the supervisor, and return the exit code."""
    ending.report(str(err))
    return EXIT_CONFIG if isinstance(err, ConfigError) else EXIT_FAILED


def main() -> int:
    """Serve one job; what ended it for good is reported to the supervisor."""
    ending = Ending()
    job = Job.decode(sys.stdin.readline())
    with serving_process(job, ending) as settings:
        try:
            state = run_pipeline(settings, job.consumers, job.arguments, job.drain, job.busy)
            logging.getLogger(__name__).info("pipeline state %s", state)
        except BeamServingError as err:
            return exit_code(err, ending)
    return 0


if __name__ == "__main__":
    sys.exit(main())
