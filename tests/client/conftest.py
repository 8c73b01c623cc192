"""A real server for the client, and a stand-in for the service that answers as the real one does."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import redis

from beam_serving.launch.embedded_redis import embedded_redis
from beam_serving.protocol import decode_request, encode_result, result_key
from beam_serving.records import Answer, Failure, Origin, Payload, Result, TopClasses
from tests.kinds import Kind

STREAM = "serving_stream"
Outcome = Answer | Failure


@pytest.fixture(scope="session")
def port(server_kind: Kind) -> Iterator[int]:
    """A server's port; without a limit of memory, as servers are by default."""
    with embedded_redis(0, "--maxmemory", "0") as port:
        yield port


@pytest.fixture
def valkey(port: int) -> Iterator[redis.Redis]:
    """An empty database and a connection to it."""
    client = redis.Redis(port=port, protocol=2)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def url(port: int) -> str:
    return f"redis://127.0.0.1:{port}"


def best(*pairs: tuple[int, float]) -> Answer:
    """Gives an answer of one output with these classes and scores."""
    return Answer({"p": TopClasses(np.array([c for c, _ in pairs]), np.array([s for _, s in pairs]))})


@dataclass
class StandIn:
    """Answers requests as the service does: the hash and its announcement in one transaction."""

    valkey: redis.Redis
    stream: str = STREAM

    def payloads(self) -> list[Payload]:
        """Gives all requests that wait on the stream."""
        return [decode_request(fields) for _, fields in self.valkey.xrange(self.stream)]

    def write(self, payload: Payload, outcome: Outcome) -> None:
        """Writes the result of one request."""
        origin = Origin(self.stream.encode(), b"1-1", payload.uri, payload.protocol, payload.request_id)
        key = result_key(origin.protocol, origin.stream, origin.uri)
        transaction = self.valkey.pipeline(transaction=True)
        transaction.delete(key)
        transaction.hset(key, mapping=encode_result(Result(origin, outcome)))
        transaction.publish(key, b"1-1")
        transaction.execute()

    def answer_all(self, outcome: Outcome) -> None:
        """Answers all requests that wait on the stream, and takes them off."""
        for payload in self.payloads():
            self.write(payload, outcome)
        self.valkey.delete(self.stream)


@pytest.fixture
def service(valkey: redis.Redis) -> StandIn:
    return StandIn(valkey)


@pytest.fixture
def once_subscribed(valkey: redis.Redis) -> Callable[[bytes, Callable[[], object]], threading.Thread]:
    """Runs something in a thread as soon as somebody listens on a channel."""

    def run(channel: bytes, action: Callable[[], object]) -> threading.Thread:
        def wait_and_act() -> None:
            while not valkey.pubsub_numsub(channel)[0][1]:
                pass
            action()

        thread = threading.Thread(target=wait_and_act, daemon=True)
        thread.start()
        return thread

    return run
