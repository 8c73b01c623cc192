"""What a service is called and where its Redis is, as its configuration says, and nothing else of that.

The check of a whole configuration takes longer than a health check should: here the rest is neither checked nor loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from beam_serving.config.legacy.translate import Translation, translate
from beam_serving.config.overrides import PREFIX, overridden, overrides, variable_of
from beam_serving.config.yaml_file import read_yaml
from beam_serving.errors import ConfigError
from beam_serving.transport.address import Address
from beam_serving.transport.connection import RedisAt
from beam_serving.transport.routes import route_of

NAME = "beam-serving"
SRC = "localhost:6379"
"""Of a service whose configuration says nothing else."""
REDIS_TIMEOUT_S = 5.0
_READ = ("name", "data.src", "redis.username", "redis.timeout_s", "redis.password_file", "redis.ca_file")
_FILES = ("password_file", "ca_file")
_KNOWN = ("name", "model", "data", "params", "redis", "flink", "spark", "redis.timeout_s", "redis.ca_file")


class Whereabouts(NamedTuple):
    """The name of a service, and its Redis."""

    name: str
    at: RedisAt


def whereabouts(
    path: Path, most_s: float, sets: Sequence[str] = (), environment: Mapping[str, str] = os.environ
) -> Whereabouts:
    """Read them from a configuration file of any version, and from beside it.

    Args:
        path: the file.
        most_s: seconds that a connection and a reply of this Redis may take, where the file allows more.
        sets: see `load_settings`; values of other keys are nothing to this.
        environment: alike.

    Raises:
        ConfigError: the file cannot be read, or what is wanted of it is wrong; `config check` says more.
    """
    wanted = {*map(variable_of, _READ)}
    # Of other keys of ours nothing is read; what values stand for may be any variable.
    ours = {name: text for name, text in environment.items() if name in wanted or not name.startswith(PREFIX)}
    its = [one for one in sets if one.partition("=")[0].strip() in _READ]
    layers = overrides(_READ, its, ours)
    translation = overridden(translate(read_yaml(path, environment), _KNOWN), layers)
    try:
        return _found(translation, path.resolve().parent, most_s)
    except (AttributeError, TypeError, ValueError) as err:
        raise ConfigError(
            f"{path}: name, data: src or the section redis cannot be read ({err}); see config check"
        ) from err


def _found(translation: Translation, folder: Path, most_s: float) -> Whereabouts:
    values: dict[Any, Any] = translation.values
    redis = values.get("redis") or {}
    name = str(values.get("name") or NAME)
    address = Address.parse(str((values.get("data") or {}).get("src") or SRC))
    host, port = address.hosts[0]
    # A path from beside the file is one of the current directory.
    here = {
        key: Path.cwd() if f"redis.{key}" in translation.sources else folder for key in ("password_file", "ca_file")
    }
    files = {key: _path(redis.get(key), base) for key, base in here.items()}
    return Whereabouts(
        name,
        RedisAt(
            host=host,
            port=port,
            db=address.db,
            tls=address.tls,
            username=redis.get("username") or address.username,
            timeout_s=min(float(redis.get("timeout_s") or REDIS_TIMEOUT_S), most_s),
            # On a cluster the name has the hash tag of the streams.
            route=route_of(address, name),
            **files,
        ),
    )


def _path(value: object, folder: Path) -> str | None:
    return str(folder / os.path.expanduser(str(value))) if value else None
