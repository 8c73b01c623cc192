"""How many waiting coroutines share one subscribed connection."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from beam_serving.client.coalescing import Coalesced
from beam_serving.transport.client_connection import RedisClient

Inbox = asyncio.Queue["bytes | RedisError"]
"""What one waiting call hears: keys of results to read, or why nothing can be heard any more."""


class Announcements:
    """Tells each waiting call which of its results to read, over one connection for all calls of an event loop."""

    def __init__(self, client: RedisClient, limit_s: float | None = None) -> None:
        self._client = client
        self._inboxes: dict[bytes, set[Inbox]] = {}
        self._subscribed: set[bytes] = set()
        self._changes: Coalesced[tuple[bool, list[bytes]]] = Coalesced(self._change, limit_s)
        self._pubsub: PubSub | None = None
        self._reader: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def of(self, keys: Iterable[bytes]) -> AsyncIterator[Inbox]:
        """Fill an inbox with keys: each once when its subscription begins, and whenever its result is announced."""
        inbox: Inbox = asyncio.Queue()
        keys = list(keys)
        try:
            fresh = self._join(inbox, keys)
            if fresh:
                await self._changes.submit((True, fresh))
            yield inbox
        finally:
            gone = self._leave(inbox, keys)
            if gone:
                self._changes.submit((False, gone))

    async def close(self) -> None:
        """End the connection."""
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None
        if self._pubsub is not None:
            await self._pubsub.aclose()  # type: ignore[no-untyped-call]
            self._pubsub = None

    def _join(self, inbox: Inbox, keys: list[bytes]) -> list[bytes]:
        """Return the keys that have to be subscribed to."""
        fresh = [key for key in keys if key not in self._subscribed]
        for key in keys:
            self._inboxes.setdefault(key, set()).add(inbox)
            if key in self._subscribed:
                inbox.put_nowait(key)
        return fresh

    def _leave(self, inbox: Inbox, keys: list[bytes]) -> list[bytes]:
        """Return the keys that nobody waits for any more."""
        gone = []
        for key in keys:
            inboxes = self._inboxes[key]
            inboxes.discard(inbox)
            if not inboxes:
                del self._inboxes[key]
                self._subscribed.discard(key)
                gone.append(key)
        return gone

    async def _change(self, changes: list[tuple[bool, list[bytes]]]) -> list[None]:
        """Subscribe and unsubscribe; of several changes of one key the last one counts."""
        wanted = {key: subscribe for subscribe, keys in changes for key in keys}
        fresh = [key for key, subscribe in wanted.items() if subscribe]
        gone = [key for key, subscribe in wanted.items() if not subscribe]
        if self._pubsub is None or self._reader is None or self._reader.done():
            await self.close()
            gone = []  # a connection that is lost took its subscriptions with it
            if not fresh:
                return [None] * len(changes)
            self._pubsub = self._client.pubsub()
        if fresh:
            await self._pubsub.subscribe(*fresh)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read(self._pubsub))
        if gone:
            await self._pubsub.unsubscribe(*gone)
        return [None] * len(changes)

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
            self._subscribed.clear()
            for inbox in set().union(*self._inboxes.values()):
                inbox.put_nowait(err)
