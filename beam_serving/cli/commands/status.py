"""What a service does right now, wherever it runs: its workers, its queue, its job on a cluster."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import redis

from beam_serving.cli.arguments import Parser
from beam_serving.cli.place import add_config
from beam_serving.cli.tables import aligned
from beam_serving.cli.terminal import say
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings, load_settings
from beam_serving.io.outbox import rows_kept
from beam_serving.launch.flink.options import EMBEDDED
from beam_serving.launch.flink.rest import ClusterError, FlinkRest, job_name
from beam_serving.telemetry.report import Report, ready_key, working_reports
from beam_serving.telemetry.stats import STAGES

_SAMPLE_S = 1.0


def main(arguments: Sequence[str]) -> int:
    """Prints the state; the exit code is 0 while the service is ready, else 1.

    Raises:
        BeamServingError: Redis does not answer, or the cluster while the job's counters are read.
    """
    parser = Parser(
        prog="beam-serving status",
        description="Show what a service does: state, workers, queue, and its job where it runs on Flink.",
        epilog="example:\n  python -m beam_serving status --config config.yaml --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_config(parser)
    parser.add_argument("--flink_master", help="host:port of the cluster; flink: rest of the configuration where unset")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(arguments)
    settings = load_settings(given.config)
    about = status(settings, given.flink_master or settings.flink.rest)
    say(json.dumps(about) if given.json else table(about))
    return 0 if about["ready"] else 1


def status(settings: Settings, cluster: str | None = None) -> dict[str, Any]:
    """Gives what there is to know as plain values; it takes a second, in which records are counted.

    Raises:
        BeamServingError: Redis does not answer, or the cluster while the job's counters are read.
    """
    at = redis_at(settings)
    with at.reachable() as client:
        before = _served(working_reports(client, settings.name))
        started = time.monotonic()
        time.sleep(_SAMPLE_S)
        reports = working_reports(client, settings.name)
        rate = (_served(reports) - before) / (time.monotonic() - started)
        text: Any = client.get(ready_key(settings.name))
        streams = {stream: _stream(client, stream, settings.data.group) for stream in settings.data.streams}
    total = reduce(add, reports, Report())
    about = {
        "name": settings.name,
        "ready": text is not None,
        "model": settings.model.path,
        "engine": total.engine,
        "batch_size": total.batch_size,
        "redis": str(at),
        "records_per_s": max(rate, 0.0),
        "counts": dict(total.counts),
        "stages_ms": {
            stage: {"p50": 1000 * histogram.quantile(0.5), "p99": 1000 * histogram.quantile(0.99)}
            for stage, histogram in ((stage, total.stages[stage]) for stage in STAGES)
            if histogram.counts
        },
        "workers": [_worker(report) for report in reports],
        "streams": streams,
    }
    if cluster is not None and cluster not in EMBEDDED:
        about["flink"] = _on_flink(FlinkRest(cluster), job_name(settings.name))
    return about


def _served(reports: Sequence[Report]) -> int:
    return sum(report.counts["served"] for report in reports)


def _worker(report: Report) -> dict[str, Any]:
    return {
        "id": report.worker,
        "host": report.host,
        "state": report.states[0],
        "served": report.counts["served"],
        "errors": report.counts["errors"],
        "memory_bytes": report.memory_bytes,
    }


def _stream(client: redis.Redis, stream: str, group: str) -> dict[str, Any]:
    """Gives the backlog of a stream: entries, those delivered, how long the oldest waits, results not yet in files."""
    first: Any = client.xrange(stream, count=1)
    seconds, microseconds = client.time()
    now_ms = 1000 * seconds + microseconds // 1000
    about: dict[str, Any] = {"queue": int(client.xlen(stream)), "pending": 0, "oldest_s": None, "consumers": 0}
    about["for_files"] = rows_kept(client, stream)
    if first:
        about["oldest_s"] = max(0.0, (now_ms - int(first[0][0].partition(b"-")[0])) / 1000)
    if client.exists(stream):
        groups: Any = client.xinfo_groups(stream)
        for found in groups:
            if found["name"] == group.encode():
                about |= {"pending": found["pending"], "consumers": found["consumers"]}
    return about


def _on_flink(rest: FlinkRest, name: str) -> dict[str, Any]:
    try:
        jobs = rest.jobs(name)
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


def table(about: dict[str, Any]) -> str:
    """Gives the state as text for people."""
    counts = about["counts"]
    lines = [
        f"{about['name']}: {'ready' if about['ready'] else 'not ready'}, {about['records_per_s']:.1f} records/s",
        f"model {about['model']}, engine {about['engine'] or '-'}, batch size {about['batch_size'] or '-'}",
        f"served {counts.get('served', 0)}, errors {counts.get('errors', 0)}, dead letters {counts.get('dead', 0)}",
    ]
    if about["stages_ms"]:
        times = (f"{stage} {of['p50']:.2f}/{of['p99']:.2f}" for stage, of in about["stages_ms"].items())
        lines.append(f"ms p50/p99: {', '.join(times)}")
    rows = [["stream", "queue", "pending", "oldest", "consumers"]]
    for stream, of in about["streams"].items():
        oldest = "-" if of["oldest_s"] is None else f"{of['oldest_s']:.1f} s"
        rows.append([stream, str(of["queue"]), str(of["pending"]), oldest, str(of["consumers"])])
    lines += ["", aligned(rows)]
    for stream, of in about["streams"].items():
        if (count := of["for_files"]) is not None and count > 0:
            wait, them = ("result waits", "it") if count == 1 else ("results wait", "them")
            lines.append(f"{stream}: {count} {wait} for files; the next --drain with --output writes {them}")
    rows = [["worker", "host", "state", "served", "errors", "memory"]]
    for one in about["workers"]:
        memory = f"{one['memory_bytes'] / 1e6:.0f} MB"
        rows.append([one["id"], one["host"], one["state"], str(one["served"]), str(one["errors"]), memory])
    lines += ["", aligned(rows) if len(rows) > 1 else "no worker runs"]
    if flink := about.get("flink"):
        lines.append("")
        if flink["job"] is None:
            lines.append(flink.get("error") or f"Flink at {flink['rest']} knows no job of this service")
        else:
            counters = ", ".join(f"{name} {value}" for name, value in flink["counters"].items()) or "none yet"
            lines.append(f"Flink at {flink['rest']}: job {flink['job']}, {flink['state']}, since {flink['started']}")
            lines.append(f"counters at the last checkpoint of the source: {counters}")
    return "\n".join(lines)
