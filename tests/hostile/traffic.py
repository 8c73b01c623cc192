"""Good requests of one client and hostile ones of another, at the same service and the same time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import redis
import redis.asyncio

from beam_serving.client import AsyncInputQueue, AsyncOutputQueue
from beam_serving.transport.connection import RedisAt

STREAM = "serving_stream"
Fields = Mapping[bytes, bytes]


@dataclass
class Seen:
    """What the client of the good requests saw: latencies in seconds, and how many answers were wrong."""

    latencies_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def p99_ms(self) -> float:
        """Gives the latency that 99 of 100 good requests did not exceed."""
        return float(np.percentile(self.latencies_s, 99) * 1000)


def without_a_decoder() -> dict[str, Fields]:
    """Requests that are refused, or served, before anything in them is decoded, and want more of Redis or of a log."""
    tensor = {b"tensor:": bytes(4), b"dtype:": b"float32", b"shape:": b"1"}
    letters = {b"f%d" % number: b"" for number in range(4100)}
    return {
        "no uri": {b"x": b"y"},
        "no uri, many fields": letters,
        "no uri, large": {b"x": bytes(300_000)},
        "empty uri": {b"uri": b"", **tensor},
        "many fields": {b"uri": b"many", **letters},
        "long uri": {b"uri": b"u" * 5000, **tensor},
        "uri of escapes": {b"uri": b"\x1b[2J\x1b]0;owned\x07\r\nERROR forged", **tensor},
        "uri of another stream": {b"uri": b"x:dead", **tensor},
        "names of escapes": {b"uri": b"names", b"tensor:\x1b[31m\n": bytes(4), b"dtype:\x1b[31m\n": b"float32"},
        "old image": {b"uri": b"old", b"image": b"%%%"},
        "old image of a key": {b"uri": b"../serving_stream", b"image": b"AAAA"},
        "both forms": {b"uri": b"both", b"image": b"AAAA", b"data": b"AAAA"},
        "no form": {b"uri": b"none", b"cipher": b"aes-gcm", b"tensor:": bytes(40)},
        "no arrow": {b"uri": b"arrow", b"data": b"QVJST1cx" * 1000},
        "nan shape": {b"uri": b"nan", b"tensor:": b"", b"dtype:": b"float32", b"shape:": b"NaN"},
        "negative shape": {b"uri": b"negative", b"tensor:": b"", b"dtype:": b"float32", b"shape:": b"-1,-1"},
        "pickle": {b"uri": b"pickle", b"data": b"gASVHAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjARleGl0lIWUUpQu"},
    }


class Traffic:
    """A client that keeps some good requests in flight, with hostile ones among them."""

    def __init__(self, at: RedisAt, tensors: np.ndarray, classes: Sequence[int], in_flight: int = 32) -> None:
        self._at = at
        self._tensors = tensors
        self._classes = classes
        self._in_flight = in_flight

    def run(self, name: str, good: int, hostile: Sequence[Fields] = ()) -> Seen:
        """Send so many good requests and, spread evenly among them, the hostile ones."""
        return asyncio.run(self._run(name, good, hostile))

    async def _run(self, name: str, good: int, hostile: Sequence[Fields]) -> Seen:
        seen = Seen()
        numbers = iter(range(good))
        every = good / len(hostile) if hostile else 0.0
        url = f"redis://{self._at}/0"
        async with AsyncInputQueue(url) as queue, AsyncOutputQueue(url) as results:
            attacker = redis.asyncio.Redis(host=self._at.host, port=self._at.port)
            sent = iter(hostile)

            async def attack(number: int) -> None:
                while every and self._sent < len(hostile) and self._sent * every <= number:
                    self._sent += 1
                    await attacker.xadd(STREAM, dict(next(sent)))

            self._sent = 0
            await asyncio.gather(
                *(self._ask(name, numbers, queue, results, seen, attack) for _ in range(self._in_flight))
            )
            await attacker.aclose()
        return seen

    async def _ask(
        self,
        name: str,
        numbers: Iterator[int],
        queue: AsyncInputQueue,
        results: AsyncOutputQueue,
        seen: Seen,
        attack: Callable[[int], Awaitable[None]],
    ) -> None:
        for number in numbers:
            await attack(number)
            which = number % len(self._tensors)
            started = time.perf_counter()
            uri = f"{name}-{number}"
            await queue.enqueue(uri, self._tensors[which])
            answer = await results.query(uri, timeout_s=120, delete=True)
            seen.latencies_s.append(time.perf_counter() - started)
            if not isinstance(answer, dict) or next(iter(answer)) != self._classes[which]:
                seen.wrong.append(f"{uri}: {answer!r}"[:200])


def with_decoders(most_bytes: int) -> dict[str, Fields]:
    """Requests that want more of a decoder than they should, of at most so many bytes each."""
    from tests.hostile.requests import CASES

    made = {}
    for name, case in CASES.items():
        fields = {b"uri": b"hostile", **case.fields()}
        if sum(map(len, fields)) + sum(map(len, fields.values())) <= most_bytes:
            made[name] = fields
    return made


def mixed(kinds: Mapping[str, Fields], count: int, seed: int = 7) -> list[Fields]:
    """Gives so many hostile requests, all kinds equally often, in a random order that a seed repeats."""
    chosen = [fields for number, fields in zip(range(count), _repeated(list(kinds.values())), strict=False)]
    random.Random(seed).shuffle(chosen)  # noqa: S311 - a repeatable order, no secret
    return chosen


def _repeated(values: Sequence[Fields]) -> Iterator[Fields]:
    while True:
        yield from values


def drained(client: redis.Redis) -> bool:
    """Whether nothing waits and nothing is pending."""
    pending = client.xpending(STREAM, "serving")["pending"]  # type: ignore[index]
    return client.xlen(STREAM) == 0 and pending == 0
