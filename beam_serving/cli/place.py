"""Where a command looks: what --config names or, without any configuration, the Redis of --src."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import click

from beam_serving.config.bare import bare_settings
from beam_serving.errors import ConfigError

if TYPE_CHECKING:
    from beam_serving.config.schema import Settings

_USUAL_STREAM = "serving_stream"
_SETS = "beam_serving.sets"
_F = TypeVar("_F", bound=Callable[..., object])


class Configuration(NamedTuple):
    """What a command reads: the file of --config, and the values of --set that take the place of those in it."""

    path: Path
    sets: tuple[str, ...] = ()

    def load(self) -> Settings:
        """Read and check it.

        Raises:
            ConfigError: see `load_settings`.
        """
        from beam_serving.config.schema import load_settings

        return load_settings(self.path, self.sets)

    def arguments(self) -> list[str]:
        """Return the flags that name it to another command, started in the same directory and environment."""
        return ["--config", str(self.path), *(part for one in self.sets for part in ("--set", one))]


def _keep(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
    del param
    ctx.meta[_SETS] = value


def _configuration(ctx: click.Context, param: click.Parameter, value: Path) -> Configuration:
    """Read `-c=FILE` too, whose sign click takes for the beginning of the value."""
    del param
    return Configuration(Path(str(value).removeprefix("=")), sets_of(ctx))


def sets_of(ctx: click.Context) -> tuple[str, ...]:
    """Return the values of --set, for commands that name their file otherwise."""
    found: tuple[str, ...] = ctx.meta.get(_SETS, ())
    return found


set_option = click.option(
    "--set", multiple=True, metavar="KEY=VALUE", expose_value=False, is_eager=True, callback=_keep,
    help="A value in place of the configuration's, as data.src=redis-host:6379; may be repeated.",
)  # fmt: skip


def config_option(command: _F) -> _F:
    """Add --config and --set, which arrive as one keyword, `config`: a `Configuration`."""
    file = click.option(
        "-c", "--config", type=click.Path(path_type=Path), default=Path("config.yaml"), show_default=True,
        help="Configuration file.", callback=_configuration,
    )  # fmt: skip
    return file(set_option(command))


def _src(ctx: click.Context, param: click.Parameter, value: str | None) -> Settings | None:
    if value is None:
        return None
    try:
        return bare_settings(value)
    except ValueError as err:
        reason = str(err).replace("stand in the file", "stand on the command line")
        raise click.BadParameter(reason, ctx, param) from err


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


def settings_at(config: Configuration, src: Settings | None) -> Settings:
    """Return the settings that --config or --src name.

    Raises:
        ConfigError: the configuration cannot be used, or is changed by --set and not read.
    """
    if src and config.sets:
        raise ConfigError("--set changes the configuration, and with --src none is read; leave one of them out")
    return src or config.load()


def stream_at(stream: str | None, settings: Settings) -> str:
    """Return the stream that --stream names, else the usual or first one of the settings."""
    streams = settings.data.streams
    return stream or (_USUAL_STREAM if _USUAL_STREAM in streams else streams[0])
