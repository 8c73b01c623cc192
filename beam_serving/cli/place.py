"""Where a command looks: what --config names or, without any configuration, the Redis of --src."""

from __future__ import annotations

import argparse
from pathlib import Path

from pydantic import ValidationError

from beam_serving.config.schema import Data, Model, Settings, load_settings
from beam_serving.launch.runner import all_runners

_USUAL_STREAM = "serving_stream"


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds the flag for the configuration."""
    parser.add_argument(
        "-c", "--config", type=Path, default=Path("config.yaml"), help="configuration file (%(default)s)"
    )


def add_place(parser: argparse.ArgumentParser) -> None:
    """Adds the flags for the configuration or, in its place, Redis."""
    add_config(parser)
    parser.add_argument("--src", type=_without_config, help="Redis, as host:port; no configuration is read then")


def add_stream(parser: argparse.ArgumentParser) -> None:
    """Adds the flag for the stream."""
    parser.add_argument("--stream", help=f"stream of the requests; {_USUAL_STREAM}, or the first one that is served")


def add_clusters(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say where the clusters of runners are."""
    for runner in all_runners():
        if flag := runner.cluster_flag:
            parser.add_argument(flag.name, dest=flag.name, help=flag.help)


def clusters_at(given: argparse.Namespace) -> dict[str, str | None]:
    """Gives the values of the flags of `add_clusters` by their names."""
    flags = [runner.cluster_flag.name for runner in all_runners() if runner.cluster_flag]
    return {flag: getattr(given, flag) for flag in flags}


def settings_at(given: argparse.Namespace) -> Settings:
    """Gives the settings that the flags of `add_place` name.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    settings: Settings = given.src or load_settings(given.config)
    return settings


def stream_at(given: argparse.Namespace, settings: Settings) -> str:
    """Gives the stream that the flag of `add_stream` names."""
    streams = settings.data.streams
    stream: str = given.stream or (_USUAL_STREAM if _USUAL_STREAM in streams else streams[0])
    return stream


def _without_config(src: str) -> Settings:
    try:
        return Settings(model=Model(path="noop"), data=Data(src=src))
    except ValidationError as err:
        raise argparse.ArgumentTypeError(err.errors()[0]["msg"].removeprefix("Value error, ")) from err
