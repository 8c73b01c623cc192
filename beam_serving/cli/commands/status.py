"""What a service does right now, wherever it runs: its workers, its queue, its job on a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from beam_serving.cli.arguments import Command, json_option, run, with_examples
from beam_serving.cli.place import Configuration, cluster_options, clusters_at, config_option
from beam_serving.cli.tables import aligned
from beam_serving.cli.terminal import say
from beam_serving.launch.deployed import Deployed
from beam_serving.launch.runner import Jobs


def main(arguments: Sequence[str]) -> int:
    """Print the state; the exit code is 0 while the service is ready, else 1.

    Raises:
        BeamServingError: Redis does not answer, or the cluster while the job's counters are read.
    """
    return run(_command, arguments, "beam-serving status")


@with_examples("beam_serving status --config config.yaml --json", "beam_serving status --probe && echo ready")
@click.command(
    cls=Command, help="Show what a service does: state, workers, queue, and its job where it runs on a cluster."
)
@click.option("--probe", is_flag=True, help="Say in one line whether it is ready, for the health check of a container.")
@config_option
@cluster_options
@json_option
def _command(config: Configuration, as_json: bool, probe: bool, **clusters: str | None) -> int:
    del probe  # see beam_serving.cli.probe
    service = Deployed(config.load(), clusters_at(clusters))
    about = service.status()
    say(json.dumps(about) if as_json else table(about, service.jobs))
    return 0 if about["ready"] else 1


def _of(part: int, whole: int) -> str:
    return f"{part / 1e6:.1f} of {whole / 1e6:.1f} MB ({100 * part / whole:.0f} %)"


def table(about: dict[str, Any], jobs: Mapping[str, Jobs]) -> str:
    """Return the state as text for people."""
    counts, dead = about["counts"], sum(of["dead_letters"] for of in about["streams"].values())
    lines = [
        f"{about['name']}: {'ready' if about['ready'] else 'not ready'}, {about['records_per_s']:.1f} records/s",
        f"model {about['model']}, engine {about['engine'] or '-'}, batch size {about['batch_size'] or '-'}",
        f"served {counts.get('served', 0)}, errors {counts.get('errors', 0)}, dead letters {dead}",
    ]
    if memory := about["memory"]:
        lines.append(f"Redis uses {_of(memory['used_bytes'], memory['limit_bytes'])} of its maxmemory")
    if results := about["results"]:
        paused = ": reading pauses until some were deleted or have expired" if results["held"] else ""
        lines.append(f"results take about {_of(results['bytes'], results['limit_bytes'])}{paused}")
    if about["stages_ms"]:
        times = (f"{stage} {of['p50']:.2f}/{of['p99']:.2f}" for stage, of in about["stages_ms"].items())
        lines.append(f"ms p50/p99: {', '.join(times)}")
    rows = [["stream", "queue", "pending", "oldest", "consumers", "dead"]]
    for stream, of in about["streams"].items():
        oldest = "-" if of["oldest_s"] is None else f"{of['oldest_s']:.1f} s"
        numbers = [str(of[key]) for key in ("consumers", "dead_letters")]
        rows.append([stream, str(of["queue"]), str(of["pending"]), oldest, *numbers])
    lines += ["", aligned(rows)]
    if dead:
        lines.append("dead-letter list shows the requests that were given up")
    for stream, of in about["streams"].items():
        if (count := of["for_files"]) is not None and count > 0:
            wait, them = ("result waits", "it") if count == 1 else ("results wait", "them")
            lines.append(f"{stream}: {count} {wait} for files; the next --drain with --output writes {them}")
    rows = [["worker", "host", "state", "served", "errors", "memory"]]
    for one in about["workers"]:
        memory = f"{one['memory_bytes'] / 1e6:.0f} MB"
        rows.append([one["id"], one["host"], one["state"], str(one["served"]), str(one["errors"]), memory])
    lines += ["", aligned(rows) if len(rows) > 1 else "no worker runs"]
    for key, found in jobs.items():
        lines += ["", *found.lines(about[key])]
    return "\n".join(lines)
