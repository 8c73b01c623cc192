"""What belongs to one event loop, made anew for each: a queue may be made anywhere and used by one after another."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Makes one value for each event loop that asks. Those of loops that are closed are let go."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._by_loop: dict[asyncio.AbstractEventLoop, T] = {}

    def here(self) -> T:
        """Return the value of the running event loop."""
        loop = asyncio.get_running_loop()
        value = self._by_loop.get(loop)
        if value is None:
            for other in list(self._by_loop):
                if other.is_closed():
                    self._by_loop.pop(other, None)
            value = self._by_loop[loop] = self._make()
        return value

    def taken(self) -> T | None:
        """Return the value of the running event loop and forget it; None where there is none."""
        return self._by_loop.pop(asyncio.get_running_loop(), None)
