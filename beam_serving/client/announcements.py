"""How many waiting coroutines share one subscribed connection."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from beam_serving.client.connection import RedisClient

Inbox = asyncio.Queue["bytes | RedisError"]
"""What one waiting call hears: keys of results to read, or why nothing can be heard any more."""


class Announcements:
    """Tells each waiting call which of its results to read, over one connection for all calls of an event loop."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._inboxes: dict[bytes, set[Inbox]] = {}
        self._subscribed: set[bytes] = set()
        self._changing = asyncio.Lock()
        self._pubsub: PubSub | None = None
        self._reader: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def of(self, keys: Iterable[bytes]) -> AsyncIterator[Inbox]:
        """Fills an inbox with keys: each once when its subscription begins, and whenever its result is announced."""
        inbox: Inbox = asyncio.Queue()
        keys = list(keys)
        try:
            async with self._changing:
                await self._join(inbox, keys)
            yield inbox
        finally:
            async with self._changing:
                await self._leave(inbox, keys)

    async def close(self) -> None:
        """Ends the connection."""
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None
        if self._pubsub is not None:
            await self._pubsub.aclose()  # type: ignore[no-untyped-call]
            self._pubsub = None

    async def _join(self, inbox: Inbox, keys: list[bytes]) -> None:
        if self._reader is None or self._reader.done():
            await self.close()
            self._inboxes, self._subscribed = {}, set()
        fresh = [key for key in keys if key not in self._inboxes]
        for key in keys:
            self._inboxes.setdefault(key, set()).add(inbox)
            if key in self._subscribed:
                inbox.put_nowait(key)
        if self._pubsub is None:
            self._pubsub = self._client.pubsub()
        if fresh:
            await self._pubsub.subscribe(*fresh)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read(self._pubsub))

    async def _leave(self, inbox: Inbox, keys: list[bytes]) -> None:
        gone = []
        for key in keys:
            inboxes = self._inboxes.get(key, set())
            inboxes.discard(inbox)
            if not inboxes and self._inboxes.pop(key, None) is not None:
                self._subscribed.discard(key)
                gone.append(key)
        if gone and self._pubsub is not None:
            with suppress(RedisError):  # a lost connection has no subscriptions left to end
                await self._pubsub.unsubscribe(*gone)

    async def _read(self, pubsub: PubSub) -> None:
        try:
            while True:
                message = await pubsub.get_message(timeout=None)
                if message is None or message["type"] not in ("subscribe", "message"):
                    continue
                key = message["channel"]
                if message["type"] == "subscribe" and key in self._inboxes:
                    self._subscribed.add(key)
                for inbox in self._inboxes.get(key, ()):
                    inbox.put_nowait(key)
        except RedisError as err:
            for inbox in set().union(*self._inboxes.values()):
                inbox.put_nowait(err)
