"""What a service says of itself in Redis: each worker's numbers, and whether the whole is ready.

    beam-serving:<name>:ready          JSON, there only while every worker serves; written by the supervisor, and on a
                                       cluster, where none needs to live, by one of the workers
    beam-serving:<name>:workers        the ids of the workers, a set
    beam-serving:<name>:worker:<id>    JSON of one worker's counters and histograms; written by the worker
    beam-serving:<name>:runs           what was begun and has a supervisor, a set; written by the supervisors
    beam-serving:<name>:run:<run>      JSON of a `Deployment`, there while its supervisor lives
    beam-serving:<name>:stop:<run>     there when the workers of one deployment shall end; written by the command `stop`
    beam-serving:services              the names of all services, a set; written by the workers. On a Redis Cluster
                                       there is one for each hash tag, `beam-serving:services:{<tag>}`

What a process says of itself expires some seconds after it is gone, so it does not outlive it. A deployment (`run` in
Redis) is what was begun at one stroke: the workers of one supervisor, or of one job on a cluster.
"""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import redis

from beam_serving.telemetry.stats import STAGES, Histogram, State, WorkerStats
from beam_serving.transport.address import hash_tag
from beam_serving.transport.connection import RedisAt
from beam_serving.transport.lua import PUT, evaluate, script
from beam_serving.transport.routes import Cluster

LIFETIME_S = 15
FRESH_S = 5
_READY_S = 2.5
"""What is renewed every second and is older than this has nobody who renews it."""
_STOP_LIFETIME_S = 3600
_ANNOUNCE, _RETRACT = script(__package__, "announce"), script(__package__, "retract")


class Deployment(NamedTuple):
    """What was begun at one stroke and has a supervisor.

    Attributes:
        id: its name, which nothing else has or will have.
        host: where its supervisor is.
        since: when it was begun, in seconds of `time.time`.
        config: a fingerprint of the configuration that it serves; empty where it cannot be replaced, as a drain.
        pid: of its supervisor.
        model: where the model is, as the configuration says.
        content: what its files hold; empty until that is known.
    """

    id: str
    host: str = ""
    since: float = 0.0
    config: str = ""
    pid: int = 0
    model: str = ""
    content: str = ""

    def is_dead(self) -> bool:
        """Return whether its supervisor was on this host and has ended: what it said of itself stays some seconds.

        One that had the number of this very process was the first process of a container that this one replaces.
        """
        if self.host != socket.gethostname() or not self.pid:
            return False
        if self.pid == os.getpid():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False  # it is somebody else's
        return False


def ready_key(name: str) -> str:
    """Name the key that exists while the service `name` is ready."""
    return f"beam-serving:{name}:ready"


def worker_key(name: str, worker: str) -> str:
    """Name the key that holds the numbers of one worker."""
    return f"beam-serving:{name}:worker:{worker}"


def workers_key(name: str) -> str:
    """Name the key that holds the ids of a service's workers."""
    return f"beam-serving:{name}:workers"


def services_key(at: RedisAt, name: str) -> str:
    """Name the key that holds the names of all services, on a cluster of those that share a node with `name`."""
    tag = hash_tag(name.encode()).decode() if isinstance(at.route, Cluster) else ""
    return f"beam-serving:services:{{{tag}}}" if tag else "beam-serving:services"


def stop_key(name: str, deployment: str) -> str:
    """Name the key that is there when the workers of a deployment shall end."""
    return f"beam-serving:{name}:stop:{deployment}"


@dataclass
class Report:
    """The numbers of one worker, or the sum of several.

    Of one, `worker` is its id, `deployment` what it was started with, and the pids are those of itself and its parent.
    `records_per_s` is about the last second.
    """

    states: list[str] = field(default_factory=list)
    engine: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    stages: dict[str, Histogram] = field(default_factory=lambda: {stage: Histogram() for stage in STAGES})
    memory_bytes: int = 0
    batch_size: int = 0
    inputs: list[dict[str, Any]] = field(default_factory=list)
    worker: str = ""
    deployment: str = ""
    host: str = ""
    pid: int = 0
    parent_pid: int = 0
    records_per_s: float = 0.0

    def __add__(self, other: Report) -> Report:
        return Report(
            self.states + other.states,
            self.engine or other.engine,
            self.counts + other.counts,
            {stage: self.stages[stage] + other.stages[stage] for stage in STAGES},
            self.memory_bytes + other.memory_bytes,
            max(self.batch_size, other.batch_size),
            inputs=self.inputs or other.inputs,
            records_per_s=self.records_per_s + other.records_per_s,
        )


