"""What drivers share: a job from standard input, a pipeline given to a job server, the wait for its end.

A driver reads its job as a worker of the local runner does. SIGTERM and SIGINT end reading in all workers; with its
last reader the job ends by itself, and the driver exits with 0.
"""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from beam_serving.config.schema import Settings
from beam_serving.errors import BeamServingError
from beam_serving.launch.own_pipeline import build_pipeline
from beam_serving.launch.portable.java_errors import raise_cause
from beam_serving.launch.portable.job_server import JobServer
from beam_serving.launch.portable.processes import tell_of_thread
from beam_serving.launch.stop import Ending, stop_on_signals
from beam_serving.launch.worker import Job, exit_code
from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.logs import configure_logging
from beam_serving.telemetry.stats import State

_log = logging.getLogger(__name__)
_EXIT_JOB_FAILED = 3
_TICK_S = 0.1
_LAST_BREATH_S = 1.0
_INCOMPLETE_S = 4.0
ENDED = "DONE"


class Workers(Protocol):
    """The workers of a job, wherever they are."""

    def dead(self) -> bool:
        """Return whether one ended badly of which we would not hear otherwise."""
        ...

    def stop_reading(self) -> None:
        """Ask all to finish what is in flight and to read no more."""
        ...

    def incomplete(self) -> bool:
        """Return whether it is known that one has ended, without which the job does not end by itself."""
        ...


@dataclass
class Outcome:
    """How a job ended and what was said about it."""

    state: str
    reported: str = ""


def main(name: str, run: Callable[[Settings, Job], Outcome]) -> int:
    """Run one job under a name for the log; what ended it for good is reported to the supervisor."""
    ending = Ending()
    job = Job.decode(sys.stdin.readline())
    configure_logging(job.log, name)
    logging.getLogger().addFilter(_not_from_java)
    threading.excepthook = tell_of_thread
    with stop_on_signals(), _folder_of(ending):
        try:
            settings = Settings.model_validate_json(job.settings)
            ending.grace_s = settings.params.grace_s
            return _exit_code(run(settings, job))
        except BeamServingError as err:
            return exit_code(err, ending)


@contextmanager
def _folder_of(ending: Ending) -> Iterator[None]:
    """Keep what is temporary in a folder that goes with this process, also where it ends at once."""
    with tempfile.TemporaryDirectory(prefix="beam-serving-driver-", ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        ending.farewell = lambda: shutil.rmtree(folder, ignore_errors=True)
        yield


def _exit_code(outcome: Outcome) -> int:
    _log.debug("pipeline state %s", outcome.state)
    if outcome.state == ENDED or (outcome.state == "CANCELLED" and service_context().stop.is_set()):
        return 0
    raise_cause(outcome.reported)
    _log.error("the job ended: %s", outcome.reported)
    return _EXIT_JOB_FAILED


class JobServerDiedError(BeamServingError):
    """The job server ended before it had the job."""


def submit(serving: Any, settings: Settings, flags: list[str], server: JobServer | None = None) -> Any:
    """Give the pipeline to the job server that the flags name; return Beam's result object.

    Beam itself waits a minute and longer for the answer of a server that is dead.

    Args:
        serving: the steps.
        settings: of the service.
        flags: of Beam.
        server: that of the flags, where it is a process of ours.

    Raises:
        JobServerDiedError: it ended meanwhile.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    pipeline = beam.Pipeline(options=PipelineOptions(flags))
    build_pipeline(pipeline, serving, settings)
    submission: Future[Any] = Future()

    def run() -> None:
        try:
            submission.set_result(pipeline.run())
        except BaseException as err:  # noqa: BLE001 - it is raised to who waits
            submission.set_exception(err)

    # Not of a pool, whose threads the end of the process would wait for.
    threading.Thread(target=run, name="submission", daemon=True).start()
    while not futures.wait([submission], _TICK_S).done:
        if server is not None and not server.alive():
            raise JobServerDiedError(f"the job server died: {server.log_tail()}")
    return submission.result()


def run_job(serving: Any, settings: Settings, flags: list[str], server: JobServer, workers: Workers) -> Outcome:
    """Give the pipeline to a job server and wait for the job's end.

    A stop is passed on to the workers and, should the job not end by that, cancels it.

    Args:
        serving: the steps.
        settings: of the service.
        flags: of Beam.
        server: that of the flags.
        workers: that the job uses.
    """
    try:
        result = submit(serving, settings, flags, server)
    except JobServerDiedError as err:
        return Outcome("FAILED", str(err))
    return _watch(result, server, workers, settings.params.grace_s)


def _watch(result: Any, server: JobServer, workers: Workers, grace_s: float) -> Outcome:
    reported: list[str] = []

    def wait() -> None:
        try:
            result.wait_until_finish()
        except Exception as err:  # noqa: BLE001 - Beam gives whatever Java said
            reported.append(str(err))

    waiting = threading.Thread(target=wait, name="job", daemon=True)
    waiting.start()
    context = service_context()
    context.stats.state = State.SERVING
    stop = context.stop
    stopped_at = incomplete_at = float("inf")
    cancelled = False
    while waiting.is_alive():
        waiting.join(_TICK_S)
        # What ends the wait with an error may be the server's death, of which we then hear a moment later.
        if not server.alive(_LAST_BREATH_S if reported else 0.0):
            return Outcome("FAILED", f"the job server died: {server.log_tail()}")
        if workers.dead() and not stop.is_set():
            return Outcome("FAILED", "a worker process died")
        if not stop.is_set():
            continue
        now = time.monotonic()
        if stopped_at > now:
            stopped_at = now
            workers.stop_reading()
        if incomplete_at > now and workers.incomplete():
            # One that had not begun ended at once, and without it the job does not end: the others get some seconds.
            incomplete_at = now
        if not cancelled and now > min(stopped_at + grace_s / 2, incomplete_at + _INCOMPLETE_S):
            cancelled = True
            _log.warning("the job did not end in %.0f s: cancelling it", now - stopped_at)
            result.cancel()
    return Outcome(str(result.state), "".join(reported)[-4000:])


def _not_from_java(record: logging.LogRecord) -> bool:
    """Keep what Beam passes on from Java, whole stack traces, off the operator's screen."""
    return record.name.startswith("beam_serving")
