"""The commands of Cluster Serving under their old names: cluster-serving-init, -start, -stop, -restart, -shutdown."""

from __future__ import annotations

import sys

from beam_serving.cli.main import main


def init() -> int:
    """Run `beam-serving init`."""
    return main(["init", *sys.argv[1:]])


def start() -> int:
    """Run `beam-serving serve --detach`; the old flag -p, Flink's parallelism, stands for --workers."""
    return main(["serve", "--detach", *_with_workers(sys.argv[1:])])


def restart() -> int:
    """Run `beam-serving restart --detach`."""
    return main(["restart", "--detach", *_with_workers(sys.argv[1:])])


def stop() -> int:
    """Run `beam-serving stop`, also for cluster-serving-shutdown, which stopped Redis too."""
    return main(["stop", *sys.argv[1:]])


def _with_workers(arguments: list[str]) -> list[str]:
    return ["--workers" if argument == "-p" else argument for argument in arguments]
