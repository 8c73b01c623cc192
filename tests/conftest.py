"""The outside world of the tests: one real server for all, emptied before each test that uses it."""

import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from beam_serving.launch.embedded_redis import SERVER_VARIABLE, embedded_redis
from beam_serving.models.store import cache_folder
from beam_serving.telemetry.context import service_context
from beam_serving.transport.connection import RedisAt
from tests.jars import keep_built, take_kept
from tests.kinds import VARIABLE, Kind, kinds
from tests.needs import LEFT_OUT, marks_of_file, marks_of_test

# What is slow on a busy machine is not wrong; the limit on a whole test is pytest-timeout's.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")
KINDS = pytest.StashKey[list[Kind]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the flag of `make test-fast`."""
    parser.addoption("--fast", action="store_true", help=f"leave out tests that are marked {', '.join(LEFT_OUT)}")


def pytest_configure(config: pytest.Config) -> None:
    """Chooses the server, also for the processes that tests start.

    The compiler of torch comes before TensorFlow, whichever test asks first: the other way round, their LLVMs end the
    process.
    """
    if not config.getoption("--fast") and importlib.util.find_spec("triton") is not None:
        importlib.import_module("triton")
    try:
        config.stash[KINDS] = kinds()
    except ValueError as err:
        raise pytest.UsageError(f"{VARIABLE}, or a server on the PATH: {err}") from err
    os.environ[SERVER_VARIABLE] = config.stash[KINDS][0].path


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --fast does not even import a file that would load a framework."""
    left_out = config.getoption("--fast") and collection_path.suffix == ".py" and marks_of_file(collection_path)
    return True if left_out else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks tests with what they need, and with --fast leaves out those that need more than the package."""
    for item in items:
        for mark in sorted(marks_of_test(item)):
            item.add_marker(mark)
    if config.getoption("--fast"):
        slow = [item for item in items if any(item.get_closest_marker(mark) for mark in LEFT_OUT)]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        cache_folder().mkdir(exist_ok=True)
        take_kept()
        yield
        keep_built()


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


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """The command line sets up logging, and hooks for what nobody catches, for a whole process; the tests share one."""
    root, ours = logging.getLogger(), logging.getLogger("beam_serving")
    handlers, levels, hooks = root.handlers[:], (root.level, ours.level), (sys.excepthook, threading.excepthook)
    yield
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