def encode_report(stats: WorkerStats, deployment: str = "", records_per_s: float = 0.0) -> str:
    """Return the numbers of this process as JSON; histograms as counts by bucket."""
    stages = {stage: dict(histogram.counts) for stage, histogram in stats.stages.items()}
    body = {
        "run": deployment,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "parent_pid": os.getppid(),
        "state": stats.state,
        "engine": stats.engine,
        "batch_size": stats.batch_size,
        "inputs": stats.inputs,
        "counts": dict(stats.counts),
        "records_per_s": records_per_s,
        "stages": stages,
        "memory_bytes": memory_bytes(),
    }
    return json.dumps(body)


def decode_report(text: bytes, worker: str = "") -> Report:
    """Read what `encode_report` wrote."""
    body: dict[str, Any] = json.loads(text)
    stages = {
        stage: Histogram({int(bucket): count for bucket, count in body["stages"].get(stage, {}).items()})
        for stage in STAGES
    }
    return Report(
        states=[body["state"]],
        engine=body["engine"],
        counts=Counter(body["counts"]),
        stages=stages,
        memory_bytes=body["memory_bytes"],
        batch_size=body["batch_size"],
        inputs=body.get("inputs", []),
        worker=worker,
        deployment=body["run"],
        host=body["host"],
        pid=body["pid"],
        parent_pid=body["parent_pid"],
        records_per_s=body.get("records_per_s", 0.0),
    )


