"""Flink as a runner: an embedded one under the supervisor, or a job on a cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from beam_serving.config.schema import Settings
from beam_serving.launch.flink.options import (
    CLUSTER_FLAG,
    EMBEDDED,
    FLAGS,
    cluster_of,
    jar_of,
    parallelism_of,
    submits_uber_jar,
)
from beam_serving.launch.flink.rest import FlinkRest, job_name
from beam_serving.launch.portable.jar import FLINK, find_or_build, require_java
from beam_serving.launch.portable.options import launcher_of
from beam_serving.launch.runner import ClusterError, ClusterFlag, Plain, Spec

_DRIVER = "beam_serving.launch.flink.driver"


class FlinkRunner:
    """Flink, embedded unless a cluster is named."""

    name = "FlinkRunner"
    key = "flink"
    endless = True
    flags = FLAGS
    cluster_flag: ClusterFlag | None = CLUSTER_FLAG

    def plan(self, spec: Spec) -> FlinkPlan:
        """Check the flags and say where the job goes.

        Raises:
            ConfigError: a flag or a setting cannot be used.
        """
        flink = spec.settings.flink
        parallelism = parallelism_of(spec.arguments, flink, spec.worker_count())
        return FlinkPlan(spec, parallelism, cluster_of(spec.arguments, flink))

    def jobs(self, settings: Settings, cluster: str | None) -> FlinkJobs | None:
        """Return the service's jobs on a cluster; None where Flink would be embedded."""
        at = cluster or settings.flink.rest
        return None if at is None or at in EMBEDDED else FlinkJobs(FlinkRest(at), job_name(settings.name))


@dataclass(frozen=True)
class FlinkPlan:
    """Parallel tasks, each with a worker process; `cluster` is where the job goes, None for an embedded Flink."""

    spec: Spec
    parallelism: int
    cluster: str | None

    def require(self) -> None:
        """Find Java and find or build the job server's jar.

        Raises:
            ConfigError: Java, Maven or the jar is missing.
        """
        spec, flink = self.spec, self.spec.settings.flink
        if self.cluster is None or not submits_uber_jar(spec.arguments, flink):
            require_java(FLINK, launcher_of(spec.arguments))
        find_or_build(FLINK, jar_of(spec.arguments, flink))

    def run(self) -> int:
        """Serve; see `Supervisor.run` and `ClusterService.run`."""
        if self.cluster is None:
            from beam_serving.launch.supervisor import Supervisor

            return Supervisor(self.spec, self.parallelism, _DRIVER).run()
        from beam_serving.launch.flink.remote import ClusterService

        return ClusterService(self.spec, self.cluster, self.parallelism).run()


class FlinkJobs:
    """The jobs of one service on a Flink cluster."""

    def __init__(self, rest: FlinkRest, name: str) -> None:
        self._rest = rest
        self._name = name

    def status(self) -> Mapping[str, Plain]:
        """Return the newest job: id, state, start, counters."""
        rest = self._rest
        try:
            jobs = rest.jobs(self._name)
        except ClusterError as err:
            # Each file of Cluster Serving names a cluster, also where the service does not run on one.
            return {"rest": rest.url, "job": None, "error": str(err)}
        if not jobs:
            return {"rest": rest.url, "job": None}
        job = jobs[0]
        return {
            "rest": rest.url,
            "job": job.job_id,
            "state": job.state,
            "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started_ms / 1000)),
            "counters": rest.counters(job.job_id),
        }

    def lines(self, status: Mapping[str, Plain]) -> list[str]:
        """Return the same as lines of text."""
        if status["job"] is None:
            return [str(status.get("error") or f"Flink at {status['rest']} knows no job of this service")]
        counters = cast(Mapping[str, int], status["counters"])
        counted = ", ".join(f"{name} {value}" for name, value in counters.items()) or "none yet"
        return [
            f"Flink at {status['rest']}: job {status['job']}, {status['state']}, since {status['started']}",
            f"counters at the last checkpoint of the source: {counted}",
        ]

    def active(self) -> list[str]:
        """Return the ids of the jobs that have not ended."""
        return [job.job_id for job in self._rest.jobs(self._name) if not job.over]

    def cancel(self, job_id: str) -> None:
        """End a job at once."""
        self._rest.cancel(job_id)
