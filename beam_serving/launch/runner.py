"""What a runner is: where the pipeline runs, how a service is started there, looked at and stopped.

A runner is one module and one row of `RUNNERS`. The commands, `launch/service.py` and `launch/deployed.py` know none
of them by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from beam_serving.config.schema import Settings
from beam_serving.errors import BeamServingError, ConfigError
from beam_serving.models.cpu import available_cores
from beam_serving.telemetry.logs import BY_DEFAULT, LogOptions

Plain = None | bool | int | float | str | Sequence["Plain"] | Mapping[str, "Plain"]
"""Values that JSON has."""


class ClusterError(BeamServingError):
    """The cluster cannot be reached, or does not do what it is asked for."""


@dataclass(frozen=True)
class Spec:
    """A service as it is wanted: the settings, and what whoever starts it adds.

    Attributes:
        settings: the configuration, checked.
        arguments: flags of Apache Beam, which pass through.
        workers: worker processes on this machine, "auto" for one per core; None leaves it to the settings.
        drain: end when nothing is queued or pending any more.
        every_s: drain again in every interval of so many seconds.
        log: how its processes log.
        replace: end what serves under the name when it starts, once it serves itself.
    """

    settings: Settings
    arguments: tuple[str, ...] = ()
    workers: int | Literal["auto"] | None = None
    drain: bool = False
    every_s: float | None = None
    log: LogOptions = BY_DEFAULT
    replace: bool = False

    def worker_count(self) -> int:
        """Return the number of workers that is asked for: one for each core where it is `auto`."""
        wanted = self.workers or self.settings.params.workers
        return available_cores() if wanted == "auto" else int(wanted)


class Plan(Protocol):
    """A service as one runner would run it. Its flags and settings are checked, and nothing has started."""

    def require(self) -> None:
        """Find or build what the runner needs on this machine.

        Raises:
            ConfigError: it is missing, and how it is installed.
        """
        ...

    def run(self) -> int:
        """Serve until the service ends, and return the exit code.

        Returns:
            0, or 1 where a worker had to be killed.

        Raises:
            BeamServingError: it cannot start, or cannot go on for a reason that the operator must fix.
        """
        ...


class Jobs(Protocol):
    """The jobs of one service on a cluster, which may be there when no process of ours is."""

    def status(self) -> Mapping[str, Plain]:
        """Return what `status` shows of the newest job.

        Raises:
            ClusterError: the cluster answers, and then does not.
        """
        ...

    def lines(self, status: Mapping[str, Plain]) -> list[str]:
        """Return the same as lines of text.

        Args:
            status: what `status` returned.
        """
        ...

    def active(self) -> list[str]:
        """Return the ids of the jobs that have not ended.

        Raises:
            ClusterError: the cluster does not answer.
        """
        ...

    def cancel(self, job_id: str) -> None:
        """End a job at once; what its workers had in hand stays pending in Redis.

        Args:
            job_id: one that `active` returned.

        Raises:
            ClusterError: the cluster does not answer, or does not do it.
        """
        ...


class ClusterFlag(NamedTuple):
    """The flag that says where a cluster is.

    Attributes:
        name: of the flag, with its dashes.
        help: what the command line says of it.
    """

    name: str
    help: str


class Runner(Protocol):
    """One way to run the pipeline.

    Attributes:
        name: Apache Beam's name of it.
        key: the section of `status` that its jobs stand under.
        endless: whether it runs a source that never ends; where not, it drains the queue, once or in intervals.
        flags: flags of Beam that only the runner's own side knows; each takes a value.
        cluster_flag: how commands are told where its cluster is; None where it has none to ask.
    """

    name: str
    key: str
    endless: bool
    flags: tuple[str, ...]
    cluster_flag: ClusterFlag | None

    def plan(self, spec: Spec) -> Plan:
        """Check what is wanted against what this runner can do; nothing starts.

        Args:
            spec: the service as it is wanted.

        Returns:
            How this runner would run it.

        Raises:
            ConfigError: a flag or a setting cannot be used with it.
        """
        ...

    def jobs(self, settings: Settings, cluster: str | None) -> Jobs | None:
        """Return the jobs of a service on a cluster; None where it has none, or none that can be asked.

        Args:
            settings: of the service; its name is that of its jobs.
            cluster: where the cluster is, as `cluster_flag` says it; None leaves it to the settings.
        """
        ...


_LOCAL = "beam_serving.launch.local:LocalRunner"
RUNNERS = {
    "DirectRunner": _LOCAL,
    "FnApiRunner": _LOCAL,
    "FlinkRunner": "beam_serving.launch.flink.runner:FlinkRunner",
    "SparkRunner": "beam_serving.launch.spark.runner:SparkRunner",
}
"""The runners by their names in Beam; a module is imported when its runner is asked for."""


def runner_named(name: str) -> Runner:
    """Return a runner by Beam's name of it.

    Args:
        name: one of `RUNNERS`.

    Raises:
        ConfigError: there is none of that name here.
    """
    if name not in RUNNERS:
        raise ConfigError(f"--runner={name} is not served yet; wanted is one of {', '.join(RUNNERS)}")
    module, _, kind = RUNNERS[name].partition(":")
    runner: Runner = getattr(importlib.import_module(module), kind)()
    return runner


def all_runners() -> list[Runner]:
    """Return each runner once."""
    return [runner_named(name) for name in {place: name for name, place in RUNNERS.items()}.values()]
