"""Starts a service again from its configuration; what runs serves until the new one does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from beam_serving.cli.arguments import Command, run, with_examples
from beam_serving.cli.commands.serve import UNKNOWN_PASS, Flags, Start, checked_start, run_start, serve_options
from beam_serving.cli.commands.stop import stop, stopping
from beam_serving.cli.terminal import say
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.launch.deployed import Deployed, Living
from beam_serving.launch.portable.options import last_value
from beam_serving.launch.preflight import preflight
from beam_serving.launch.rehearsal import rehearse
from beam_serving.launch.start import served_model
from beam_serving.telemetry.report import readiness


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
    help="Start the service of a configuration and, once it serves, end what served under its name before, on whatever "
    "host: on this machine in the foreground or, with --detach, in the background; on a Flink cluster as a new job. "
    "No request waits for it: what is in flight is finished, what is queued is served. A service that cannot start, "
    "whatever the reason, ends nothing. For some seconds there are two, which needs memory for both, and on a cluster "
    "slots: without these, or with --stop-first, the old one ends before the new one starts.",
)
@serve_options
@click.option("--stop-first", is_flag=True, help="End what runs before the start, where memory is short.")
def _command(stop_first: bool, **given: Any) -> int:
    # A drain may have ended before anybody could say that it serves.
    stop_first = stop_first or given["drain"]
    start = checked_start(Flags(**given | {"replace": not stop_first}))
    preflight(start.settings)
    start.service.plan.require()
    rehearse(start.settings)
    flag = start.service.runner.cluster_flag
    clusters = {flag.name: last_value(start.service.spec.arguments, flag.name)} if flag else {}
    running = Deployed(start.settings, clusters, [start.service.runner])
    _tell_changes(start.settings)
    if stop_first:
        wanted = start.settings.params.batch_size
        served_model(start.settings, 1 if wanted == "auto" else wanted)
        stopped = stop(running, start.settings)
        say(f"{start.settings.name}: {'stopped' if stopped else 'nothing runs'}, starting", flush=True)
        return run_start(start)
    return _hand_over(start, running)


def _hand_over(start: Start, running: Deployed) -> int:
    name = start.settings.name
    with redis_at(start.settings).reachable() as client:
        before = running.living(client)
    say(f"{name}: {_said_of(before)}, starting", flush=True)
    code = run_start(start)
    if start.flags.detach and before.count:
        with redis_at(start.settings).reachable() as client, stopping(name) as show:
            running.end(client, before, show)
        say(f"{name}: what ran before has ended")
    return code


def _said_of(before: Living) -> str:
    return f"{before} go on until the new ones serve" if before.count else "nothing runs"


def _tell_changes(settings: Settings) -> None:
    """Say which keys have other values than in the service that runs: a --set or a variable may be missing now."""
    with redis_at(settings).reachable() as client:
        before = readiness(client, settings.name).about.get("configuration")
    if not isinstance(before, dict):
        return
    now = settings.fingerprints()
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if changed:
        say(
            f"{settings.name}: changed since its start: {', '.join(changed)} (--set and environment variables count as "
            "they are given to restart)"
        )
