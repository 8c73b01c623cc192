"""Where a drain writes its results as files: a folder of this machine, or an address in a store."""

from __future__ import annotations

import re
from pathlib import Path

from beam_serving.errors import ConfigError

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")


def scheme_of(path: str) -> str:
    """Return the scheme of an address in a store, "" of a folder of this machine."""
    found = _SCHEME.match(path)
    return found[1] if found else ""


def is_url(path: str) -> bool:
    """Return whether a path is in a store, and not a folder of this machine."""
    return bool(scheme_of(path))


def path_of_flag(text: str) -> str:
    """Return the path that an argument of the command line means, seen from the folder where it was given.

    Raises:
        ConfigError: it is empty, as an unset variable of a shell is.
    """
    if not text:
        raise ConfigError("--output is empty; wanted is a folder or an address as gs://bucket/folder")
    return text if is_url(text) else str(Path(text).expanduser().absolute())
