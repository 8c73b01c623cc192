"""Serving on a Flink cluster: submits the job, says when it serves and what it does, and may go away without it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import RedisError

from beam_serving.config.redis_at import redis_at
from beam_serving.errors import ConfigError
from beam_serving.io.readers import Readers
from beam_serving.launch.deployed import Deployed
from beam_serving.launch.flink.job_server import flink_server
from beam_serving.launch.flink.options import CLUSTER_FLAG, cluster_flags, jar_of, java_for, submits_uber_jar
from beam_serving.launch.flink.rest import FlinkJob, FlinkRest, job_name
from beam_serving.launch.flink.task_assignment import names_for_tasks
from beam_serving.launch.handover import Handover
from beam_serving.launch.portable.driver import submit
from beam_serving.launch.portable.jar import FLINK, find_or_build
from beam_serving.launch.portable.java_errors import raise_cause, telling_line
from beam_serving.launch.portable.job_server import JobServer
from beam_serving.launch.preflight import preflight
from beam_serving.launch.runner import ClusterError, Spec
from beam_serving.launch.start import planned_steps
from beam_serving.launch.stop import stop_on_signals
from beam_serving.launch.systemd import tell_ready
from beam_serving.launch.worker import Job, new_deployment
from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.report import FRESH_S, LIFETIME_S, Deployment, Report, read_reports
from beam_serving.telemetry.statistics_line import StatisticsLine
from beam_serving.telemetry.stats import State

_log = logging.getLogger(__name__)
_TICK_S = 0.25
_CALM_TICK_S = 1.0
_LOST_AFTER_S = 30.0
_CACHED_S = 10.0
"""For how long a cluster may answer with what it knew before; the default of its `web.refresh-interval` is 3 s."""
_TAKEN_S = 120.0
"""A job is a file of 160 MB, which a busy cluster takes its time for; that it is refused is told at once."""


class ClusterService:
    """A service as a job on a cluster. The job outlives this object; losing it altogether, it is submitted again."""

    def __init__(self, spec: Spec, at: str, parallelism: int) -> None:
        settings = spec.settings
        self._settings = settings
        self._rest = FlinkRest(at)
        self._at = at
        self._parallelism = parallelism
        self._spec = spec
        self._stop = service_context().stop
        self._name = job_name(settings.name)
        self._deployment = new_deployment(settings.model.path).id
        before = Deployed(settings, {CLUSTER_FLAG.name: at}) if spec.replace else None
        self._handover = Handover(settings, Deployment(self._deployment), before)
        self._client: redis.Redis = redis_at(settings).client()
        self._statistics = StatisticsLine(settings.data.streams, settings.data.group)
        self._ready = False
        self._was_ready = False
        self._reported = ""
        self._warned = False

    def run(self) -> int:
        """Submit the job and follow it until it ends, or until SIGTERM or SIGINT, which leave it running.

        Raises:
            BeamServingError: it cannot start, or ended for a reason that the operator must fix.
        """
        preflight(self._settings)
        self._handover.look()
        self._check_cluster()
        with stop_on_signals():
            return self._serve()

    def _serve(self) -> int:
        job = self._submit()
        while True:
            ended = self._follow(job)
            if ended is not None:
                _log.info(
                    "state %s: %s",
                    "DONE" if ended == 0 else "FAILED",
                    self._statistics.total(self._reports(LIFETIME_S)),
                )
                return ended
            if self._stop.is_set():
                _log.info(
                    "the job %s stays on the cluster: `python -m beam_serving stop` ends it, `status` shows it",
                    self._name,
                )
                return 0
            _log.error("the cluster does not know the job any more: submitting it again")
            self._was_ready = self._ready = False
            if not self._await_slots():
                _log.info("ending without a job on the cluster; what is queued stays in Redis")
                return 0
            job = self._submit()

    def _check_cluster(self) -> None:
        for job in self._rest.jobs(self._name):
            if not job.over and not self._spec.replace:
                raise ConfigError(
                    f"{self._name} runs already at {self._rest.url} (job {job.job_id}, {job.state}); end it with "
                    "`python -m beam_serving stop`, or give this service another name"
                )
        total, free = self._rest.slots()
        if free < self._parallelism and not self._handover.pending:
            raise ConfigError(
                f"{self._parallelism} parallel tasks are wanted, and the cluster at {self._rest.url} has {free} of its "
                f"{total} slots free; start task managers there or lower flink: parallelism"
            )

    def _await_slots(self) -> bool:
        """Wait for a cluster that was started anew, until it has place for all of the job, or for some after a while.

        Gives False when we shall go instead.
        """
        enough_after = time.monotonic() + self._settings.flink.start_s
        reported = False
        while not self._stop.is_set():
            try:
                free = self._rest.slots()[1]
            except ClusterError as err:
                _log.debug("%s", err)
                free = 0
            if free >= self._parallelism or (free > 0 and time.monotonic() > enough_after):
                return True
            if not reported:
                _log.warning("the cluster has %d of %d slots free: waiting for more", free, self._parallelism)
            reported = True
            self._stop.wait(_CALM_TICK_S)
        return False

    def _submit(self) -> FlinkJob:
        names = names_for_tasks(self._deployment, self._parallelism)
        serving = planned_steps(self._settings, Readers(names, self._spec.drain, names_are_shared=True))
        if self._handover.pending and self._rest.slots()[1] < self._parallelism:
            self._handover.complete_first()
            self._await_slots()
        spec = self._spec
        log = spec.log._replace(file="")  # it is of this host
        job = Job(
            self._settings.model_dump_json(),
            self._deployment,
            (),
            (),
            spec.drain,
            log,
            self._parallelism,
        )
        rest, flink = self._rest, self._settings.flink
        flags = cluster_flags(
            self._name, self._parallelism, rest.slots_each(), rest.version(), flink, job.encode().decode().strip()
        )
        flags += self._spec.arguments
        jar = find_or_build(FLINK, jar_of(self._spec.arguments, flink))
        if submits_uber_jar(self._spec.arguments, flink):
            uber = ["--flink_submit_uber_jar", f"--flink_job_server_jar={jar}", f"--flink_master={self._at}"]
            return self._submitted(serving, [*flags, *uber])
        with flink_server(java_for(self._spec.arguments, flink), jar, self._at) as server:
            server.await_start(flink.start_s)
            try:
                return self._submitted(serving, [*flags, f"--job_endpoint={server.endpoint}"], server)
            except ClusterError as err:
                raise ClusterError(f"{err}; the job server said: {server.log_tail()}") from err

    def _submitted(self, serving: Any, flags: list[str], server: JobServer | None = None) -> FlinkJob:
        """Hand the pipeline over and wait until the cluster has it."""
        known = {job.job_id for job in self._rest.jobs(self._name)}
        result = submit(serving, self._settings, flags, server)
        give_up_at = time.monotonic() + _TAKEN_S
        while time.monotonic() < give_up_at:
            for job in self._rest.jobs(self._name):
                if job.job_id not in known:
                    _log.info("submitted to %s as job %s", self._rest.url, job.job_id)
                    return job
            if str(result.state) == "FAILED":
                raise ClusterError(f"the cluster at {self._rest.url} refused the job")
            time.sleep(_TICK_S)
        raise ClusterError(f"the cluster at {self._rest.url} did not take the job within {_TAKEN_S:g} s")

    def _follow(self, job: FlinkJob) -> int | None:
        """Watch a job; return the exit code when it has ended, None when it is gone or we shall go."""
        params = self._settings.params
        started = time.monotonic()
        next_statistics = started + params.statistics_s
        unreachable = False
        seen_at = started
        while not self._stop.is_set():
            self._stop.wait(_CALM_TICK_S if self._ready else _TICK_S)
            reports = self._reports()
            self._say_whether_ready(reports)
            try:
                known = [one for one in self._rest.jobs() if one.job_id == job.job_id]
                cause = self._rest.cause(job.job_id) if known else ""
                unreachable = False
            except ClusterError as err:
                if not unreachable:
                    _log.warning("%s", err)
                unreachable = True
                continue
            if not known:
                # A job manager that was started again knows its jobs only a moment later.
                if time.monotonic() - seen_at > _LOST_AFTER_S:
                    return None
                continue
            seen_at = time.monotonic()
            if known[0].over:
                return self._ended(known[0])
            if not self._was_ready:
                self._give_up_if_hopeless(job, cause, bool(reports), time.monotonic() - started)
            elif cause and cause != self._reported:
                _log.warning("the job starts again: %s", telling_line(cause))
            self._reported = cause
            if self._ready and time.monotonic() >= next_statistics:
                next_statistics = time.monotonic() + params.statistics_s
                self._statistics.log(self._client, reports)
        return None

    def _ended(self, job: FlinkJob) -> int:
        if job.state == "FINISHED":
            return 0
        if job.state == "CANCELED":
            raise ClusterError(f"the job {self._name} was canceled on the cluster")
        give_up_at = time.monotonic() + _CACHED_S
        while not (cause := self._rest.cause_of_end(job.job_id)) and time.monotonic() < give_up_at:
            time.sleep(_TICK_S)
        raise_cause(cause)
        why = telling_line(cause) or "the job manager's log says why"
        raise ClusterError(f"the job {self._name} ended as {job.state}: {why}")

    def _give_up_if_hopeless(self, job: FlinkJob, cause: str, anyone: bool, for_s: float) -> None:
        """End a job that never served: what failed at the start fails at each start."""
        start_s = self._settings.flink.start_s
        if not cause and not anyone and for_s > start_s / 2 and not self._warned:
            self._warned = True
            _log.warning("no worker came up yet: the task managers' logs say why; giving up in %.0f s", start_s - for_s)
        if not cause and (anyone or for_s < start_s):
            return
        self._rest.cancel(job.job_id)
        raise_cause(cause)
        if cause:
            raise ClusterError(f"the job {self._name} cannot start: {telling_line(cause)}")
        raise ClusterError(
            f"the job {self._name} cannot start: no worker came up within {for_s:.0f} s; see the task managers' logs"
        )

    def _reports(self, within_s: float = FRESH_S) -> list[Report]:
        try:
            return read_reports(self._client, self._settings.name, self._deployment, within_s)
        except RedisError as err:
            _log.debug("cannot read the workers' numbers: %s", err)
            return []

    def _say_whether_ready(self, reports: Sequence[Report]) -> None:
        serving = [report for report in reports if report.states == [State.SERVING]]
        ready = len(serving) >= self._parallelism
        if ready and not self._ready:
            settings, hosts = self._settings, sorted({report.host for report in serving})
            _log.info(
                "ready: serving %s (engine %s) from Redis at %s, streams %s, batch size %d, %d workers on %s",
                settings.model.path,
                serving[0].engine,
                redis_at(settings),
                ", ".join(settings.data.streams),
                serving[0].batch_size,
                len(serving),
                ", ".join(hosts),
            )
            tell_ready()
            self._handover.complete()
        elif self._ready and not ready:
            _log.warning("not ready: %d of %d workers serve", len(serving), self._parallelism)
        self._ready = ready
        self._was_ready = self._was_ready or ready
