"""A service that runs, wherever that is: looked at and stopped by its name, through Redis and its cluster."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import redis
from redis.exceptions import NoPermissionError

from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.errors import BeamServingError
from beam_serving.io.dead_letters import count_dead_letters
from beam_serving.io.outbox import outbox_records
from beam_serving.io.results import measure_results, memory_of, read_state
from beam_serving.launch.runner import ClusterError, Jobs, Plain, Runner, all_runners
from beam_serving.telemetry.report import (
    Report,
    ask_to_stop,
    readiness,
    retract,
    supervised_deployments,
    working_reports,
)
from beam_serving.telemetry.stats import STAGES
from beam_serving.transport.routes import Cluster

_TICK_S = 0.2


@dataclass(frozen=True)
class Living:
    """What goes on under the name of a service.

    Attributes:
        processes: of each deployment, how many: workers, and the supervisor, which may just have none.
        jobs: of clusters, each with its id.
    """

    processes: Mapping[str, int]
    jobs: tuple[tuple[Jobs, str], ...] = ()

    @property
    def count(self) -> int:
        """How many processes and jobs these are."""
        return sum(self.processes.values()) + len(self.jobs)

    def still(self, now: Living) -> Living:
        """Return what of these goes on.

        Args:
            now: all that goes on.
        """
        active = {job_id for _, job_id in now.jobs}
        return Living(
            {deployment: count for deployment, count in now.processes.items() if deployment in self.processes},
            tuple(job for job in self.jobs if job[1] in active),
        )

    def __str__(self) -> str:
        processes = sum(self.processes.values())
        parts = [(processes, "process" if processes == 1 else "processes"), (len(self.jobs), "job")]
        return " and ".join(f"{count} {what}" for count, what in parts if count)


class Deployed:
    """The service of a configuration.

    Args:
        settings: its configuration.
        clusters: where the clusters of runners are, by the flag that says it; the settings say it for the others.
        runners: those whose clusters are asked, all of them by default.
    """

    def __init__(
        self, settings: Settings, clusters: Mapping[str, str | None], runners: Sequence[Runner] | None = None
    ) -> None:
        self._settings = settings
        found = {
            one.key: one.jobs(settings, clusters.get(one.cluster_flag.name) if one.cluster_flag else None)
            for one in (all_runners() if runners is None else runners)
        }
        self.jobs: dict[str, Jobs] = {key: jobs for key, jobs in found.items() if jobs is not None}

    def status(self) -> dict[str, Plain]:
        """Return what there is to know as plain values.

        Raises:
            BeamServingError: Redis does not answer, or a cluster while the counters of a job are read.
        """
        settings = self._settings
        at = redis_at(settings)
        with at.reachable() as client:
            reports = working_reports(client, settings.name)
            state = readiness(client, settings.name)
            memory = _memory(client)
            results = _results(client, settings, isinstance(at.route, Cluster))
            streams = {stream: _stream(client, stream, settings.data.group) for stream in settings.data.streams}
        total = reduce(add, reports, Report())
        return {
            "name": settings.name,
            "ready": state.ready,
            "reason": state.reason or None,
            "model": settings.model.path,
            "engine": total.engine,
            "batch_size": total.batch_size,
            "redis": str(at),
            "records_per_s": total.records_per_s,
            "counts": {"served": 0, "errors": 0, **total.counts},
            "stages_ms": {
                stage: {"p50": 1000 * histogram.quantile(0.5), "p99": 1000 * histogram.quantile(0.99)}
                for stage, histogram in ((stage, total.stages[stage]) for stage in STAGES)
                if histogram.counts
            },
            "workers": [_worker(report) for report in reports],
            "streams": streams,
            "memory": memory,
            "results": results,
            **{key: jobs.status() for key, jobs in self.jobs.items()},
        }

    def stop(self, client: redis.Redis, on_progress: Callable[[int], None] = lambda _: None) -> bool:
        """Ask all workers to end and wait for it; a job that goes on after `grace_s` is cancelled.

        Args:
            client: of the service's Redis.
            on_progress: called with the number of workers and jobs that go on, first before anything is asked.

        Returns:
            Whether there was anything to stop.

        Raises:
            BeamServingError: workers go on after twice `grace_s`, or there are none and a cluster does not answer.
        """
        living = self.living(client)
        if not living.count:
            return False
        # What is started meanwhile is stopped as well.
        while living.count:
            self.end(client, living, on_progress)
            living = self.living(client)
        return True

    def living(self, client: redis.Redis) -> Living:
        """Return what goes on under the name now.

        Args:
            client: of the service's Redis.

        Raises:
            ClusterError: a cluster does not answer, and there are no processes.
        """
        name = self._settings.name
        processes = Counter(report.deployment for report in working_reports(client, name))
        processes += Counter(one.id for one in supervised_deployments(client, name) if not one.is_dead())
        try:
            jobs = tuple((jobs, job_id) for jobs in self.jobs.values() for job_id in jobs.active())
        except ClusterError:
            # Each file of Cluster Serving names a cluster, also where the service does not run on one.
            if not processes:
                raise
            self.jobs, jobs = {}, ()
        return Living(processes, jobs)

    def end(self, client: redis.Redis, those: Living, on_progress: Callable[[int], None] = lambda _: None) -> None:
        """Ask some of what goes on to end and wait for it, as `stop` does.

        Args:
            client: of the service's Redis.
            those: what shall end.
            on_progress: see `stop`.

        Raises:
            BeamServingError: they go on after twice `grace_s`.
        """
        name, grace_s = self._settings.name, self._settings.params.grace_s
        started = time.monotonic()
        going_on = those
        while going_on.count:
            on_progress(going_on.count)
            for deployment in going_on.processes:
                retract(client, name, deployment)
                ask_to_stop(client, name, deployment)
            if time.monotonic() - started > grace_s:
                for jobs, job_id in going_on.jobs:
                    jobs.cancel(job_id)
            if time.monotonic() - started > 2 * grace_s:
                raise BeamServingError(f"{going_on} did not end within {2 * grace_s:g} s")
            time.sleep(_TICK_S)
            going_on = those.still(self.living(client))
        on_progress(0)


def _worker(report: Report) -> dict[str, Plain]:
    return {
        "id": report.worker,
        "host": report.host,
        "state": report.states[0],
        "served": report.counts["served"],
        "errors": report.counts["errors"],
        "memory_bytes": report.memory_bytes,
    }


def _memory(client: redis.Redis) -> dict[str, Plain] | None:
    """Return what Redis uses and may use; None where it has no limit, or the user may not ask."""
    try:
        used, limit = memory_of(client)
    except NoPermissionError:
        return None
    return {"used_bytes": used, "limit_bytes": limit} if limit else None


def _results(client: redis.Redis, settings: Settings, is_cluster: bool) -> dict[str, Plain] | None:
    """Return what results take, where they are bounded and the user may measure them."""
    limit = settings.data.max_result_bytes
    if limit is None:
        return None
    try:
        now = measure_results(client, settings.data.streams, is_cluster)
    except NoPermissionError:
        return None
    known = read_state(client, settings.name)
    return {"bytes": now, "limit_bytes": limit, "held": known is not None and known[0].held}


def _stream(client: redis.Redis, stream: str, group: str) -> dict[str, Plain]:
    """Return what a stream holds: entries, those delivered, how long the oldest waits, dead letters, rows for files."""
    first: Any = client.xrange(stream, count=1)
    seconds, microseconds = client.time()
    now_ms = 1000 * seconds + microseconds // 1000
    about: dict[str, Plain] = {"queue": int(client.xlen(stream)), "pending": 0, "oldest_s": None, "consumers": 0}
    about["dead_letters"] = count_dead_letters(client, stream)
    about["for_files"] = outbox_records(client, stream)
    if first:
        about["oldest_s"] = max(0.0, (now_ms - int(first[0][0].partition(b"-")[0])) / 1000)
    if client.exists(stream):
        for found in client.xinfo_groups(stream):
            if found["name"] == group.encode():
                about |= {"pending": found["pending"], "consumers": found["consumers"]}
    return about
