"""Which services there are in one Redis, by their names."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import click
import redis

from beam_serving.cli.arguments import Command, json_option, run, with_examples
from beam_serving.cli.place import Configuration, config_option, settings_at, src_option
from beam_serving.cli.tables import listed
from beam_serving.cli.terminal import say
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.telemetry.report import Report, read_reports, ready_key, service_names, services_key
from beam_serving.telemetry.stats import State

_SAMPLE_S = 1.0


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


def running(client: redis.Redis, registered: str, sample_s: float = _SAMPLE_S) -> list[dict[str, Any]]:
    """Return what is to say of each service as plain values; records are counted for `sample_s`."""
    names = service_names(client, registered)
    before = {name: _served(read_reports(client, name)) for name in names}
    started = time.monotonic()
    if names:
        time.sleep(sample_s)
    return [_about(client, name, before[name], started) for name in names]


def _about(client: redis.Redis, name: str, before: int, since: float) -> dict[str, Any]:
    reports = [report for report in read_reports(client, name) if report.states != [State.STOPPED]]
    served = _served(reports)
    rate = (served - before) / (time.monotonic() - since)
    text: Any = client.get(ready_key(name))
    reported: dict[str, Any] = json.loads(text) if text else {}
    return {
        "name": name,
        "ready": bool(reported),
        "workers": len(reports),
        "hosts": sorted({report.host for report in reports}),
        "records_per_s": max(rate, 0.0),
        "served": served,
        "engine": next((report.engine for report in reports if report.engine), ""),
        "model": reported.get("model"),
        "streams": reported.get("streams"),
    }


def _served(reports: Sequence[Report]) -> int:
    return sum(report.counts["served"] for report in reports)


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
