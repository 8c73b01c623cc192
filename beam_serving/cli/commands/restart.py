"""Stops a service, wherever it runs, and starts it again from its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from beam_serving.cli.arguments import Command, run, with_examples
from beam_serving.cli.commands.serve import UNKNOWN_PASS, Flags, checked_start, run_start, serve_options
from beam_serving.cli.commands.stop import stop
from beam_serving.cli.terminal import say
from beam_serving.launch.deployed import Deployed
from beam_serving.launch.portable.options import last_value
from beam_serving.launch.preflight import preflight
from beam_serving.launch.rehearsal import rehearse


def main(arguments: Sequence[str]) -> int:
    """Restart a service and return the exit code of the new one; where none runs, it is only started.

    Raises:
        ConfigError: the configuration cannot be served; the running service was left alone.
        BeamServingError: Redis or the cluster does not answer, or the service does not stop or start.
    """
    return run(_command, arguments, "beam-serving restart")


@with_examples(
    "beam_serving restart --config config.yaml --detach",
    "beam_serving restart --config config.yaml --runner=FlinkRunner --flink_master=HOST:8081",
)
@click.command(
    cls=Command,
    context_settings=UNKNOWN_PASS,
    help="Stop the service of a configuration, all its workers on whatever host, and serve again: on this machine in "
    "the foreground or, with --detach, in the background; on a Flink cluster as a new job. What is in flight is "
    "finished before, what is queued is served after. A configuration that cannot be served stops nothing.",
)
@serve_options
def _command(**given: Any) -> int:
    start = checked_start(Flags(**given))
    preflight(start.settings)
    service = start.service
    service.plan.require()
    rehearse(start.settings)
    flag = service.runner.cluster_flag
    clusters = {flag.name: last_value(service.spec.arguments, flag.name)} if flag else {}
    stopped = stop(Deployed(start.settings, clusters, [service.runner]), start.settings)
    say(f"{start.settings.name}: {'stopped' if stopped else 'nothing runs'}, starting", flush=True)
    return run_start(start)
