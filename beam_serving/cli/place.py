"""Where a command looks: what --config names or, without any configuration, the Redis of --src."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from beam_serving.config.schema import Settings

_USUAL_STREAM = "serving_stream"
_F = TypeVar("_F", bound=Callable[..., object])


def _without_sign(ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    """Read `-c=FILE` too, whose sign click takes for the beginning of the value."""
    del ctx, param
    return Path(str(value).removeprefix("="))


config_option = click.option(
    "-c", "--config", type=click.Path(path_type=Path), default=Path("config.yaml"), show_default=True,
    help="Configuration file.", callback=_without_sign,
)  # fmt: skip


def _src(ctx: click.Context, param: click.Parameter, value: str | None) -> Settings | None:
    if value is None:
        return None
    from pydantic import ValidationError

    from beam_serving.config.schema import Data, Model, Settings

    try:
        return Settings(model=Model(path="noop"), data=Data(src=value))
    except ValidationError as err:
        reason = err.errors()[0]["msg"].removeprefix("Value error, ")
        raise click.BadParameter(reason.replace("stand in the file", "stand on the command line"), ctx, param) from err


src_option = click.option("--src", callback=_src, help="Redis, as host:port; no configuration is read then.")
stream_option = click.option("--stream", help=f"Stream of the requests; {_USUAL_STREAM}, or the first one served.")


def cluster_options(command: _F) -> _F:
    """Add the options that say where the clusters of runners are; they arrive as keywords, see `clusters_at`."""
    from beam_serving.launch.runner import all_runners

    for runner in all_runners():
        if flag := runner.cluster_flag:
            command = click.option(flag.name, _keyword(flag.name), help=flag.help)(command)
    return command


def clusters_at(given: dict[str, str | None]) -> dict[str, str | None]:
    """Return the values of these options by their names."""
    from beam_serving.launch.runner import all_runners

    flags = [runner.cluster_flag.name for runner in all_runners() if runner.cluster_flag]
    return {flag: given[_keyword(flag)] for flag in flags}


def _keyword(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


def settings_at(config: Path, src: Settings | None) -> Settings:
    """Return the settings that --config or --src name.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    from beam_serving.config.schema import load_settings

    return src or load_settings(config)


def stream_at(stream: str | None, settings: Settings) -> str:
    """Return the stream that --stream names, else the usual or first one of the settings."""
    streams = settings.data.streams
    return stream or (_USUAL_STREAM if _USUAL_STREAM in streams else streams[0])
