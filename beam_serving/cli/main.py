"""The command line: `python -m beam_serving`, or `beam-serving` once installed."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from beam_serving import __version__
from beam_serving.cli.arguments import Parser
from beam_serving.cli.terminal import say
from beam_serving.errors import BeamServingError, ConfigError

COMMANDS = {
    "serve": "serve a model; the same as no command at all",
    "restart": "stop a service and start it again",
    "init": "write a commented config.yaml to start from",
    "config": "check a configuration file, also an old one, and write its new form",
    "status": "show what a service does: workers, queue, its job on a cluster",
    "list": "list the services that report in one Redis",
    "stop": "end a service, on this machine or on a cluster; what is queued stays",
    "enqueue": "put image files on the queue, and wait for their results",
    "results": "show results that are there, or remove them",
    "worker-pool": "start workers beside a Flink task manager when it asks for them",
    "quickstart": "push some images through a demo model and print its answers",
    "model": "look at a model: its format, engine, inputs, outputs, size and speed",
    "bench": "measure a service with its own model: records/s, latencies",
}
"""Sub-commands: each is a module of `beam_serving.cli.commands` with a `main(arguments)`."""

_EXAMPLES = """\
examples:
  python -m beam_serving --config config.yaml --runner=DirectRunner
  python -m beam_serving --config config.yaml --workers 2 --drain
  python -m beam_serving --config config.yaml --drain --output results/ --output-format parquet
  python -m beam_serving --config config.yaml --detach
  python -m beam_serving quickstart

Flags of Apache Beam pass through, for example --job_name=digits. Further commands, each with its own --help:
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives the exit code: 0 done, 1 failed while serving, 2 wrong usage or configuration."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code_of(lambda: _run(given))


def exit_code_of(run: Callable[[], int]) -> int:
    """Run a command line and return its exit code; SIGTERM ends it as Ctrl-C does, and errors are one line each."""
    try:
        # Also before the service handles it: the kernel drops a signal that the first process of a container does not.
        signal.signal(signal.SIGTERM, _end_command)
        return run()
    except ConfigError as err:
        say(f"error: {err}", to=sys.stderr)
        return 2
    except BeamServingError as err:
        say(f"error: {err}", to=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in COMMANDS:
        command = importlib.import_module(f"beam_serving.cli.commands.{arguments[0].replace('-', '_')}")
        return int(command.main(arguments[1:]))
    return _serve(arguments)


def _end_command(signum: int, frame: FrameType | None) -> None:
    """Ends a command as Ctrl-C does, so that it takes down what it has started."""
    del signum, frame
    raise KeyboardInterrupt


def _serve(arguments: Sequence[str]) -> int:
    """Is the command `serve`, whose flags then stand in the help of all."""
    if arguments and not arguments[0].startswith("-"):
        raise ConfigError(f"unknown command {arguments[0]!r}; commands: {', '.join(COMMANDS)}; see --help")
    # Imported here: the other commands need not load it.
    from beam_serving.cli.commands.serve import add_flags, checked_start, run

    parser = _parser()
    add_flags(parser)
    return run(checked_start(parser, arguments))


def _parser() -> Parser:
    parser = Parser(
        prog="beam-serving",
        description="Serve a model from a Redis stream, as an Apache Beam pipeline.",
        epilog=_EXAMPLES + "\n".join(f"  {name:12}{what}" for name, what in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"beam-serving {__version__}")
    return parser
