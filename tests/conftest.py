"""The outside world of the tests: one real server for all, emptied before each test that uses it."""

import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from beam_serving.launch.embedded_redis import SERVER_VARIABLE, embedded_redis
from beam_serving.models.store import cache_folder
from beam_serving.telemetry.context import service_context
from beam_serving.transport.connection import RedisAt
from tests.kinds import VARIABLE, Kind, kinds

# What is slow on a busy machine is not wrong; the limit on a whole test is pytest-timeout's.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")
KINDS = pytest.StashKey[list[Kind]]()


def pytest_configure(config: pytest.Config) -> None:
    """Chooses the server, also for the processes that tests start.

    The compiler of torch comes before TensorFlow, whichever test asks first: the other way round, their LLVMs end the
    process.
    """
    if importlib.util.find_spec("triton") is not None:
        importlib.import_module("triton")
    try:
        config.stash[KINDS] = kinds()
    except ValueError as err:
        raise pytest.UsageError(f"{VARIABLE}, or a server on the PATH: {err}") from err
    os.environ[SERVER_VARIABLE] = config.stash[KINDS][0].path


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Says which server it is: in a line of its own, since a header is not shown with -q."""
    chosen, *others = session.config.stash[KINDS]
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        more = "".join(f"; every_server also: {kind.version} ({kind.path})" for kind in others)
        terminal.write_line(f"redis: {chosen.version} ({chosen.path}){more}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs what is marked `every_server` on each server that is there."""
    if "server_kind" in metafunc.fixturenames and metafunc.definition.get_closest_marker("every_server"):
        found = metafunc.config.stash[KINDS]
        ids = [kind.version.replace(" ", "-") for kind in found]
        metafunc.parametrize("server_kind", found, ids=ids, indirect=True, scope="session")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of its own for the test run, also for the processes that tests start: no verdict of before counts.

    Only the jars of the job servers are shared with other runs, since each takes minutes to build.
    """
    kept = cache_folder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        cache_folder().mkdir(exist_ok=True)
        for jar in _jars(kept):
            shared = cache_folder() / jar.relative_to(kept)
            shared.parent.mkdir(exist_ok=True)
            shared.symlink_to(jar)
        yield
        own = cache_folder()
        built = [jar for jar in _jars(own) if not jar.is_symlink()]
    for jar in built:
        (kept / jar.relative_to(own)).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(jar, kept / jar.relative_to(own))


def _jars(folder: Path) -> list[Path]:
    return [*folder.glob("*.jar"), *folder.glob("guard-*/guard.jar")]


@pytest.fixture(scope="session")
def server_kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    """The server program that servers are started from while it is in use."""
    kind: Kind = getattr(request, "param", None) or request.config.stash[KINDS][0]
    before = os.environ[SERVER_VARIABLE]
    os.environ[SERVER_VARIABLE] = kind.path
    yield kind
    os.environ[SERVER_VARIABLE] = before


@pytest.fixture(scope="session")
def redis_port(server_kind: Kind) -> Iterator[int]:
    """The port of a Redis or Valkey server on 127.0.0.1 that lives as long as the test run."""
    with embedded_redis() as port:
        yield port


@pytest.fixture
def at(redis_port: int) -> RedisAt:
    """Where the server of the tests is; it is empty."""
    at = RedisAt("127.0.0.1", redis_port)
    at.client().flushall()
    return at


@pytest.fixture
def client(at: RedisAt) -> Iterator[redis.Redis]:
    """A plain client of the server of the tests."""
    client = at.client()
    yield client
    client.close()


@pytest.fixture(autouse=True)
def fresh_process_state() -> Iterator[None]:
    """Each test starts as a new worker process does: running, with nothing counted."""
    service_context.cache_clear()
    loggers = [logging.getLogger(), logging.getLogger("beam_serving")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    service_context().stop.set()
    service_context.cache_clear()
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
