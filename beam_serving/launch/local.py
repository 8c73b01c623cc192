"""The runner of one machine: worker processes, each with a pipeline of its own, under one supervisor."""

from __future__ import annotations

from dataclasses import dataclass

from beam_serving.config.schema import Settings
from beam_serving.launch.runner import ClusterFlag, Jobs, Spec


class LocalRunner:
    """Beam's local runner, as often as there are workers."""

    name = "DirectRunner"
    key = "local"
    endless = True
    flags: tuple[str, ...] = ()
    cluster_flag: ClusterFlag | None = None

    def plan(self, spec: Spec) -> LocalPlan:
        """Return the plan; there is nothing that could not be used."""
        return LocalPlan(spec)

    def jobs(self, settings: Settings, cluster: str | None) -> Jobs | None:
        """Return None: what runs here is seen in Redis."""
        del settings, cluster
        return None


@dataclass(frozen=True)
class LocalPlan:
    """Workers on this machine."""

    spec: Spec

    def require(self) -> None:
        """Do nothing: Beam brings what its local runner needs."""

    def run(self) -> int:
        """Serve; see `Supervisor.run`."""
        from beam_serving.launch.supervisor import Supervisor

        return Supervisor(self.spec, self.spec.worker_count()).run()
