"""Spark as a runner: drains of the queue, in the job server's own Spark or on a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from beam_serving.config.schema import Settings
from beam_serving.errors import ConfigError
from beam_serving.launch.portable.jar import SPARK, find_or_build, require_java
from beam_serving.launch.portable.options import launcher_of
from beam_serving.launch.runner import ClusterFlag, Jobs, Spec
from beam_serving.launch.spark.options import Master, jar_of, master_of, require_master

_DRIVER = "beam_serving.launch.spark.driver"


class SparkRunner:
    """Spark, which runs no pipeline whose source never ends."""

    name = "SparkRunner"
    key = "spark"
    endless = False
    flags: tuple[str, ...] = ()
    cluster_flag: ClusterFlag | None = None

    def plan(self, spec: Spec) -> SparkPlan:
        """Check the flags and say where the drains run.

        Raises:
            ConfigError: a flag or a setting cannot be used.
        """
        master = master_of(spec.arguments, spec.settings.spark, spec.worker_count())
        if spec.workers and not master.local:
            raise ConfigError(
                f"--workers is for one machine; on {master.url} it is spark: num_executors, executor_cores"
            )
        return SparkPlan(spec, master)

    def jobs(self, settings: Settings, cluster: str | None) -> Jobs | None:
        """Return None: a drain is there only while its driver is, which is seen in Redis."""
        del settings, cluster
        return None


@dataclass(frozen=True)
class SparkPlan:
    """Readers in the executors of one master."""

    spec: Spec
    master: Master

    def require(self) -> None:
        """Find Java and the master, and find or build the job server's jar.

        Raises:
            ConfigError: Java, Maven, the jar or the master is missing.
        """
        arguments = self.spec.arguments
        require_java(SPARK, launcher_of(arguments))
        require_master(self.master)
        find_or_build(SPARK, jar_of(arguments, self.spec.settings.spark))

    def run(self) -> int:
        """Drain; see `Supervisor.run`."""
        from beam_serving.launch.supervisor import Supervisor

        return Supervisor(self.spec, self.master.readers, _DRIVER).run()
