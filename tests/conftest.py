"""The outside world of the tests: one real server for all, emptied before each test that uses it."""

from collections.abc import Iterator

import pytest
import redis

from beam_serving.connection import RedisAt
from beam_serving.embedded import embedded_redis
from beam_serving.io.stop import STOP
from beam_serving.stats import stats_of_process


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
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
    STOP.clear()
    stats_of_process.cache_clear()
    yield
    STOP.clear()
