"""Which services there are in one Redis, by their names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import click
import redis

from beam_serving.cli.arguments import Command, json_option, run, with_examples
from beam_serving.cli.place import Configuration, config_option, settings_at, src_option
from beam_serving.cli.tables import listed
from beam_serving.cli.terminal import say
from beam_serving.config.redis_at import redis_at
from beam_serving.telemetry.report import Report, readiness, service_names, services_key, working_reports

if TYPE_CHECKING:
    from beam_serving.config.schema import Settings


def main(arguments: Sequence[str]) -> int:
    """Print the services and return the exit code, 0 also where there are none.

    Raises:
        BeamServingError: Redis does not answer.
    """
    return run(_command, arguments, "beam-serving list")


@with_examples("beam_serving list --config config.yaml", "beam_serving list --src redis-host:6379 --json")
@click.command(cls=Command, help="List the services that report in one Redis, on whatever hosts.")
@config_option
@src_option
@json_option
def _command(config: Configuration, src: Settings | None, as_json: bool) -> int:
    settings = settings_at(config, src)
    at = redis_at(settings)
    with at.reachable() as client:
        services = running(client, services_key(at, settings.name))
    if as_json:
        say(json.dumps(services))
    else:
        say(table(services) if services else f"no service reports in Redis at {at}")
    return 0


def running(client: redis.Redis, registered: str) -> list[dict[str, Any]]:
    """Return what is to say of each service as plain values."""
    return [_about(client, name) for name in service_names(client, registered)]


def _about(client: redis.Redis, name: str) -> dict[str, Any]:
    reports = working_reports(client, name)
    total = reduce(add, reports, Report())
    state = readiness(client, name)
    return {
        "name": name,
        "ready": state.ready,
        "workers": len(reports),
        "hosts": sorted({report.host for report in reports}),
        "records_per_s": total.records_per_s,
        "served": total.counts["served"],
        "engine": total.engine,
        "model": state.about.get("model"),
        "streams": state.about.get("streams"),
    }


def table(services: Sequence[dict[str, Any]]) -> str:
    """Return the services as text for people."""
    rows = [["name", "state", "workers", "hosts", "records/s", "served", "engine", "model"]]
    for one in services:
        numbers = [f"{one['records_per_s']:.1f}", str(one["served"])]
        state, hosts = "ready" if one["ready"] else "not ready", ",".join(one["hosts"]) or "-"
        rows.append(
            [one["name"], state, str(one["workers"]), hosts, *numbers, one["engine"] or "-", one["model"] or "-"]
        )
    return listed(rows)
