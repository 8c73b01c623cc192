"""The load: requests of the asyncio client, so many in flight or so many each second, each timed.

In flight, a request is followed by the next when its result is there. At a rate, each has its time by the clock, and
its latency counts from that time: a service that falls behind is not asked less, and what waits is not left out.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, cycle

from beam_serving.cli.commands.bench.inputs import Inputs
from beam_serving.client import AsyncInputQueue, AsyncOutputQueue
from beam_serving.errors import ClientError, ConnectError, ResultTimeoutError


@dataclass(frozen=True)
class Plan:
    """One measurement: `in_flight` requests at a time or, where `rate` is set, so many begun each second.

    It begins `requests`, or as many as `seconds` hold; one that has no result after `timeout_s` has failed.
    """

    in_flight: int
    rate: float | None
    requests: int | None
    seconds: float
    timeout_s: float

    @property
    def title(self) -> str:
        """What is done, in words."""
        return f"{self.in_flight} in flight" if self.rate is None else f"{self.rate:g} each second"


@dataclass
class Measured:
    """What came of a plan. Latencies are of good results, from before a request was queued to its result in hand."""

    plan: Plan
    latencies_s: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    """What this process used meanwhile."""


class Load:
    """Sends `requests` by turns over one pair of queues."""

    def __init__(self, queue: AsyncInputQueue, results: AsyncOutputQueue, requests: Sequence[Inputs]) -> None:
        self._queue, self._results = queue, results
        self._requests: Iterator[Inputs] = cycle(requests)
        self._name = f"bench-{uuid.uuid4().hex[:8]}"
        self._slots = 0

    async def measure(self, plan: Plan, on_result: Callable[[], object]) -> Measured:
        """Carry out a plan; `on_result` hears of each request that is over.

        Raises:
            ConnectError: Redis cannot be reached, or refuses us.
        """
        measured = Measured(plan)
        cpu_before_s, began_at = time.process_time(), time.perf_counter()
        run = self._in_flight if plan.rate is None else self._at_rate
        try:
            await run(plan, measured, on_result)
        except ExceptionGroup as group:  # of requests that failed alike at the same time
            raise group.exceptions[0] from group
        measured.elapsed_s = time.perf_counter() - began_at
        measured.cpu_s = time.process_time() - cpu_before_s
        return measured

    async def warm_up(self, requests: int, timeout_s: float) -> Measured:
        """Send some requests that are not counted."""
        return await self.measure(Plan(requests, None, requests, timeout_s, timeout_s), lambda: None)

    async def clear(self) -> None:
        """Remove the results that are left."""
        await self._results.query_many([self._uri(slot) for slot in range(self._slots)], delete=True)

    async def _in_flight(self, plan: Plan, measured: Measured, on_result: Callable[[], object]) -> None:
        left = iter(count() if plan.requests is None else range(plan.requests))
        ends_at = time.perf_counter() + plan.seconds

        async def keep_going(slot: int) -> None:
            while plan.requests is not None or time.perf_counter() < ends_at:
                if next(left, None) is None:
                    return
                await self._one(slot, time.perf_counter(), measured)
                on_result()

        async with asyncio.TaskGroup() as group:
            for slot in range(plan.in_flight):
                group.create_task(keep_going(slot))

    async def _at_rate(self, plan: Plan, measured: Measured, on_result: Callable[[], object]) -> None:
        assert plan.rate is not None  # noqa: S101 - the only case it is called in
        requests = round(plan.rate * plan.seconds) if plan.requests is None else plan.requests
        idle: list[int] = []
        began_at = time.perf_counter()

        async def send(slot: int, due_at: float) -> None:
            await self._one(slot, due_at, measured)
            idle.append(slot)
            on_result()

        async with asyncio.TaskGroup() as group:
            slots = count()
            for number in range(requests):
                due_at = began_at + number / plan.rate
                await asyncio.sleep(max(0.0, due_at - time.perf_counter()))
                group.create_task(send(idle.pop() if idle else next(slots), due_at))

    async def _one(self, slot: int, due_at: float, measured: Measured) -> None:
        """Send one request and wait for its result. Slots have one uri each: there are as many results as slots."""
        self._slots = max(self._slots, slot + 1)
        uri = self._uri(slot)
        try:
            request_id = await self._queue.enqueue(uri, **next(self._requests))
            await self._results.query(uri, measured.plan.timeout_s, request_id=request_id)
        except ConnectError:
            raise
        except ResultTimeoutError:
            measured.failures[f"no result within {measured.plan.timeout_s:g} s"] += 1
        except ClientError as err:
            measured.failures[str(err).removeprefix(f"request {uri!r}: ")] += 1
        else:
            measured.latencies_s.append(time.perf_counter() - due_at)

    def _uri(self, slot: int) -> str:
        return f"{self._name}-{slot}"
