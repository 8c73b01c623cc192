"""One round trip for what many coroutines ask at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from redis.exceptions import TimeoutError as RedisTimeoutError

Item = TypeVar("Item")
_MAX_ITEMS = 256


class Coalesced(Generic[Item]):
    """Passes single items on to a function that takes many: while it runs for some, the next ones gather.

    `run` gives one result per item, in their order; a result that is an exception is raised to who asked. It gets
    `limit_s` seconds each time, None for no limit. An item whose asker has gone before its turn is left out.
    """

    def __init__(self, run: Callable[[list[Item]], Awaitable[Sequence[object]]], limit_s: float | None = None) -> None:
        self._run = run
        self._limit_s = limit_s
        self._waiting: list[tuple[Item, asyncio.Future[object]]] = []
        self._task: asyncio.Task[None] | None = None

    def submit(self, item: Item) -> "asyncio.Future[Any]":
        """Return the result of an item to be; it need not be awaited."""
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return future

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MAX_ITEMS], self._waiting[_MAX_ITEMS:]
            batch = [one for one in batch if not one[1].cancelled()]
            if not batch:
                continue
            results: Sequence[object]
            try:
                async with asyncio.timeout(self._limit_s):
                    results = await self._run([item for item, _ in batch])
            except TimeoutError:
                results = [RedisTimeoutError("the time for the call is over")] * len(batch)
            except Exception as err:  # noqa: BLE001 - it is raised to all who asked
                results = [err] * len(batch)
            except asyncio.CancelledError:
                for _, future in batch + self._waiting:
                    future.cancel()
                raise
            for (_, future), result in zip(batch, results, strict=True):
                _settle(future, result)


def _settle(future: "asyncio.Future[Any]", result: object) -> None:
    if future.done():  # who asked has been cancelled
        return
    if isinstance(result, Exception):
        future.set_exception(result)
        future.exception()  # marks it as seen, for those who do not await it
    else:
        future.set_result(result)
