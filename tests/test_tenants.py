"""What one client can do to another, on the servers that the suite has: as docs/redis.md says."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import redis
from redis.exceptions import NoPermissionError

from beam_serving.client import InputQueue, OutputQueue
from beam_serving.transport.connection import RedisAt
from tests.rights import rules

pytestmark = pytest.mark.every_server
MINE, THEIRS = "requests-a", "requests-b"


@pytest.fixture
def tenant(at: RedisAt, client: redis.Redis) -> Iterator[redis.Redis]:
    """A connection of a user who has one of two streams; in both is a request, and of both is a result."""
    for stream in (MINE, THEIRS):
        client.xadd(stream, {"uri": "x"})
        client.hset(f"cluster-serving_{stream}:x", "value", "[]")
    client.execute_command("ACL", "SETUSER", "tenant", *rules("client", "right", MINE))
    yield redis.Redis(at.host, at.port, username="tenant", password="right")  # noqa: S106
    client.execute_command("ACL", "DELUSER", "tenant")


def test_a_tenant_can_queue_and_fetch(at: RedisAt, tenant: redis.Redis, client: redis.Redis) -> None:
    url = f"redis://tenant:right@{at.host}:{at.port}/0"
    with InputQueue(url, stream=MINE) as queue, OutputQueue(url, stream=MINE) as results:
        queue.enqueue("y", np.zeros(2, np.float32))
        client.hset(f"cluster-serving_{MINE}:y", "value", "[[7,0.5]]")
        assert results.query("y", timeout_s=5, delete=True) == {7: 0.5}
        assert results.dequeue().keys() == {"x"}


ACTS: dict[str, Callable[[redis.Redis, str], Any]] = {
    "delete": lambda client, stream: client.delete(stream),
    "unlink": lambda client, stream: client.unlink(stream),
    "overwrite": lambda client, stream: client.set(stream, ""),
    "expire": lambda client, stream: client.pexpire(stream, 1),
    "rename": lambda client, stream: client.rename(stream, f"cluster-serving_{MINE}:z"),
    "trim": lambda client, stream: client.xtrim(stream, 0),
    "read": lambda client, stream: client.xrange(stream),
    "take": lambda client, stream: client.xreadgroup("serving", "thief", {stream: ">"}),
    "destroy": lambda client, stream: client.xgroup_destroy(stream, "serving"),
    "answer": lambda client, stream: client.hset(f"cluster-serving_{stream}:x", "value", "wrong"),
    "publish": lambda client, stream: client.publish(f"cluster-serving_{stream}:x", ""),
    "script": lambda client, stream: client.eval("return redis.call('DEL', KEYS[1])", 1, stream),
    "letters": lambda client, stream: client.xrange(f"{stream}:dead"),
}
ONLY_OF_OTHERS: dict[str, Callable[[redis.Redis, str], Any]] = {
    "add": lambda client, stream: client.xadd(stream, {"uri": "y"}),
    "add and trim": lambda client, stream: client.xadd(stream, {"uri": "y"}, maxlen=0),
    "last id": lambda client, stream: client.xadd(stream, {"uri": "y"}, f"{2**64 - 1}-{2**64 - 1}"),
    "fetch": lambda client, stream: client.hgetall(f"cluster-serving_{stream}:x"),
    "remove": lambda client, stream: client.delete(f"cluster-serving_{stream}:x"),
    "wait": lambda client, stream: listened(client, f"cluster-serving_{stream}:x"),
}


def listened(client: redis.Redis, channel: str) -> Any:
    with client.pubsub() as waiting:
        waiting.subscribe(channel)
        return waiting.get_message(timeout=5)


@pytest.mark.parametrize("act", [*ACTS, *ONLY_OF_OTHERS])
def test_a_tenant_can_do_nothing_to_another(act: str, tenant: redis.Redis, client: redis.Redis) -> None:
    with pytest.raises(NoPermissionError):
        (ACTS | ONLY_OF_OTHERS)[act](tenant, THEIRS)
    assert client.xlen(THEIRS) == 1
    assert client.hgetall(f"cluster-serving_{THEIRS}:x") == {b"value": b"[]"}


@pytest.mark.parametrize("act", ACTS)
def test_a_client_cannot_take_its_stream_away(act: str, tenant: redis.Redis, client: redis.Redis) -> None:
    with pytest.raises(NoPermissionError):
        ACTS[act](tenant, MINE)
    assert client.xlen(MINE) == 1


def test_within_a_stream_results_can_be_kept_apart_by_uri(
    at: RedisAt, tenant: redis.Redis, client: redis.Redis
) -> None:
    own = f"cluster-serving_{MINE}:acme/*"
    apart = ["clearselectors", "resetchannels", f"&{own}", f"(+xadd ~{MINE})", f"(+hgetall +del ~{own})"]
    client.execute_command("ACL", "SETUSER", "tenant", *apart)
    client.hset(f"cluster-serving_{MINE}:acme/y", "value", "[]")
    assert tenant.hgetall(f"cluster-serving_{MINE}:acme/y")
    for act in ("fetch", "remove", "wait"):
        with pytest.raises(NoPermissionError):
            ONLY_OF_OTHERS[act](tenant, MINE)
