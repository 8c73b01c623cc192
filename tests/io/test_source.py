"""The source between its checkpoints, on a real stream."""

import gc
import math
import weakref

import redis

from beam_serving.io.consumer import Reading
from beam_serving.io.readers import Readers
from beam_serving.io.source import ReadBatches, _BatchTracker, _Reader
from beam_serving.telemetry.context import service_context
from beam_serving.transport.connection import RedisAt


class Node:
    def __init__(self) -> None:
        self.itself = self


def test_what_is_alive_at_a_checkpoint_is_collected_later(at: RedisAt, client: redis.Redis) -> None:
    client.xgroup_create("stream", "serving", "0", mkstream=True)
    reading = Reading(at, ("stream",), "serving", count=8, poll_s=0.001, reclaim_idle_s=30.0)
    reader = _Reader(reading, Readers(["me"]))

    def read() -> None:
        assert list(reader.entries("me", _BatchTracker(ReadBatches(0)), math.inf)) == []

    stop = service_context().stop
    stop.set()
    try:
        read()
        node = Node()
        alive = weakref.ref(node)
        read()
    finally:
        stop.clear()
    del node
    gc.collect()
    assert alive() is None
