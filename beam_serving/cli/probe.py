"""`status --probe`: whether a service is ready, cheap enough for the health check of a container.

It loads neither the check of the configuration nor anything of models, and asks Redis twice.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from beam_serving.cli.arguments import Command, run, with_examples
from beam_serving.cli.place import Configuration, config_option
from beam_serving.cli.terminal import say

_MOST_S = 2.0
"""Of a Redis that does not answer: without it the service is not ready either, and somebody waits for the verdict."""


def main(arguments: Sequence[str]) -> int:
    """Print one line and return the exit code: 0 while the service is ready, else 1.

    Raises:
        BeamServingError: Redis does not answer, or the configuration cannot be read.
    """
    return run(_command, arguments, "beam-serving status --probe")


@with_examples("beam_serving status --probe --config config.yaml")
@click.command(cls=Command, help="Say in one line whether a service is ready; the exit code is 0 or 1.")
@click.option("--probe", is_flag=True, help="What this is.")
@config_option
def _command(probe: bool, config: Configuration) -> int:
    del probe
    from beam_serving.config.whereabouts import whereabouts
    from beam_serving.telemetry.report import readiness

    name, at = whereabouts(config.path, _MOST_S, config.sets)
    with at.reachable() as client:
        state = readiness(client, name)
    say(
        f"{name}: ready" if state.ready else f"{name}: not ready: {state.reason}",
        to=None if state.ready else sys.stderr,
    )
    return 0 if state.ready else 1
