"""The command line: `python -m beam_serving`, or `beam-serving` once installed."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import click

from beam_serving import __version__
from beam_serving.cli.arguments import Command, run
from beam_serving.cli.terminal import PIPE_CLOSED, PipeClosedError, drop_output, finish, prepare, say
from beam_serving.errors import BeamServingError, ConfigError
from beam_serving.telemetry.logs import logs_json

SERVICE_MODULES = frozenset(
    (
        *("apache_beam", "cryptography", "cv2", "google", "grpc", "ml_dtypes", "onnx", "onnxruntime", "openvino"),
        *("orjson", "pyarrow", "pydantic", "pydantic_core", "rich", "simplejpeg", "tqdm", "yaml"),
    )
)
"""What the extra `serve` brings: without it there is the client."""
INSTALL_SERVICE = "pip install 'beam-serving[serve]'"

COMMANDS = {
    "serve": "serve a model; the same as no command at all",
    "restart": "start a service again; what runs serves until the new one does",
    "init": "write a commented config.yaml to start from",
    "dead-letter": "see the requests that were given up; queue them again, or remove them",
    "config": "check a configuration file, also an old one, and write its new form",
    "status": "show what a service does: workers, queue, its job on a cluster",
    "list": "list the services that report in one Redis",
    "stop": "end a service, on this machine or on a cluster; what is queued stays",
    "enqueue": "put images, arrays and rows on the queue, and wait for their results",
    "results": "show results that are there, or remove them",
    "redis": "run a small Redis for trying, on this machine",
    "worker-pool": "start workers beside a Flink task manager when it asks for them",
    "quickstart": "push some images through a demo model and print its answers",
    "model": "look at a model: its format, engine, inputs, outputs, size and speed",
    "bench": "measure a service with its own model: records/s, latencies",
}
"""Sub-commands: each is a module of `beam_serving.cli.commands` with a `main(arguments)`."""

_EXAMPLES = (
    "beam_serving --config config.yaml --runner=DirectRunner",
    "beam_serving --config config.yaml --workers 2 --drain",
    "beam_serving --config config.yaml --drain --output results/ --output-format parquet",
    "beam_serving --config config.yaml --detach",
    "beam_serving quickstart",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 done, 1 failed while serving, 2 wrong usage or configuration.

    130 is an end by Ctrl-C or SIGTERM, 141 that nobody reads the output any more.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and (not given or given[0].startswith("-") or given[0] in ("serve", "restart")):
        # A service does not end with its terminal, and is told so before it handles the signal itself.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return exit_code_of(lambda: _run(given))


def exit_code_of(run: Callable[[], int]) -> int:
    """Run a command line and return its exit code; SIGTERM ends it as Ctrl-C does, and errors are one line each."""
    prepare()
    try:
        # Also before the service handles it: the kernel drops a signal that the first process of a container does not.
        signal.signal(signal.SIGTERM, _end_command)
        code = run()
        finish()
    except PipeClosedError:
        code = PIPE_CLOSED
    except BeamServingError as err:
        code = 2 if isinstance(err, ConfigError) else 1
        _say_error(err)
    except ModuleNotFoundError as err:
        if not _is_of_service(err):
            raise
        say(f"error: this needs {err.name}, which is not installed: {INSTALL_SERVICE}", to=sys.stderr)
        code = 2
    except _TerminatedError:
        code = 128 + signal.SIGTERM
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    drop_output()
    return code


def _say_error(err: BeamServingError) -> None:
    """Print why a command ended: a line of JSON where the log is of these."""
    if logs_json():
        logging.getLogger(__name__).critical("%s", err)
    else:
        say(f"error: {err}", to=sys.stderr)


def _is_of_service(err: ModuleNotFoundError) -> bool:
    return (err.name or "").partition(".")[0] in SERVICE_MODULES


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        say(f"beam-serving {__version__}")  # at once, as scripts ask for it
        return 0
    if arguments[:1] == ["status"] and "--probe" in arguments and not {"-h", "--help"} & {*arguments}:
        from beam_serving.cli.probe import main as probe

        return probe(arguments[1:])
    if arguments and arguments[0] in COMMANDS:
        command = importlib.import_module(f"beam_serving.cli.commands.{arguments[0].replace('-', '_')}")
        return int(command.main(arguments[1:]))
    return _serve(arguments)


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM came, which ends a command as Ctrl-C does, so that it takes down what it has started."""


def _end_command(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    raise _TerminatedError


def _serve(arguments: Sequence[str]) -> int:
    """Run the command `serve`, whose flags then stand in the help of all."""
    if arguments and not arguments[0].startswith("-"):
        raise ConfigError(f"unknown command {arguments[0]!r}; commands: {', '.join(COMMANDS)}; see --help")
    return run(_program(), arguments, "beam-serving")


class _Program(Command):
    """The program without a command, whose help lists the commands."""

    examples = _EXAMPLES

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the commands."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Commands, each with its own --help"):
            formatter.write_dl(list(COMMANDS.items()))


def _program() -> click.Command:
    # Imported here: the other commands need not load it.
    try:
        from beam_serving.cli.commands.serve import UNKNOWN_PASS, Flags, serve, serve_options
    except ModuleNotFoundError as err:
        if not _is_of_service(err):
            raise
        return _program_of_client(err)

    @click.command(
        cls=_Program,
        context_settings=UNKNOWN_PASS,
        help="Serve a model from a Redis stream, as an Apache Beam pipeline.",
        epilog="Flags of Apache Beam pass through, for example --job_name=digits.",
    )
    @serve_options
    @click.version_option(__version__, prog_name="beam-serving", message="%(prog)s %(version)s")
    def program(**given: Any) -> int:
        return serve(Flags(**given))

    return program


def _program_of_client(missing: ModuleNotFoundError) -> click.Command:
    """Return the program of an installation without the extra `serve`: its help lists the commands all the same."""

    @click.command(
        cls=_Program,
        context_settings={"ignore_unknown_options": True},
        help=f"This is the client alone. Serving, and all that reads a configuration, takes {INSTALL_SERVICE}.",
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="")
    def program(arguments: tuple[str, ...]) -> int:
        del arguments
        raise missing

    return program
