"""The driver of an embedded Flink: starts the job server, submits the pipeline, starts the workers and waits.

`python -m beam_serving.flink.driver` reads its job from standard input, as a worker of the local runner does. SIGTERM
and SIGINT end reading in all workers; with its last reader the job ends by itself, and the driver exits with 0.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from beam_serving.config import Settings
from beam_serving.errors import BeamServingError
from beam_serving.flink.causes import raise_cause
from beam_serving.flink.jar import find_or_build
from beam_serving.flink.job_server import JobServer
from beam_serving.flink.options import embedded_flags, jar_of, java_of
from beam_serving.flink.processes import started_workers, tell_of_thread
from beam_serving.flink.spread import names_for_tasks
from beam_serving.io.stop import STOP
from beam_serving.launch import checked_steps, forget_model
from beam_serving.logs import configure_logging
from beam_serving.worker import Job, exit_code, stop_on_signals

if TYPE_CHECKING:
    from beam_serving.flink.pool import WorkerPool

_log = logging.getLogger(__name__)
_EXIT_JOB_FAILED = 3
_TICK_S = 0.1
_ENDED = ("DONE", "FAILED", "CANCELLED")


def main() -> int:
    """Runs one job; what ended it for good is the only thing written to standard output."""
    job = Job.decode(sys.stdin.readline())
    configure_logging(job.log_level, "flink")
    stop_on_signals()
    logging.getLogger().addFilter(_not_from_java)
    threading.excepthook = tell_of_thread
    settings = Settings.model_validate_json(job.settings)
    try:
        return run(settings, job)
    except BeamServingError as err:
        return exit_code(err)


def run(settings: Settings, job: Job) -> int:
    """Serves the job on a Flink inside this process's own job server; gives the exit code.

    Raises:
        BeamServingError: it cannot start, or ended for a reason that the operator must mend.
    """
    flink, parallelism = settings.flink, len(job.consumers)
    jar = find_or_build(jar_of(job.arguments, flink))
    with JobServer(java_of(job.arguments, flink), jar) as server, started_workers(job) as processes:
        # Beam and the model are loaded while Java and the workers start.
        from beam_serving.flink.pool import WorkerPool, served

        names = names_for_tasks(job.consumers[0], parallelism)
        serving = checked_steps(settings, names, job.drain, names_are_shared=True)
        forget_model()
        pool = WorkerPool(processes)
        with served(pool) as workers_at:
            server.await_start(flink.start_s)
            flags = [*embedded_flags(parallelism, workers_at, server.endpoint), *job.arguments]
            submitted = _submit(serving, flags)
            outcome = _watch(submitted, server, pool, settings.params.grace_s)
    _log.info("pipeline state %s", outcome.state)
    if outcome.state == "DONE" or (outcome.state == "CANCELLED" and STOP.is_set()):
        return 0
    raise_cause(outcome.said)
    _log.error("the job ended: %s", outcome.said)
    return _EXIT_JOB_FAILED


@dataclass
class Outcome:
    """How a job ended and what was said about it."""

    state: str
    said: str = ""


def _submit(serving: Any, flags: list[str]) -> Any:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_serving.pipeline import build

    pipeline = beam.Pipeline(options=PipelineOptions(flags))
    build(pipeline, serving)
    return pipeline.run()


def _watch(result: Any, server: JobServer, pool: WorkerPool, grace_s: float) -> Outcome:
    """Waits for the job's end; passes a stop on to the workers and, should the job not end by that, cancels it."""
    said: list[str] = []

    def wait() -> None:
        try:
            result.wait_until_finish()
        except Exception as err:  # noqa: BLE001 - Beam gives whatever Java said
            said.append(str(err))

    waiting = threading.Thread(target=wait, name="job", daemon=True)
    waiting.start()
    parent = os.getppid()
    cancel_at: float | None = None
    while waiting.is_alive():
        waiting.join(_TICK_S)
        if not server.alive():
            return Outcome("FAILED", f"the job server died: {server.last_words()}")
        if pool.dead() and not STOP.is_set():
            return Outcome("FAILED", "a worker process died")
        if os.getppid() != parent:
            _log.warning("the supervisor is gone: stopping")
            STOP.set()
        if STOP.is_set() and cancel_at is None:
            pool.stop_reading()
            cancel_at = time.monotonic() + grace_s / 2
        if cancel_at is not None and time.monotonic() > cancel_at:
            _log.warning("the job did not end in %g s: cancelling it", grace_s / 2)
            cancel_at = float("inf")
            result.cancel()
    return Outcome(str(result.state), "".join(said)[-4000:])


def _not_from_java(record: logging.LogRecord) -> bool:
    """Keeps what Beam passes on from Java, whole stack traces, off the operator's screen."""
    return record.name.startswith("beam_serving")


if __name__ == "__main__":
    sys.exit(main())
