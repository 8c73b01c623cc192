"""Stops a service, wherever it runs, and starts it again from its configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from beam_serving.cli.arguments import Command, run, with_examples
from beam_serving.cli.commands.serve import UNKNOWN_PASS, Flags, checked_start, run_start, serve_options
from beam_serving.cli.commands.stop import stop
from beam_serving.cli.terminal import say
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.launch.deployed import Deployed
from beam_serving.launch.portable.options import last_value
from beam_serving.launch.preflight import preflight
from beam_serving.launch.rehearsal import rehearse
from beam_serving.telemetry.report import ready_key


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
    _tell_changes(start.settings)
    stopped = stop(Deployed(start.settings, clusters, [service.runner]), start.settings)
    say(f"{start.settings.name}: {'stopped' if stopped else 'nothing runs'}, starting", flush=True)
    return run_start(start)


def _tell_changes(settings: Settings) -> None:
    """Say which keys have other values than in the service that runs: a --set or a variable may be missing now."""
    with redis_at(settings).reachable() as client:
        there: Any = client.get(ready_key(settings.name))
    before = json.loads(there).get("configuration") if there else None
    if not isinstance(before, dict):
        return
    now = settings.fingerprints()
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if changed:
        say(
            f"{settings.name}: changed since its start: {', '.join(changed)} (--set and environment variables count as "
            "they are given to restart)"
        )
