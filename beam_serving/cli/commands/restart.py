"""Stops a service, wherever it runs, and starts it again from its configuration."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from beam_serving.cli.arguments import Parser
from beam_serving.cli.commands.serve import add_flags, checked_start, run
from beam_serving.cli.commands.stop import stop
from beam_serving.cli.terminal import say
from beam_serving.launch.deployed import Deployed
from beam_serving.launch.portable.options import last_value
from beam_serving.launch.preflight import preflight


def main(arguments: Sequence[str]) -> int:
    """Restarts a service and gives the exit code of the new one; where none runs, it is only started.

    Raises:
        ConfigError: the configuration cannot be served; the running service was left alone.
        BeamServingError: Redis or the cluster does not answer, or the service does not stop or start.
    """
    start = checked_start(_parser(), arguments)
    preflight(start.settings)
    start.service.plan.require()
    service = start.service
    flag = service.runner.cluster_flag
    clusters = {flag.name: last_value(service.spec.arguments, flag.name)} if flag else {}
    stopped = stop(Deployed(start.settings, clusters, [service.runner]), start.settings)
    say(f"{start.settings.name}: {'stopped' if stopped else 'nothing runs'}, starting", flush=True)
    return run(start)


def _parser() -> Parser:
    parser = Parser(
        prog="beam-serving restart",
        description="Stop the service of a configuration, all its workers on whatever host, and serve again: on this\n"
        "machine in the foreground or, with --detach, in the background; on a Flink cluster as a new job. What is in\n"
        "flight is finished before, what is queued is served after. A configuration that cannot be served stops\n"
        "nothing.",
        epilog="examples:\n  python -m beam_serving restart --config config.yaml --detach\n"
        "  python -m beam_serving restart --config config.yaml --runner=FlinkRunner --flink_master=HOST:8081",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_flags(parser)
    return parser
