"""Flink's REST interface: the jobs of a cluster by their names, their state, metrics and troubles."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from beam_serving.errors import ConfigError
from beam_serving.launch.runner import ClusterError

_TIMEOUT_S = 5.0
_NAME = re.compile(r"[^\w.-]+")
_NAMESPACE = "beam_serving"
_OVER = ("FINISHED", "FAILED", "CANCELED")


def job_name(service: str) -> str:
    """Return the name of a service's job on the cluster."""
    return f"beam-serving-{_NAME.sub('-', service)}"


@dataclass(frozen=True)
class FlinkJob:
    """A job of the cluster; `state` is Flink's own word, as RUNNING, RESTARTING, FINISHED."""

    job_id: str
    name: str
    state: str
    started_ms: int

    @property
    def over(self) -> bool:
        """Whether it will do nothing any more."""
        return self.state in _OVER


class FlinkRest:
    """A cluster, by the address of its REST interface (`host:port` or a URL)."""

    def __init__(self, address: str) -> None:
        self.url = (address if "://" in address else f"http://{address}").rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"flink: rest: wanted host:port or an http address, got {address!r}")

    def slots(self) -> tuple[int, int]:
        """Return how many parallel tasks the cluster has place for: in all, and free ones."""
        about = self._get("/overview")
        return int(about["slots-total"]), int(about["slots-available"])

    def slots_each(self) -> int:
        """Return the number of parallel tasks of the largest task manager."""
        return max((int(one["slotsNumber"]) for one in self._get("/taskmanagers")["taskmanagers"]), default=1)

    def version(self) -> str:
        """Return Flink's version without the patch level, as 1.19."""
        return ".".join(str(self._get("/config")["flink-version"]).split(".")[:2])

    def jobs(self, name: str | None = None) -> list[FlinkJob]:
        """Return the jobs, of one name or all, the latest first."""
        jobs = [
            FlinkJob(about["jid"], about["name"], about["state"], about["start-time"])
            for about in self._get("/jobs/overview")["jobs"]
        ]
        found = [job for job in jobs if name is None or job.name == name]
        return sorted(found, key=lambda job: job.started_ms, reverse=True)

    def cause(self, job_id: str) -> str:
        """Return the text of what last failed in a job; empty where nothing has."""
        about = self._failures(job_id)
        entries = about.get("exceptionHistory", {}).get("entries", [])
        return str(about.get("root-exception") or (entries[0]["stacktrace"] if entries else ""))

    def cause_of_end(self, job_id: str) -> str:
        """Return the text of what a job failed with for good; empty while the cluster still answers from its cache."""
        return str(self._failures(job_id).get("root-exception") or "")

    def _failures(self, job_id: str) -> Any:
        return self._get(f"/jobs/{job_id}/exceptions?maxExceptions=1")

    def counters(self, job_id: str, names: Sequence[str] = ("results_written",)) -> dict[str, int]:
        """Return the sums of the pipeline's own counters over all tasks, as Flink knows them: at the end of bundles.

        Flink collects them in the background and has none when it is asked for the first time.
        """
        totals: dict[str, int] = {}
        for vertex in self._get(f"/jobs/{job_id}")["vertices"]:
            at = f"/jobs/{job_id}/vertices/{vertex['id']}/subtasks/metrics"
            listed = [about["id"] for about in self._get(at)]
            for name in names:
                for full in (one for one in listed if one.endswith(f".{_NAMESPACE}_{name}")):
                    (about,) = self._get(f"{at}?agg=sum&get={urllib.parse.quote(full)}")
                    totals[name] = totals.get(name, 0) + int(about["sum"])
        return totals

    def cancel(self, job_id: str) -> None:
        """End a job at once; what its workers had in hand stays pending in Redis."""
        self._call("PATCH", f"/jobs/{job_id}?mode=cancel")

    def _get(self, path: str) -> Any:
        return self._call("GET", path)

    def _call(self, method: str, path: str) -> Any:
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310 - checked to be http
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:  # noqa: S310 - see above
                text = reply.read()
        except urllib.error.HTTPError as err:
            raise ClusterError(f"Flink at {self.url} refuses {method} {path}: {err.code} {err.reason}") from err
        except (OSError, urllib.error.URLError) as err:
            reason = getattr(err, "reason", err)
            raise ClusterError(
                f"Flink at {self.url} cannot be reached ({reason}); is a cluster running there?"
            ) from err
        try:
            return json.loads(text) if text else {}
        except ValueError as err:
            raise ClusterError(f"{self.url}{path} does not answer as Flink does: {text[:100]!r}") from err
