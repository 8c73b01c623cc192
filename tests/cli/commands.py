"""Every command of the command line, also one that is added tomorrow."""

import importlib
from collections.abc import Iterator

import click

from beam_serving.cli.main import COMMANDS, _program


def all_commands() -> Iterator[tuple[list[str], click.Command]]:
    """Yields each with the words that call it: first the program itself, which has none."""
    yield [], _program()
    for name in COMMANDS:
        main = importlib.import_module(f"beam_serving.cli.commands.{name.replace('-', '_')}").main
        (command,) = {
            found
            for key, found in main.__globals__.items()
            if key in ("_command", "_group") and key in main.__code__.co_names
        }
        if isinstance(command, click.Group):
            yield from (([name, sub], found) for sub, found in command.commands.items())
        else:
            yield [name], command
