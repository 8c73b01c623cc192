"""Ends a service, wherever its workers are: they finish what is in flight and read no more."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import redis
from tqdm import tqdm

from beam_serving.cli.arguments import Parser
from beam_serving.cli.place import add_config
from beam_serving.cli.terminal import say
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings, load_settings
from beam_serving.errors import BeamServingError
from beam_serving.launch.flink.options import EMBEDDED
from beam_serving.launch.flink.rest import ClusterError, FlinkRest, job_name
from beam_serving.telemetry.report import ask_to_stop, retract, working_reports

_TICK_S = 0.2


def main(arguments: Sequence[str]) -> int:
    """Stops a service and gives the exit code: 0 when it has ended, 1 when there was none.

    Raises:
        BeamServingError: Redis or the cluster does not answer, or the service goes on.
    """
    parser = Parser(
        prog="beam-serving stop",
        description="Stop the service of a configuration, all its workers on whatever host: they finish what is in\n"
        "flight, and what is queued stays queued. Services of other names go on. Redis is left alone, also by\n"
        "cluster-serving-shutdown, which is this command and once stopped Redis too.",
        epilog="example:\n  python -m beam_serving stop --config config.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_config(parser)
    parser.add_argument("--flink_master", help="host:port of the cluster; flink: rest of the configuration where unset")
    given = parser.parse_args(arguments)
    settings = load_settings(given.config)
    with redis_at(settings).reachable() as client:
        stopped = stop(settings, client, given.flink_master or settings.flink.rest)
    say(f"{settings.name}: {'stopped' if stopped else 'nothing runs'}")
    return 0 if stopped else 1


def stop(settings: Settings, client: redis.Redis, cluster: str | None = None) -> bool:
    """Asks all workers of a service to end and waits for it; a job that goes on after `grace_s` is cancelled.

    Gives whether there was anything to stop.

    Raises:
        BeamServingError: workers go on after twice `grace_s`, or there are none and the cluster does not answer.
    """
    rest = FlinkRest(cluster) if cluster is not None and cluster not in EMBEDDED else None
    name = settings.name
    living = working_reports(client, name)
    try:
        jobs = _active(rest, name)
    except ClusterError:
        # Each file of Cluster Serving names a cluster, also where the service does not run on one.
        if not living:
            raise
        rest, jobs = None, []
    if not living and not jobs:
        return False
    started, grace_s = time.monotonic(), settings.params.grace_s
    retract(client, name)
    with tqdm(desc=f"stopping {name}", total=len(living) + len(jobs), unit="", leave=False, disable=None) as bar:
        while living or jobs:
            for run in {report.run for report in living}:
                ask_to_stop(client, name, run)
            if jobs and rest is not None and time.monotonic() - started > grace_s:
                for job_id in jobs:
                    rest.cancel(job_id)
            if time.monotonic() - started > 2 * grace_s:
                raise BeamServingError(f"{len(living)} workers and {len(jobs)} jobs go on after {2 * grace_s:g} s")
            time.sleep(_TICK_S)
            living, jobs = working_reports(client, name), _active(rest, name)
            bar.update(bar.total - len(living) - len(jobs) - bar.n)
    retract(client, name)
    return True


def _active(rest: FlinkRest | None, name: str) -> list[str]:
    return [job.job_id for job in rest.jobs(job_name(name)) if not job.over] if rest is not None else []
