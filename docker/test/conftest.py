"""The outside world of these tests: the engine that `run.py` has prepared, a server, a directory to serve."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import FOLDER_VARIABLE, Engine
from serving import serve_digits

from beam_serving.launch.embedded_redis import embedded_redis
from beam_serving.transport.connection import RedisAt


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The engine with the images in it."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        pytest.fail("these tests need what `make docker-test` prepares")
    return Engine(Path(folder))


@pytest.fixture
def at() -> Iterator[RedisAt]:
    """Where a server is that holds nothing."""
    with embedded_redis() as port:
        yield RedisAt("127.0.0.1", port)


@pytest.fixture
def folder(tmp_path: Path, at: RedisAt) -> Path:
    """A directory whose configuration names the server, and the demo's model in it."""
    serve_digits(tmp_path, at)
    return tmp_path
