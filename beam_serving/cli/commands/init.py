"""Writes a configuration to start from: every key with its default and meaning."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from beam_serving.cli.arguments import Parser
from beam_serving.cli.terminal import say
from beam_serving.errors import ConfigError

TEMPLATE = Path(__file__).with_name("template.yaml")


def main(arguments: Sequence[str]) -> int:
    """Writes the file and gives the exit code.

    Raises:
        ConfigError: there is one already, or it cannot be written.
    """
    parser = Parser(
        prog="beam-serving init",
        description="Write a commented config.yaml; all that has to be changed in it is model: path.",
        epilog="examples:\n  python -m beam_serving init\n  python -m beam_serving init my_service/config.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "path", type=Path, nargs="?", default=Path(), help="file, or folder for config.yaml (%(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite a file that is there already")
    given = parser.parse_args(arguments)
    path: Path = given.path / "config.yaml" if given.path.is_dir() else given.path
    try:
        with path.open("w" if given.force else "x", encoding="utf-8") as file:
            file.write(TEMPLATE.read_text(encoding="utf-8"))
    except FileExistsError as err:
        raise ConfigError(f"{path} exists already; --force overwrites it") from err
    except OSError as err:
        raise ConfigError(f"{path}: cannot be written ({err.strerror})") from err
    say(f"wrote {path}; set model: path in it, then run python -m beam_serving --config {path}")
    return 0
