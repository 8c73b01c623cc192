"""Writes a configuration to start from: every key with its default and meaning."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import click

from beam_serving.cli.arguments import Command, run, with_examples
from beam_serving.cli.terminal import say
from beam_serving.errors import ConfigError

TEMPLATE = Path(__file__).with_name("template.yaml")
_DEMO = Path(__file__).parents[2] / "demo"
_DEMO_PARTS = ("config.yaml", "labels.txt", "model", "images")


def main(arguments: Sequence[str]) -> int:
    """Write the file and return the exit code.

    Raises:
        ConfigError: there is one already, or it cannot be written.
    """
    return run(_command, arguments, "beam-serving init")


@with_examples("beam_serving init", "beam_serving init my_service/config.yaml", "beam_serving init --demo digits")
@click.command(cls=Command, help="Write a commented config.yaml; all that has to be changed in it is model: path.")
@click.argument("path", type=click.Path(path_type=Path), default=Path(), metavar="[FILE OR FOLDER]")
@click.option("--force", is_flag=True, help="Overwrite a file that is there already.")
@click.option("--demo", is_flag=True, help="Make a folder with a service to start from: a model, labels, images.")
def _command(path: Path, force: bool, demo: bool) -> int:
    path = path / "config.yaml" if demo or path.is_dir() else path
    there = [path.parent / name for name in _DEMO_PARTS if (path.parent / name).exists()] if demo and not force else []
    if there:
        raise ConfigError(f"{there[0]} exists already; --force overwrites it")
    try:
        if demo:
            _copy_demo(path.parent)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write((_DEMO / "config.yaml" if demo else TEMPLATE).read_text(encoding="utf-8"))
    except FileExistsError as err:
        raise ConfigError(f"{err.filename} exists already; --force overwrites it") from err
    except shutil.Error as err:
        raise ConfigError(f"{path.parent}: the model and the images cannot be written ({err})") from err
    except OSError as err:
        raise ConfigError(f"{err.filename or path}: cannot be written ({err.strerror})") from err
    if demo:
        say(f"wrote {path}, and beside it a model, labels.txt and images/; serve it by beam-serving -c {path}")
    else:
        say(f"wrote {path}; set model: path in it, then run python -m beam_serving --config {path}")
    return 0


def _copy_demo(folder: Path) -> None:
    """Write all but the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_DEMO / "labels.txt", folder / "labels.txt")
    for name in ("model", "images"):
        shutil.copytree(_DEMO / name, folder / name, copy_function=shutil.copyfile, dirs_exist_ok=True)
