"""Serves a model until it is stopped: what `beam-serving` does without a sub-command."""

from __future__ import annotations

import hashlib
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from beam_serving.cli.arguments import SECONDS, Command, run, with_examples
from beam_serving.cli.place import Configuration, config_option
from beam_serving.cli.terminal import say
from beam_serving.config.output import path_of_flag
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.errors import BeamServingError, ConfigError, UnreachableError
from beam_serving.launch.beam_flags import check_beam_flags
from beam_serving.launch.runner import Spec, all_runners, runner_named
from beam_serving.launch.service import Planned, planned
from beam_serving.telemetry.logs import FORMATS, LogOptions, configure_logging
from beam_serving.telemetry.report import supervised_deployments

_F = TypeVar("_F", bound=Callable[..., object])
UNKNOWN_PASS = {"ignore_unknown_options": True}
"""For commands that hand flags of Beam on."""


class _Workers(click.ParamType[int | Literal["auto"]]):
    name = "workers"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | Literal["auto"]:
        """Read a number, or auto."""
        if value == "auto":
            return "auto"
        if not str(value).isdecimal() or not 1 <= int(str(value)) <= 256:
            self.fail(f"wants a number from 1 to 256 or 'auto', got {value!r}", param, ctx)
        return int(str(value))


@dataclass(frozen=True)
class Flags:
    """What the command line of `serve` and `restart` says, by the names of its options."""

    config: Configuration
    runner: str
    workers: int | Literal["auto"] | None
    drain: bool
    output: str | None
    output_format: str | None
    every: float | None
    log_level: str
    log_format: str
    detach: bool
    log_file: Path | None
    replace: bool
    for_beam: tuple[str, ...]

    @property
    def log(self) -> LogOptions:
        """How a service in the foreground logs."""
        return LogOptions(
            self.log_level, self.log_format, "" if self.log_file is None else str(self.log_file.resolve())
        )