def memory_bytes() -> int:
    """Return the resident memory of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def read_reports(
    client: redis.Redis, name: str, deployment: str | None = None, within_s: float = FRESH_S
) -> list[Report]:
    """Read the numbers of the workers that reported lately, of one deployment or all, in the order of their ids.

    Who has not done so within some seconds is dead, or stopped.
    """
    members: Any = client.smembers(workers_key(name))
    workers = sorted(member.decode() for member in members)
    if not workers:
        return []
    pipeline = client.pipeline(transaction=False)
    pipeline.mget([worker_key(name, worker) for worker in workers])
    for worker in workers:
        pipeline.pttl(worker_key(name, worker))
    texts, *lifetimes_ms = pipeline.execute()
    if gone := [worker for worker, text in zip(workers, texts, strict=True) if text is None]:
        client.srem(workers_key(name), *gone)
    oldest_ms = 1000 * (LIFETIME_S - within_s)
    found = [
        decode_report(text, worker)
        for worker, text, lifetime_ms in zip(workers, texts, lifetimes_ms, strict=True)
        if text is not None and lifetime_ms > oldest_ms
    ]
    return [report for report in found if deployment in (None, report.deployment)]


def working_reports(client: redis.Redis, name: str) -> list[Report]:
    """Read the numbers of the workers of all deployments that have not ended."""
    return [report for report in read_reports(client, name) if report.states != [State.STOPPED]]


def service_names(client: redis.Redis, registered: str = "beam-serving:services") -> list[str]:
    """Return the names of the services with workers, or with some that died lately; forget the other names."""
    members: Any = client.smembers(registered)
    found = {name: read_reports(client, name, within_s=LIFETIME_S) for name in sorted(map(bytes.decode, members))}
    # A worker that comes back in this moment registers again with its next report.
    if gone := [name for name, reports in found.items() if not reports]:
        client.srem(registered, *gone)
    return [name for name, reports in found.items() if any(one.states != [State.STOPPED] for one in reports)]


def ask_to_stop(client: redis.Redis, name: str, deployment: str) -> None:
    """Ask the workers of a deployment, wherever they are, to finish what is in flight and to read no more."""
    evaluate(client, PUT, 1, stop_key(name, deployment), "", 1000 * _STOP_LIFETIME_S)


def asked_to_stop(client: redis.Redis, name: str, deployment: str) -> bool:
    """Return whether somebody has asked for it."""
    return bool(client.exists(stop_key(name, deployment)))


def deployments_key(name: str) -> str:
    """Name the key that holds the deployments of a service that have a supervisor."""
    return f"beam-serving:{name}:runs"


def deployment_key(name: str, deployment: str) -> str:
    """Name the key that is there while the supervisor of a deployment lives."""
    return f"beam-serving:{name}:run:{deployment}"


def keep_deployment(client: redis.Redis, name: str, deployment: Deployment) -> None:
    """Say, for the next seconds, that a deployment has a supervisor, also while none of its workers lives."""
    about = json.dumps(deployment)
    evaluate(client, PUT, 1, deployment_key(name, deployment.id), about, 1000 * LIFETIME_S)
    client.sadd(deployments_key(name), deployment.id)


def end_deployment(client: redis.Redis, name: str, deployment: str) -> None:
    """Say that the supervisor of a deployment has ended."""
    client.srem(deployments_key(name), deployment)
    client.delete(deployment_key(name, deployment))


def supervised_deployments(client: redis.Redis, name: str) -> list[Deployment]:
    """Return the deployments whose supervisors live; forget the others."""
    members: Any = client.smembers(deployments_key(name))
    known = sorted(member.decode() for member in members)
    about: Any = client.mget([deployment_key(name, one) for one in known]) if known else []
    if gone := [one for one, text in zip(known, about, strict=True) if text is None]:
        client.srem(deployments_key(name), *gone)
    return [_deployment(one, text) for one, text in zip(known, about, strict=True) if text is not None]


def _deployment(deployment: str, text: bytes) -> Deployment:
    """Read what `keep_deployment` wrote; an earlier version wrote nothing."""
    try:
        _, host, since, config, pid, model, content = json.loads(text)
        return Deployment(deployment, str(host), float(since), str(config), int(pid), str(model), str(content))
    except (ValueError, TypeError):
        return Deployment(deployment)


def described(serving: Sequence[Report], reports: int) -> dict[str, Any]:
    """Return what the workers found out: what runs the model, the size of the batches, what a request gives.

    And how many of their `reports` it takes to be ready.
    """
    first = serving[0]
    return {"engine": first.engine, "batch_size": first.batch_size, "inputs": first.inputs, "reports": reports}


def announce(client: redis.Redis, name: str, about: dict[str, Any], deployment: Deployment) -> None:
    """Say, for the next seconds, that the service is ready and what it serves, if no newer deployment says so."""
    text = json.dumps({**about, "deployment": deployment.id, "since": deployment.since})
    evaluate(client, _ANNOUNCE, 1, ready_key(name), text, 1000 * LIFETIME_S, deployment.id, deployment.since)


class Readiness(NamedTuple):
    """Whether a service serves now.

    Attributes:
        reason: why it is not ready; empty where it is.
        about: what it announced; empty where it did not.
    """

    reason: str
    about: dict[str, Any]

    @property
    def ready(self) -> bool:
        """Whether it serves."""
        return not self.reason


def readiness(client: redis.Redis, name: str) -> Readiness:
    """Return whether a service is ready, as of less than three seconds ago, whoever of it has died.

    The key outlives its writer by some seconds, so its age counts, and that of the reports of as many workers as it is
    ready with.
    """
    pipeline = client.pipeline(transaction=False)
    pipeline.get(ready_key(name))
    pipeline.pttl(ready_key(name))
    text, lifetime_ms = pipeline.execute()
    if text is None:
        return Readiness("it has not announced that it is ready", {})
    about = _announced(text)
    if lifetime_ms < 1000 * (LIFETIME_S - _READY_S):
        return Readiness("who announced that it is ready does so no more", about)
    wanted = about.get("reports", 1)
    reports = read_reports(client, name, about.get("deployment"), _READY_S)
    serving = [one for one in reports if one.states == [State.SERVING]]
    if len(serving) < wanted:
        return Readiness(f"{len(serving)} of {wanted} workers serve", about)
    return Readiness("", about)


def _announced(text: bytes) -> dict[str, Any]:
    try:
        about = json.loads(text)
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def streams_of(ready: bytes | None) -> list[str]:
    """Read the streams of a service from what it announced; none where it did not."""
    if ready is None:
        return []
    try:
        return [str(stream) for stream in json.loads(ready)["streams"]]
    except (ValueError, KeyError, TypeError):
        return []  # of a later version, or somebody else's


def retract(client: redis.Redis, name: str, deployment: str) -> None:
    """Say at once that the service is not ready, if it was this deployment that has said so."""
    evaluate(client, _RETRACT, 1, ready_key(name), deployment)
