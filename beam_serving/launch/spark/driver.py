"""The driver of drains on Spark: starts the job server, then drains the queue, once or in every interval.

`python -m beam_serving.launch.spark.driver` reads its job from standard input; see
`beam_serving.launch.portable.driver`. The job server is resident: only the first drain waits for Java.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import redis
from redis.exceptions import RedisError

from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.errors import BeamServingError
from beam_serving.io.group import Group
from beam_serving.io.ownership import Ownership
from beam_serving.io.readers import Readers
from beam_serving.launch.portable.driver import ENDED, Outcome, Workers, main, run_job
from beam_serving.launch.portable.jar import SPARK, find_or_build
from beam_serving.launch.portable.java_errors import raise_cause
from beam_serving.launch.portable.job_server import JobServer
from beam_serving.launch.portable.options import process_environment
from beam_serving.launch.portable.processes import started_workers
from beam_serving.launch.spark.options import Master, command, flags, jar_of, master_of
from beam_serving.launch.start import with_batch_size
from beam_serving.launch.worker import Job
from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.report import LIFETIME_S, ask_to_stop, read_reports
from beam_serving.telemetry.reporter import Reporter
from beam_serving.telemetry.stats import State

_log = logging.getLogger(__name__)
_TICK_S = 0.1
_DRIVER = "-driver"


class Drains:
    """The drains of one job on one job server."""

    def __init__(self, settings: Settings, job: Job, master: Master, server: JobServer) -> None:
        self._settings = settings
        self._job = job
        self._master = master
        self._server = server
        self._client: redis.Redis = redis_at(settings).client()
        self._drain_number = 0
        self._readers = Readers([job.deployment] * master.readers, drain=True, names_are_shared=True, bounded=True)
        self._prepared = False
        self._context = service_context()

    def run(self) -> Outcome:
        """Drain once, or in every interval until a stop."""
        outcome = Outcome(ENDED)
        next_at = time.monotonic()
        while outcome.state == ENDED and not self._context.stop.is_set():
            # Workers load Beam while Java starts, and between drains.
            with self._workers() as (workers, environment):
                self._prepare()
                if not self._await_turn(next_at, workers):
                    break
                next_at = time.monotonic() + (self._job.every_s or 0)
                outcome = self._drain(workers, environment)
            if self._job.every_s is None:
                self._give_up_if_hopeless(outcome, workers)
                break
        return outcome

    def _prepare(self) -> None:
        """Check the model and wait for the job server, the first time."""
        if self._prepared:
            return
        self._settings = with_batch_size(self._settings)
        self._server.await_start(self._settings.spark.start_s)
        self._context.stats.state = State.SERVING
        self._prepared = True

    def _drain(self, workers: Workers, environment: list[str]) -> Outcome:
        own = flags(f"beam-serving-{self._settings.name}", self._master, self._server.endpoint, environment)
        from beam_serving.pipeline import steps

        # Beam ties steps to the pipeline that they were applied to, so each drain has its own.
        serving = steps(self._settings, self._readers)
        return run_job(serving, self._settings, [*own, *self._job.arguments], self._server, workers)

    def _give_up_if_hopeless(self, outcome: Outcome, workers: Workers) -> None:
        """End a drain that no worker came up for: what failed at the start fails at each start."""
        if outcome.state != ENDED and isinstance(workers, _OnCluster) and not workers.arrived():
            raise_cause(outcome.reported)
            # The job server has the whole trace, of which Beam passes on the innermost cause.
            raise BeamServingError(f"no worker came up: {self._server.log_tail()}")

    def _await_turn(self, at: float, workers: Workers) -> bool:
        """Wait for the next drain, which nothing queued puts off; say whether there is one."""
        if self._job.every_s is None:
            return not self._context.stop.is_set()
        while not self._context.stop.wait(_TICK_S):
            if not self._server.alive() or workers.dead():
                return False
            if time.monotonic() >= at and self._anything_queued():
                return True
        return False

    def _anything_queued(self) -> bool:
        data = self._settings.data
        try:
            return any(Group(self._client, stream.encode(), data.group, b"").backlog()[0] for stream in data.streams)
        except RedisError as err:
            _log.debug("cannot ask for the backlog: %s", err)
            return False

    @contextmanager
    def _workers(self) -> Iterator[tuple[Workers, list[str]]]:
        """Yield the workers of one drain and the flags by which Spark finds them."""
        if not self._master.local:
            # The log file is of this host, and executors have their own.
            elsewhere = dataclasses.replace(self._job, log=self._job.log._replace(file=""))
            job = elsewhere.encode().decode().strip()
            workers = _OnCluster(self._client, self._settings, self._job)
            yield workers, process_environment(self._settings.spark.worker_command, job)
            return
        # Under names of their own, so that the last numbers of a drain are not those of the next one's workers.
        self._drain_number += 1
        names = tuple(f"{name}-{self._drain_number}" for name in self._job.consumers)
        with started_workers(dataclasses.replace(self._job, consumers=names)) as processes:
            from beam_serving.launch.portable.pool import WorkerPool, served

            pool = WorkerPool(processes)
            with served(pool) as address:
                yield pool, ["--environment_type=EXTERNAL", f"--environment_config={address}"]


class _OnCluster:
    """Workers that executors start: Spark sees to those that die, and a key in Redis stops them."""

    def __init__(self, client: redis.Redis, settings: Settings, job: Job) -> None:
        self._client = client
        self._settings = settings
        self._deployment = job.deployment
        self._give_up_at: float | None = None
        self._arrived = False

    def dead(self) -> bool:
        """Return False.

        Raises:
            BeamServingError: none has come up in time.
        """
        start_s = self._settings.spark.start_s
        self._give_up_at = self._give_up_at or time.monotonic() + start_s
        if not self._arrived and time.monotonic() > self._give_up_at and not self.arrived():
            spark = self._settings.spark
            raise BeamServingError(
                f"no worker came up within {start_s:g} s: has the cluster no executor free with {spark.executor_cores} "
                f"cores and {spark.executor_memory}? Its page and the logs of its workers say more"
            )
        return False

    def arrived(self) -> bool:
        """Return whether one has come up, in this drain or lately."""
        try:
            reports = read_reports(self._client, self._settings.name, self._deployment, LIFETIME_S)
        except RedisError as err:
            _log.debug("cannot read the workers' numbers: %s", err)
            return True
        self._arrived = self._arrived or any(not report.worker.endswith(_DRIVER) for report in reports)
        return self._arrived

    def incomplete(self) -> bool:
        """Return False: those that ended are Spark's to replace."""
        return False

    def stop_reading(self) -> None:
        """Ask for it in Redis, where workers look once a second."""
        try:
            ask_to_stop(self._client, self._settings.name, self._deployment)
        except RedisError as err:
            _log.warning("cannot ask the workers to stop: %s", err)


def run(settings: Settings, job: Job) -> Outcome:
    """Drain the queue of a job, by a Spark in this process's own job server or on a cluster.

    Raises:
        BeamServingError: it cannot start.
    """
    spark = settings.spark
    master = master_of(job.arguments, spark, len(job.consumers))
    jar = find_or_build(SPARK, jar_of(job.arguments, spark))
    with ExitStack() as stack:
        stays = job.every_s is not None
        if stays:
            # Between drains no worker says that the service is there: the driver does.
            about = (redis_at(settings), settings.name, job.deployment + _DRIVER, job.deployment)
            context = service_context()
            reporter = Reporter(*about, context.stats, context.stop.set, holding=Ownership(settings))
            stack.callback(reporter.close)
        server = JobServer(SPARK, lambda folder: command(job.arguments, spark, master, jar, folder, stays))
        stack.enter_context(server)
        return Drains(settings, job, master, server).run()


if __name__ == "__main__":
    sys.exit(main("spark", run))
