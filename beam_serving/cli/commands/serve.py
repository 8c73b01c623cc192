"""Serves a model until it is stopped: what `beam-serving` does without a sub-command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from beam_serving.cli.arguments import Parser, seconds
from beam_serving.cli.place import add_config
from beam_serving.cli.terminal import say
from beam_serving.config.output import path_of_flag
from beam_serving.config.schema import Settings, load_settings
from beam_serving.errors import ConfigError
from beam_serving.export.destination import check_output
from beam_serving.launch.flink.options import FLAGS, cluster_of, parallelism_of, submits_uber_jar
from beam_serving.launch.flink.options import jar_of as flink_jar_of
from beam_serving.launch.portable.jar import FLINK, SPARK, find_or_build, require_java
from beam_serving.launch.portable.options import launcher_of
from beam_serving.launch.spark.options import jar_of as spark_jar_of
from beam_serving.launch.spark.options import master_of, require_master
from beam_serving.launch.start import FLINK_RUNNER, LOCAL_RUNNERS, SPARK_RUNNER, check_beam_arguments
from beam_serving.models.cpu import available_cores
from beam_serving.telemetry.logs import configure_logging

_DRIVERS = {FLINK_RUNNER: "beam_serving.launch.flink.driver", SPARK_RUNNER: "beam_serving.launch.spark.driver"}


@dataclass(frozen=True)
class Start:
    """A service as the command line and the configuration want it, checked. `cluster` is where its job goes, if any."""

    settings: Settings
    workers: int
    for_beam: list[str]
    given: argparse.Namespace
    cluster: str | None

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
    on_flink = given.runner == FLINK_RUNNER
    check_beam_arguments(for_beam, flags, FLAGS if on_flink else ())
    if given.runner not in (*LOCAL_RUNNERS, FLINK_RUNNER, SPARK_RUNNER):
        served = ", ".join((*LOCAL_RUNNERS, FLINK_RUNNER, SPARK_RUNNER))
        raise ConfigError(f"--runner={given.runner} is not served yet; wanted is one of {served}")
    _check_drain(given)
    settings = _with_output(load_settings(given.config), given)
    if given.drain and settings.data.output:
        check_output(settings.data.output, for_beam)
    workers = given.workers or settings.params.workers
    count = available_cores() if workers == "auto" else int(workers)
    if given.runner == SPARK_RUNNER:
        return Start(settings, _readers_on_spark(for_beam, settings, given, count), for_beam, given, None)
    if not on_flink:
        return Start(settings, count, for_beam, given, None)
    count = parallelism_of(for_beam, settings.flink, count)
    return Start(settings, count, for_beam, given, cluster_of(for_beam, settings.flink))


def _check_drain(given: argparse.Namespace) -> None:
    on_spark = given.runner == SPARK_RUNNER
    if given.drain and given.every:
        raise ConfigError("--every drains the queue again and again, and --drain once; leave one out")
    if on_spark and not (given.drain or given.every):
        raise ConfigError(
            "--runner=SparkRunner needs --drain, since Spark runs no pipeline whose source never ends; or --every "
            "SECONDS, which drains the queue in every interval"
        )
    if given.every and not on_spark:
        raise ConfigError(f"--every goes with --runner={SPARK_RUNNER}; {given.runner} serves all the time")
    if given.output is not None and not given.drain:
        raise ConfigError("--output goes with --drain: its files are complete when the queue is empty")
    if given.detach and given.drain:
        raise ConfigError("--detach waits until the service is ready, and --drain may end it before; leave one out")


def _readers_on_spark(for_beam: list[str], settings: Settings, given: argparse.Namespace, workers: int) -> int:
    master = master_of(for_beam, settings.spark, workers)
    if given.workers and not master.local:
        raise ConfigError(f"--workers is for one machine; on {master.url} it is spark: num_executors, executor_cores")
    return master.readers


def run(start: Start) -> int:
    """Serves here until the service ends, or starts it in the background; gives the exit code.

    Raises:
        BeamServingError: it cannot start or cannot go on.
    """
    if start.given.detach:
        return _detached(start)
    settings, count, for_beam, given = start.settings, start.workers, start.for_beam, start.given
    require_engine(start)
    if start.cluster is not None:
        from beam_serving.launch.flink.remote import ClusterService

        code = ClusterService(settings, start.cluster, count, for_beam, given.drain, given.log_level).run()
    else:
        from beam_serving.launch.supervisor import Supervisor

        driver = _DRIVERS.get(given.runner)
        code = Supervisor(settings, count, for_beam, given.drain, given.log_level, driver, given.every).run()
    if code == 0 and given.drain and settings.data.output:
        from beam_serving.export.drain import export

        export(settings, for_beam)
    return code


def _with_output(settings: Settings, given: argparse.Namespace) -> Settings:
    """Puts --output and --output-format in the place of the configuration's; without --drain there is no output."""
    flags = {
        "output": None if given.output is None else path_of_flag(given.output),
        "output_format": given.output_format,
    }
    data = settings.data.model_copy(update={key: value for key, value in flags.items() if value})
    if given.output_format and not data.output:
        raise ConfigError("--output-format goes with --output")
    return settings.model_copy(update={"data": data if given.drain else data.model_copy(update={"output": None})})


def require_engine(start: Start) -> None:
    """Finds or builds what a service on Flink or Spark needs; does nothing for the other runners.

    Raises:
        ConfigError: Java, Maven or the job server's jar is missing.
    """
    settings, arguments = start.settings, start.for_beam
    if start.given.runner == FLINK_RUNNER:
        if start.cluster is None or not submits_uber_jar(arguments, settings.flink):
            require_java(FLINK, launcher_of(arguments))
        find_or_build(FLINK, flink_jar_of(arguments, settings.flink))
    if start.given.runner == SPARK_RUNNER:
        require_java(SPARK, launcher_of(arguments))
        require_master(master_of(arguments, settings.spark, start.workers))
        find_or_build(SPARK, spark_jar_of(arguments, settings.spark))


def _detached(start: Start) -> int:
    from beam_serving.cli.detach import start_detached

    given, name = start.given, start.settings.name
    arguments = ["--config", str(given.config), "--runner", given.runner, "--log-level", given.log_level]
    arguments += ["--workers", str(given.workers)] if given.workers else []
    arguments += ["--every", str(given.every)] if given.every else []
    pid = start_detached([*arguments, *start.for_beam], start.log_file, start.settings.params.grace_s)
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
        help=f"with --runner={SPARK_RUNNER}, drain the queue in every interval, until stopped",
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


def _workers(text: str) -> int | str:
    if text == "auto" or (text.isdigit() and 1 <= int(text) <= 256):
        return text if text == "auto" else int(text)
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
