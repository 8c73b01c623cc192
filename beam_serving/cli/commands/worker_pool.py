"""A worker pool: starts worker processes on its host when a Flink task manager there asks for them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import click

from beam_serving.cli.arguments import Command, run, with_examples
from beam_serving.cli.place import Configuration, config_option
from beam_serving.errors import ConfigError
from beam_serving.launch.portable.callers import is_here, read_secret
from beam_serving.launch.stop import stop_on_signals
from beam_serving.telemetry.logs import LogOptions, configure_logging

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Offer the pool until it is told to stop.

    Raises:
        ConfigError: the configuration is wrong, or the address cannot be used.
    """
    return run(_command, arguments, "beam-serving worker-pool")


@with_examples("beam_serving worker-pool --config config.yaml --listen 127.0.0.1:50000")
@click.command(
    cls=Command,
    help="Start workers on this host when Flink's task managers ask for them (flink: worker_pool). They serve with "
    "the configuration that is named here, whatever a task manager says.",
)
@config_option
@click.option("--listen", default="127.0.0.1:50000", show_default=True, help="Address to listen at.")
def _command(config: Configuration, listen: str) -> int:
    settings = config.load()
    secret_file = settings.flink.worker_pool_secret_file
    secret = read_secret(secret_file) if secret_file else None
    if secret is None and not is_here(listen):
        raise ConfigError(
            f"--listen {listen} can be reached from other machines: set flink: worker_pool_secret_file, "
            "or listen at 127.0.0.1"
        )
    configure_logging(LogOptions(), "worker pool")
    with stop_on_signals() as stop:
        # Loads Beam, which takes seconds: not before the arguments are checked.
        from beam_serving.launch.portable.pool import HostPool, served

        pool = HostPool(settings, secret)
        try:
            with served(pool, listen) as address:
                _log.info("ready: workers are asked for at %s", address)
                stop.wait()
        finally:
            pool.close()
    return 0