def serve_options(command: _F) -> _F:
    """Add the options of a service; they arrive as the fields of `Flags`."""
    drains_only = " or ".join(runner.name for runner in all_runners() if not runner.endless)
    file = click.Path(path_type=Path)
    options = (
        config_option,
        click.option("--runner", default="DirectRunner", show_default=True, help="Where the pipeline runs."),
        click.option("--workers", type=_Workers(), metavar="N", help="Worker processes, or 'auto' for one per core."),
        click.option("--drain", is_flag=True, help="Serve what is queued, then end."),
        click.option(
            "--output",
            metavar="PATH",
            help="With --drain, write the results as files too: a folder, or gs://, s3://, azfs:// or hdfs://.",
        ),
        click.option(
            "--output-format",
            type=click.Choice(("parquet", "jsonl")),
            help="How they are written; parquet where unset.",
        ),
        click.option(
            "--every",
            type=SECONDS,
            metavar="SECONDS",
            help=f"With --runner={drains_only}, drain the queue in every interval, until stopped.",
        ),
        click.option(
            "--log-level",
            default="info",
            show_default=True,
            type=click.Choice(("debug", "info", "warning", "error")),
        ),
        click.option(
            "--detach",
            is_flag=True,
            help="Serve in the background: wait until the service is ready, print its pid and log file, and end.",
        ),
        click.option("--log-format", default="text", show_default=True, type=click.Choice(FORMATS)),
        click.option(
            "--log-file",
            type=file,
            help="Where the log goes, opened anew when it is renamed; standard error where unset and, with --detach, "
            "<name>.log beside the configuration.",
        ),
        click.option(
            "--replace", is_flag=True, help="Once this service is ready, end what served under its name before."
        ),
        click.argument("for_beam", nargs=-1, type=click.UNPROCESSED, metavar="[FLAGS OF BEAM]..."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True)
class Start:
    """A service as the command line and the configuration want it, checked."""

    service: Planned
    flags: Flags

    @property
    def settings(self) -> Settings:
        """The configuration, with what the flags put in its place."""
        return self.service.spec.settings

    @property
    def log_file(self) -> Path:
        """Where a detached service writes its log."""
        return self.flags.log_file or self.flags.config.path.resolve().parent / f"{self.settings.name}.log"


def main(arguments: Sequence[str]) -> int:
    """Serve until it is stopped or, with --drain, until the queue is empty.

    Raises:
        BeamServingError: it cannot start or cannot go on; the message is for the operator.
    """
    return run(_command, arguments, "beam-serving serve")


@with_examples(
    "beam_serving serve --config config.yaml --runner=DirectRunner",
    "beam_serving serve --config config.yaml --drain --output results/",
    "beam_serving serve --config config.yaml --detach",
)
@click.command(
    cls=Command,
    context_settings=UNKNOWN_PASS,
    help="Serve a model from a Redis stream, as an Apache Beam pipeline, until SIGTERM, Ctrl-C or `beam-serving stop`. "
    "The same as beam-serving without a command.",
    epilog="Flags of Apache Beam pass through, for example --job_name=digits.",
)
@serve_options
def _command(**given: Any) -> int:
    return serve(Flags(**given))


def serve(flags: Flags) -> int:
    """Serve as the flags say, and return the exit code.

    Raises:
        BeamServingError: it cannot start or cannot go on.
    """
    return run_start(checked_start(flags))


def _configure_logging(flags: Flags) -> None:
    """Log as the flags say; what starts in the background has its log to itself.

    Raises:
        ConfigError: the log cannot be written.
    """
    log = flags.log._replace(file="") if flags.detach else flags.log
    try:
        configure_logging(log, "service")
    except OSError as err:
        raise ConfigError(f"{log.file}: cannot be written ({err.strerror}); --log-file names another file") from err


def checked_start(flags: Flags) -> Start:
    """Check the flags and read the configuration, before anything starts.

    Raises:
        ConfigError: a flag or the configuration cannot be used.
    """
    # Who closes the terminal ends what runs in it, but for services: see `stop_on_signals`.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _configure_logging(flags)
    own = [name for param in click.get_current_context().command.params for name in param.opts]
    check_beam_flags(flags.for_beam, [*own, "--help"], runner_named(flags.runner).flags)
    if flags.output is not None and not flags.drain:
        raise ConfigError("--output goes with --drain: its files are complete when the queue is empty")
    if flags.detach and flags.drain:
        raise ConfigError("--detach waits until the service is ready, and --drain may end it before; leave one out")
    settings = _with_output(flags.config.load(), flags)
    spec = Spec(settings, flags.for_beam, flags.workers, flags.drain, flags.every, flags.log, flags.replace)
    return Start(planned(spec, flags.runner), flags)


def run_start(start: Start) -> int:
    """Serve here until the service ends, or start it in the background; return the exit code.

    Raises:
        BeamServingError: it cannot start or cannot go on.
    """
    return _detached(start) if start.flags.detach else start.service.run()


def _with_output(settings: Settings, flags: Flags) -> Settings:
    """Put --output and --output-format in the place of the configuration's."""
    given = {
        "output": None if flags.output is None else path_of_flag(flags.output),
        "output_format": flags.output_format,
    }
    data = settings.data.model_copy(update={key: value for key, value in given.items() if value})
    if flags.output_format and not data.output:
        raise ConfigError("--output-format goes with --output")
    return settings.model_copy(update={"data": data})


def _require_alone(settings: Settings) -> None:
    """Refuse to serve in the background beside a service of the same name on this host.

    Raises:
        BeamServingError: there is one, or Redis refuses us.
    """
    try:
        with redis_at(settings).reachable() as client:
            there = supervised_deployments(client, settings.name)
    except UnreachableError:
        return  # the service waits for it, and says what else is wrong
    here = [one for one in there if one.host == socket.gethostname() and not one.is_dead()]
    for one in here:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.since))
        raise BeamServingError(
            f"{settings.name} serves on this host already: pid {one.pid}, since {since}; `restart --detach` takes its "
            "place without a gap, `stop` ends it, `status` shows it"
        )


def _alone(settings: Settings) -> AbstractContextManager[None]:
    """Let one command at a time start this service on this host: who comes second waits until it can be told."""
    # Imported here: a help needs nothing of models.
    from beam_serving.models.store import cache_folder, exclusive

    service = f"{settings.name} of Redis at {redis_at(settings)}"
    return exclusive(cache_folder() / "starts" / f"{hashlib.sha256(service.encode()).hexdigest()[:16]}.lock")


def _detached(start: Start) -> int:
    from beam_serving.cli.detach import start_detached

    flags, name = start.flags, start.settings.name
    arguments = [*flags.config.arguments(), "--runner", flags.runner]
    arguments += ["--log-level", flags.log_level, "--log-format", flags.log_format, "--log-file", str(start.log_file)]
    arguments += ["--workers", str(flags.workers)] if flags.workers else []
    arguments += ["--every", str(flags.every)] if flags.every else []
    arguments += ["--replace"] if flags.replace else []
    with nullcontext() if flags.replace else _alone(start.settings):
        if not flags.replace:
            _require_alone(start.settings)
        pid = start_detached([*arguments, *flags.for_beam], start.log_file, start.settings.params.grace_s)
    say(f"{name}: ready, pid {pid}, log {start.log_file}")
    return 0
