"""AsyncOutputQueue: `OutputQueue` for asyncio."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, overload

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from beam_serving.client.announcements import Announcements, Inbox
from beam_serving.client.coalescing import Coalesced
from beam_serving.client.event_loops import PerLoop
from beam_serving.client.output_queue import READ_COUNT, SCAN_COUNT, TAKES, checked_reply
from beam_serving.client.pending_results import (
    ONCE,
    Hash,
    Taking,
    Wait,
    Wanted,
    key_of,
    pattern_of,
    report_unfinished,
    seconds_to_wait,
    taken_replies,
)
from beam_serving.client.readership import nobody_reads_async, reason
from beam_serving.client.requests import Uri
from beam_serving.errors import ConnectError, ResultError
from beam_serving.protocol.replies import Reply
from beam_serving.transport.client_connection import GRACE_S, RedisClient, Server
from beam_serving.transport.deadline import only_once
from beam_serving.transport.retry import backoff

_log = logging.getLogger(__name__)


class _Fetching(NamedTuple):
    """What an output queue has on one event loop."""

    redis: RedisClient
    announcements: Announcements
    hashes: Coalesced[bytes]


class AsyncOutputQueue:
    """`OutputQueue` with coroutines, the same results and the same errors.

    An instance may be made outside of an event loop, and used by several; see `AsyncInputQueue`. However many
    coroutines wait on one, they share one connection to do so, and round trips. It takes none of the arguments
    of Cluster Serving and answers as none of its queues does.

    Args:
        url_or_host: a host name, `host:port` or a URL; see `InputQueue`.
        port: of a host name that comes without one; ignored with a URL.
        stream: the stream that the requests were queued on.
        password: where the URL has none; None takes the environment variable BEAM_SERVING_REDIS_PASSWORD.
        by_label: best classes go by their names where the service has them, else by 0-based index.
        max_connections: so many commands run at once, beside the connection that waits; others wait for their turn.
        timeout_s: seconds for what a call asks of Redis, connecting and trying again included, None for no limit; see
            `OutputQueue`.
        ca_file: a PEM file of the certificates to trust with TLS; None for the system's.

    Raises:
        InputError: the URL has another scheme or form, or an argument is none that can be.
    """

    def __init__(
        self,
        url_or_host: str = "localhost",
        port: int = 6379,
        *,
        stream: str = "serving_stream",
        password: str | None = None,
        by_label: bool = False,
        max_connections: int = 4,
        timeout_s: float | None = 5.0,
        ca_file: str | None = None,
    ) -> None:
        self._server = Server.at(
            url_or_host,
            port,
            password=password,
            max_connections=max_connections,
            timeout_s=timeout_s,
            ca_file=ca_file,
            stream=stream,
        )
        self._stream = stream
        self._by_label = by_label
        self._loops = PerLoop(self._open)

    @overload
    async def query(self, uri: Uri, *, request_id: str | None = None, delete: bool = False) -> Reply | None: ...

    @overload
    async def query(
        self, uri: Uri, timeout_s: float | None, *, request_id: str | None = None, delete: bool = False
    ) -> Reply: ...

    async def query(
        self, uri: Uri, timeout_s: float | Wait | None = ONCE, *, request_id: str | None = None, delete: bool = False
    ) -> Any:
        """Return the result of one request; see `OutputQueue.query`.

        Args:
            uri: as it was given to `enqueue`.
            timeout_s: seconds to wait, None for no limit; without it, ask once.
            request_id: the result of this very request, as `enqueue` returned it; None takes one of any.
            delete: remove the result; else it stays for its lifetime.

        Returns:
            The result; None where there is none yet and `timeout_s` was not given.

        Raises:
            InputError, ResultTimeoutError, ResultError, ConnectError: see `OutputQueue.query`.
        """
        request_ids = None if request_id is None else [request_id]
        replies = await self.query_many([uri], timeout_s, request_ids=request_ids, delete=delete)
        reply, why = replies.get(uri), ""
        if (
            reply is None
            and not isinstance(timeout_s, Wait)
            and await nobody_reads_async(self._loops.here().redis, self._stream)
        ):
            why = reason(self._server, self._stream)
        return checked_reply(uri, reply, timeout_s, why)

    async def query_many(
        self,
        uris: Iterable[Uri],
        timeout_s: float | Wait | None = ONCE,
        *,
        request_ids: Sequence[str] | None = None,
        delete: bool = False,
    ) -> dict[Any, Reply | ResultError]:
        """Return the results of many requests by uri; see `OutputQueue.query_many`.

        Args:
            uris: as they were given to `enqueue`.
            timeout_s: seconds to wait for all of them together, None for no limit; without it, ask once.
            request_ids: one for each uri, in their order: results of other requests do not count.
            delete: remove the results that are returned.

        Returns:
            What came in time, in the order of `uris`, a failure as its ResultError; the rest is left out.

        Raises:
            InputError, ConnectError: see `OutputQueue.query_many`.
        """
        wanted = Wanted(self._stream, uris, request_ids)
        if isinstance(timeout_s, Wait):
            await self._read(wanted, list(wanted.pending))
            if delete:
                async with self._server.async_call():
                    await self._forget(wanted.arrived)
            return wanted.replies(self._by_label)
        wait_s = seconds_to_wait(timeout_s)
        ends_at = asyncio.get_running_loop().time() + wait_s
        try:
            async with self._server.async_call(wait_s + GRACE_S):
                if wanted.pending:
                    await self._wait(wanted, ends_at)
                await self._forget(wanted.arrived if delete else [])
        except ConnectError:
            if not wanted.arrived or asyncio.get_running_loop().time() < ends_at:
                raise
        return wanted.replies(self._by_label)

    async def dequeue(self, *, timeout_s: float | None = None) -> dict[str, Reply | ResultError]:
        """Take all results that are there; see `OutputQueue.dequeue`.

        Args:
            timeout_s: seconds for all of it, None for no limit but that of the queue for each page of 512 results.

        Returns:
            The results by uri, a failure as its ResultError.

        Raises:
            InputError: `timeout_s` is none that can be.
            ConnectError: Redis cannot be reached, does not answer in time, or refuses us; nothing was taken.
        """
        wait_s = seconds_to_wait(timeout_s)
        prefix = key_of(self._stream, "*")[:-1]
        taken: dict[bytes, Hash] = {}
        try:
            async with self._server.async_call(wait_s):
                await self._take_all(prefix, taken)
        except ConnectError as err:
            if not taken:
                raise
            report_unfinished(taken, err)
        return taken_replies(prefix, taken, self._by_label)

    async def close(self) -> None:
        """Close the connections of this event loop; what still waits there gets no result."""
        if fetching := self._loops.taken():
            await fetching.announcements.close()
            await closed(fetching.redis)

    async def __aenter__(self) -> "AsyncOutputQueue":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self) -> _Fetching:
        client = self._server.async_client()

        async def fetch(keys: list[bytes]) -> Sequence[object]:
            return await _hashes(client, keys)

        limit_s = self._server.timeout_s
        return _Fetching(client, Announcements(client, limit_s), Coalesced(fetch, limit_s))

    async def _wait(self, wanted: Wanted, ends_at: float) -> None:
        async with self._loops.here().announcements.of(wanted.pending) as inbox:
            while wanted.pending:
                announced = await _announced(inbox, ends_at)
                await self._read(wanted, announced or list(wanted.pending))
                if not announced:
                    return

    async def _read(self, wanted: Wanted, keys: Sequence[bytes]) -> None:
        here = self._loops.here()
        for start in range(0, len(keys), READ_COUNT):
            page = keys[start : start + READ_COUNT]
            async with self._server.async_call():
                if len(page) == 1:
                    wanted.take(page[0], await here.hashes.submit(page[0]))
                    continue
                for key, fields in zip(page, await _hashes(here.redis, page), strict=True):
                    wanted.take(key, fields)

    async def _forget(self, keys: Sequence[bytes]) -> None:
        """Delete results that are in hand, where Redis is there; they are more than their deletion."""
        try:
            if keys:
                await self._loops.here().redis.delete(*keys)
        except (RedisConnectionError, RedisTimeoutError) as err:
            _log.warning("%d results could not be deleted, and stay for their lifetime: %s", len(keys), err)

    async def _take_all(self, prefix: bytes, taken: dict[bytes, Hash]) -> None:
        client = self._loops.here().redis
        cursor = -1
        while cursor != 0:
            taking = Taking()
            try:
                async with self._server.async_call():
                    cursor, keys = await client.scan(
                        max(cursor, 0), match=pattern_of(prefix), count=SCAN_COUNT, _type="hash"
                    )
                    if keys:
                        await _take(client, keys, taking)
            finally:
                taken |= taking.hashes()


async def _announced(inbox: Inbox, deadline: float) -> list[bytes]:
    """Wait for something in the inbox and return all that is there; none when the deadline has passed.

    Raises:
        RedisError: the connection is lost for good.
    """
    try:
        heard = [await asyncio.wait_for(inbox.get(), deadline - asyncio.get_running_loop().time())]
    except TimeoutError:
        return []
    while not inbox.empty():
        heard.append(inbox.get_nowait())
    for item in heard:
        if isinstance(item, RedisError):
            raise item
    return list(dict.fromkeys(item for item in heard if isinstance(item, bytes)))


async def _hashes(client: RedisClient, keys: Sequence[bytes]) -> Sequence[Any]:
    if len(keys) == 1:
        return [await client.hgetall(keys[0])]
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.hgetall(key)
    hashes: Sequence[object] = await pipeline.execute()
    return hashes


async def _take(client: RedisClient, keys: Sequence[bytes], taking: Taking) -> None:
    """Take the results at some keys; see `Taking`.

    Raises:
        RedisError: those that are not taken could not be, and are there still.
    """
    for tries, wait_s in enumerate(backoff(most_s=1.0), 1):
        try:
            pipeline = client.pipeline(transaction=False)
            for key in keys:
                pipeline.hgetall(key)
            there = taking.read(keys, await pipeline.execute(raise_on_error=False))
            if not there:
                return
            pipeline = client.pipeline(transaction=True)
            for key in there:
                pipeline.hgetall(key)
                pipeline.delete(key)
            with only_once():
                taking.took(there, await pipeline.execute(raise_on_error=False))
            return
        except (RedisConnectionError, RedisTimeoutError):
            taking.failed()
            if tries == TAKES:
                raise
            await asyncio.sleep(wait_s)
        except RedisError:
            taking.refused()
            raise


async def closed(client: RedisClient) -> None:
    """Close the connections of a client; a server that does not answer is no reason to wait."""
    try:
        await client.aclose()
    except RedisError as err:
        _log.debug("a connection was not closed in time: %s", err)
