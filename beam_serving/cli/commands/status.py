"""What a service does right now, wherever it runs: its workers, its queue, its job on a cluster."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from beam_serving.cli.arguments import Parser
from beam_serving.cli.place import add_clusters, add_config, clusters_at
from beam_serving.cli.tables import aligned
from beam_serving.cli.terminal import say
from beam_serving.config.schema import load_settings
from beam_serving.launch.deployed import Deployed
from beam_serving.launch.runner import Jobs


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
    add_clusters(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(arguments)
    service = Deployed(load_settings(given.config), clusters_at(given))
    about = service.status()
    say(json.dumps(about) if given.json else table(about, service.jobs))
    return 0 if about["ready"] else 1


def table(about: dict[str, Any], jobs: Mapping[str, Jobs]) -> str:
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
    for key, found in jobs.items():
        lines += ["", *found.lines(about[key])]
    return "\n".join(lines)
