"""The command line: `python -m beam_serving`, or `beam-serving` once installed."""

from __future__ import annotations

import argparse
import importlib
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from beam_serving import __version__
from beam_serving.arguments import Parser
from beam_serving.errors import BeamServingError, ConfigError

if TYPE_CHECKING:
    from beam_serving.config import Settings

_log = logging.getLogger(__name__)

COMMANDS = {
    "init": "write a commented config.yaml to start from",
    "config": "check a configuration file, also an old one, and write its new form",
    "status": "show what a service does: workers, queue, its job on a cluster",
    "stop": "end a service, on this machine or on a cluster; what is queued stays",
    "worker-pool": "start workers beside a Flink task manager when it asks for them",
    "quickstart": "push some images through a demo model and print its answers",
    "model": "look at a model: its format, engine, inputs, outputs, size and speed",
    "bench": "measure this service against plain loops on this machine",
}
"""Sub-commands: each is a module of `beam_serving.commands` with a `main(arguments)`."""

_EXAMPLES = """\
examples:
  python -m beam_serving --config config.yaml --runner=DirectRunner
  python -m beam_serving --config config.yaml --workers 2 --drain
  python -m beam_serving quickstart

Flags of Apache Beam pass through, for example --job_name=digits. Further commands, each with its own --help:
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives the exit code: 0 done, 1 failed while serving, 2 wrong usage or configuration."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments and arguments[0] in COMMANDS:
            command = importlib.import_module(f"beam_serving.commands.{arguments[0].replace('-', '_')}")
            signal.signal(signal.SIGTERM, _end_command)
            return int(command.main(arguments[1:]))
        return serve(arguments)
    except ConfigError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    except BeamServingError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _end_command(signum: int, frame: FrameType | None) -> None:
    """Ends a command as Ctrl-C does, so that it takes down what it has started."""
    del signum, frame
    raise KeyboardInterrupt


def serve(arguments: Sequence[str]) -> int:
    """Serves until it is stopped or, with --drain, until the queue is empty.

    Raises:
        BeamServingError: it cannot start or cannot go on; the message is for the operator.
    """
    parser = _parser()
    own, for_beam = parser.parse_known_args(arguments)
    if for_beam and not for_beam[0].startswith("-"):
        raise ConfigError(f"unknown command {for_beam[0]!r}; commands: {', '.join(COMMANDS)}; see --help")
    from beam_serving.config import load_settings
    from beam_serving.cores import available_cores
    from beam_serving.flink.options import FLAGS
    from beam_serving.launch import FLINK_RUNNER, LOCAL_RUNNERS, check_beam_arguments
    from beam_serving.logs import configure_logging

    configure_logging(own.log_level, "service")
    flags = [flag for action in parser._actions for flag in action.option_strings]
    on_flink = own.runner == FLINK_RUNNER
    check_beam_arguments(for_beam, flags, FLAGS if on_flink else ())
    if not on_flink and own.runner not in LOCAL_RUNNERS:
        served = ", ".join((*LOCAL_RUNNERS, FLINK_RUNNER))
        raise ConfigError(f"--runner={own.runner} is not served yet; wanted is one of {served}")
    settings = load_settings(own.config)
    if settings.spark is not None:
        _log.info("the section 'spark' of %s is checked; --runner=%s does not use it", own.config, own.runner)
    workers = own.workers or settings.params.workers
    count = available_cores() if workers == "auto" else int(workers)
    if on_flink:
        return _on_flink(settings, count, for_beam, own)
    from beam_serving.supervisor import Supervisor

    return Supervisor(settings, count, for_beam, own.drain, own.log_level).run()


def _on_flink(settings: Settings, workers: int, for_beam: list[str], own: argparse.Namespace) -> int:
    from beam_serving.flink.jar import find_or_build, require_java
    from beam_serving.flink.options import cluster_of, jar_of, launcher_of, parallelism_of, submits_uber_jar

    count = parallelism_of(for_beam, settings.flink, workers)
    cluster = cluster_of(for_beam, settings.flink)
    if cluster is None or not submits_uber_jar(for_beam, settings.flink):
        require_java(launcher_of(for_beam))
    find_or_build(jar_of(for_beam, settings.flink))
    if cluster is not None:
        from beam_serving.flink.remote import ClusterService

        return ClusterService(settings, cluster, count, for_beam, own.drain, own.log_level).run()
    from beam_serving.supervisor import Supervisor

    return Supervisor(settings, count, for_beam, own.drain, own.log_level, "beam_serving.flink.driver").run()


def _workers(text: str) -> int | str:
    if text == "auto" or (text.isdigit() and 1 <= int(text) <= 256):
        return text if text == "auto" else int(text)
    raise argparse.ArgumentTypeError(f"wants a number from 1 to 256 or 'auto', got {text!r}")


def _parser() -> Parser:
    parser = Parser(
        prog="beam-serving",
        description="Serve a model from a Redis stream, as an Apache Beam pipeline.",
        epilog=_EXAMPLES + "\n".join(f"  {name:12}{what}" for name, what in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, default=Path("config.yaml"), help="configuration file (%(default)s)")
    parser.add_argument("--runner", default="DirectRunner", help="where the pipeline runs (%(default)s)")
    parser.add_argument(
        "--workers", type=_workers, help="worker processes in one consumer group, or 'auto' for one per core"
    )
    parser.add_argument("--drain", action="store_true", help="serve what is queued, then end")
    parser.add_argument(
        "--log-level", default="info", choices=("debug", "info", "warning", "error"), help="(%(default)s)"
    )
    parser.add_argument("--version", action="version", version=f"beam-serving {__version__}")
    return parser
