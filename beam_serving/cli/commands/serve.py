"""Serves a model until it is stopped: what `beam-serving` does without a sub-command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from beam_serving.cli.arguments import Parser, seconds
from beam_serving.cli.place import add_config
from beam_serving.cli.terminal import say
from beam_serving.config.output import path_of_flag
from beam_serving.config.schema import Settings, load_settings
from beam_serving.errors import ConfigError
from beam_serving.launch.beam_flags import check_beam_flags
from beam_serving.launch.runner import Spec, all_runners, runner_named
from beam_serving.launch.service import Planned, planned
from beam_serving.telemetry.logs import configure_logging


@dataclass(frozen=True)
class Start:
    """A service as the command line and the configuration want it, checked."""

    service: Planned
    given: argparse.Namespace

    @property
    def settings(self) -> Settings:
        """The configuration, with what the flags put in its place."""
        return self.service.spec.settings

    @property
    def log_file(self) -> Path:
        """Where a detached service writes its log."""
        named: Path | None = self.given.log_file
        return named or self.given.config.resolve().parent / f"{self.settings.name}.log"


def main(arguments: Sequence[str]) -> int:
    """Serves until it is stopped or, with --drain, until the queue is empty.

    Raises:
        BeamServingError: it cannot start or cannot go on; the message is for the operator.
    """
    return run(checked_start(_parser(), arguments))


def checked_start(parser: Parser, arguments: Sequence[str]) -> Start:
    """Reads the arguments and the configuration, before anything starts.

    Raises:
        ConfigError: a flag or the configuration cannot be used.
    """
    given, for_beam = parser.parse_known_args(arguments)
    configure_logging(given.log_level, "service")
    flags = [flag for action in parser._actions for flag in action.option_strings]
    check_beam_flags(for_beam, flags, runner_named(given.runner).flags)
    if given.output is not None and not given.drain:
        raise ConfigError("--output goes with --drain: its files are complete when the queue is empty")
    if given.detach and given.drain:
        raise ConfigError("--detach waits until the service is ready, and --drain may end it before; leave one out")
    settings = _with_output(load_settings(given.config), given)
    spec = Spec(settings, tuple(for_beam), given.workers, given.drain, given.every, given.log_level)
    return Start(planned(spec, given.runner), given)


def run(start: Start) -> int:
    """Serves here until the service ends, or starts it in the background; gives the exit code.

    Raises:
        BeamServingError: it cannot start or cannot go on.
    """
    return _detached(start) if start.given.detach else start.service.run()


def _with_output(settings: Settings, given: argparse.Namespace) -> Settings:
    """Puts --output and --output-format in the place of the configuration's."""
    flags = {
        "output": None if given.output is None else path_of_flag(given.output),
        "output_format": given.output_format,
    }
    data = settings.data.model_copy(update={key: value for key, value in flags.items() if value})
    if given.output_format and not data.output:
        raise ConfigError("--output-format goes with --output")
    return settings.model_copy(update={"data": data})


def _detached(start: Start) -> int:
    from beam_serving.cli.detach import start_detached

    given, name = start.given, start.settings.name
    arguments = ["--config", str(given.config), "--runner", given.runner, "--log-level", given.log_level]
    arguments += ["--workers", str(given.workers)] if given.workers else []
    arguments += ["--every", str(given.every)] if given.every else []
    pid = start_detached([*arguments, *start.service.spec.arguments], start.log_file, start.settings.params.grace_s)
    say(f"{name}: ready, pid {pid}, log {start.log_file}")
    return 0


def add_flags(parser: Parser) -> None:
    """Adds the flags of a service."""
    add_config(parser)
    parser.add_argument("--runner", default="DirectRunner", help="where the pipeline runs (%(default)s)")
    parser.add_argument(
        "--workers", type=_workers, help="worker processes in one consumer group, or 'auto' for one per core"
    )
    parser.add_argument("--drain", action="store_true", help="serve what is queued, then end")
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="with --drain, write the results as files too: a folder, or gs://, s3://, azfs:// or hdfs://",
    )
    parser.add_argument("--output-format", choices=("parquet", "jsonl"), help="parquet, the default, or JSON lines")
    parser.add_argument(
        "--every",
        type=seconds,
        metavar="SECONDS",
        help=f"with --runner={_drains_only()}, drain the queue in every interval, until stopped",
    )
    parser.add_argument(
        "--log-level", default="info", choices=("debug", "info", "warning", "error"), help="(%(default)s)"
    )
    parser.add_argument(
        "--detach",
        action="store_true",
        help="serve in the background: wait until the service is ready, print its pid and log file, and end",
    )
    parser.add_argument(
        "--log-file", type=Path, help="with --detach, where the log goes; <name>.log beside the configuration"
    )


def _drains_only() -> str:
    return " or ".join(runner.name for runner in all_runners() if not runner.endless)


def _workers(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if text.isdigit() and 1 <= int(text) <= 256:
        return int(text)
    raise argparse.ArgumentTypeError(f"wants a number from 1 to 256 or 'auto', got {text!r}")


def _parser() -> Parser:
    parser = Parser(
        prog="beam-serving serve",
        description="Serve a model from a Redis stream, as an Apache Beam pipeline, until SIGTERM, Ctrl-C or\n"
        "`beam-serving stop`. The same as beam-serving without a sub-command.",
        epilog="examples:\n  python -m beam_serving serve --config config.yaml --runner=DirectRunner\n"
        "  python -m beam_serving serve --config config.yaml --drain --output results/\n"
        "  python -m beam_serving serve --config config.yaml --detach\n\n"
        "Flags of Apache Beam pass through, for example --job_name=digits.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_flags(parser)
    return parser
