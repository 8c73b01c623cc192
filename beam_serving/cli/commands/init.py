"""Writes a configuration to start from: every key with its default and meaning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from beam_serving.cli.arguments import Command, run, with_examples
from beam_serving.cli.terminal import say
from beam_serving.errors import ConfigError

TEMPLATE = Path(__file__).with_name("template.yaml")


def main(arguments: Sequence[str]) -> int:
    """Write the file and return the exit code.

    Raises:
        ConfigError: there is one already, or it cannot be written.
    """
    return run(_command, arguments, "beam-serving init")


@with_examples("beam_serving init", "beam_serving init my_service/config.yaml")
@click.command(cls=Command, help="Write a commented config.yaml; all that has to be changed in it is model: path.")
@click.argument("path", type=click.Path(path_type=Path), default=Path(), metavar="[FILE OR FOLDER]")
@click.option("--force", is_flag=True, help="Overwrite a file that is there already.")
def _command(path: Path, force: bool) -> int:
    path = path / "config.yaml" if path.is_dir() else path
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(TEMPLATE.read_text(encoding="utf-8"))
    except FileExistsError as err:
        raise ConfigError(f"{path} exists already; --force overwrites it") from err
    except OSError as err:
        raise ConfigError(f"{path}: cannot be written ({err.strerror})") from err
    say(f"wrote {path}; set model: path in it, then run python -m beam_serving --config {path}")
    return 0
