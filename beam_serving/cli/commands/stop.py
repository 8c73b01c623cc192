"""Ends a service, wherever its workers are: they finish what is in flight and read no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from beam_serving.cli.arguments import Command, run, with_examples
from beam_serving.cli.place import Configuration, cluster_options, clusters_at, config_option
from beam_serving.cli.terminal import progress, say
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.launch.deployed import Deployed


def main(arguments: Sequence[str]) -> int:
    """Stop a service and return the exit code: 0 when it has ended, 1 when there was none.

    Raises:
        BeamServingError: Redis or the cluster does not answer, or the service goes on.
    """
    return run(_command, arguments, "beam-serving stop")


@with_examples("beam_serving stop --config config.yaml")
@click.command(
    cls=Command,
    help="Stop the service of a configuration, all its workers on whatever host: they finish what is in flight, and "
    "what is queued stays queued. Services of other names go on. Redis is left alone, also by "
    "cluster-serving-shutdown, which is this command and once stopped Redis too.",
)
@config_option
@cluster_options
def _command(config: Configuration, **clusters: str | None) -> int:
    settings = config.load()
    stopped = stop(Deployed(settings, clusters_at(clusters)), settings)
    say(f"{settings.name}: {'stopped' if stopped else 'nothing runs'}")
    return 0 if stopped else 1


def stop(service: Deployed, settings: Settings) -> bool:
    """Stop a service, with a progress bar; say whether there was anything to stop.

    Raises:
        BeamServingError: see `Deployed.stop`.
    """
    with redis_at(settings).reachable() as client, stopping(settings.name) as show:
        return service.stop(client, show)


@contextmanager
def stopping(name: str) -> Iterator[Callable[[int], None]]:
    """Show a progress bar; yield what is told how many processes of the service go on."""
    with progress(doing=f"stopping {name}") as bar:

        def show(left: int) -> None:
            bar.total = max(bar.total or 0, left)
            bar.update(bar.total - left - bar.n)

        yield show
