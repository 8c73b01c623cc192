"""How every command line here is read: by click, with examples in each help and every mistake as one line."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from beam_serving.cli.terminal import written
from beam_serving.errors import ConfigError

LONGEST_S = 10.0 * 365 * 86_400
"""Ten years, which stand for no limit at all."""

_F = TypeVar("_F", bound=Callable[..., object])
_WIDTH = 100


def _write_examples(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    if examples:
        with formatter.section("Examples"):
            for line in examples:
                parts = textwrap.wrap(
                    f"python -m {line}", formatter.width - 6, break_long_words=False, break_on_hyphens=False
                )
                formatter.write("  " + " \\\n    ".join(parts) + "\n")


class Command(click.Command):
    """A command whose help ends with examples, printed as they are."""

    examples: Sequence[str] = ()

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        """Read the command line; a help is printed here."""
        with written(sys.stdout):
            return super().make_context(*arguments, **settings)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then what else stands at the end."""
        _write_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)


class Group(click.Group):
    """A command of several, with examples of them."""

    examples: Sequence[str] = ()
    command_class = Command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then what else stands at the end."""
        _write_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)


def with_examples(*lines: str) -> Callable[[_F], _F]:
    """Give a command examples, each without `python -m` in front."""

    def add(command: _F) -> _F:
        command.examples = lines  # type: ignore[attr-defined]
        return command

    return add


def run(command: click.Command, arguments: Sequence[str], name: str) -> int:
    """Read a command line, run its command and return the exit code; 0 after a help.

    Args:
        command: what runs.
        arguments: behind its name.
        name: the program and its command, for messages.

    Raises:
        ConfigError: an argument is wrong: one line, with the exit code of every mistake of the operator.
        BeamServingError: see the command.
    """
    try:
        settings: dict[str, Any] = {"max_content_width": _WIDTH, "help_option_names": ["-h", "--help"]}
        # Not `main`, which takes a closed pipe or an end of file anywhere in the command for its own.
        with command.make_context(name, list(arguments), **settings) as ctx:
            code = command.invoke(ctx)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.UsageError as err:
        path = err.ctx.command_path if err.ctx else name
        message = " ".join(err.format_message().split()).removesuffix(".")
        raise ConfigError(f"{message}; {path} --help has examples") from err
    except click.Abort as err:
        raise KeyboardInterrupt from err
    return int(code or 0)


class Seconds(click.ParamType[float]):
    """A time: a number above 0, at most ten years."""

    name = "seconds"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        try:
            found = float(str(value))
        except ValueError:
            found = -1.0
        if not 0 < found <= LONGEST_S:
            self.fail(f"wants seconds, a number above 0, got {value!r}", param, ctx)
        return found


SECONDS = Seconds()
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
