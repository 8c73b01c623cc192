"""AsyncInputQueue and AsyncOutputQueue: the same queues for asyncio."""

import asyncio
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from redis.exceptions import ExecAbortError, OutOfMemoryError, RedisError

from beam_serving.client.announcements import Announcements, Inbox
from beam_serving.client.coalescing import Coalesced
from beam_serving.client.images import as_image
from beam_serving.client.input_queue import chunk_refused
from beam_serving.client.output_queue import READ_COUNT, SCAN_COUNT, checked_reply
from beam_serving.client.pending_results import Wanted, key_of, pattern_of, seconds_to_wait, taken_replies
from beam_serving.client.requests import Inputs, Request, Uri, chunked, make_request, telling_what_is_queued
from beam_serving.encryption.gcm import keys_to_send_with
from beam_serving.errors import ResultError
from beam_serving.protocol.limits import DEFAULT_LIMITS
from beam_serving.protocol.replies import Reply
from beam_serving.transport.client_connection import Server, redis_errors


class AsyncInputQueue:
    """`InputQueue` with coroutines and the same errors. An instance belongs to one event loop.

    What coroutines queue at the same time shares a round trip. It takes none of the arguments of Cluster Serving, and
    sends all requests in this project's own format.

    Args:
        url_or_host: a host name, `host:port` or a URL; see `InputQueue`.
        port: of a host name that comes without one; ignored with a URL.
        stream: the stream that the service reads.
        password: where the URL has none; None takes the environment variable BEAM_SERVING_REDIS_PASSWORD.
        max_connections: at most one more than so many commands run at once; others wait `timeout_s` for their turn.
        timeout_s: seconds, for each connection and for each reply; above a day it is a day.
        ca_file: a PEM file of the certificates to trust with TLS; None for the system's.
        secret: encrypts the inputs, with `salt`; see `InputQueue`. None for both sends them in clear.
        salt: of the secret.
        max_request_bytes: of the names and values of a request as it is sent; a larger one is refused.

    Raises:
        ValueError: the URL has another scheme or form, or `secret` or `salt` is missing or weak.
        TypeError: `secret` or `salt` is no text.
        InputError: `timeout_s` is no number above 0.
    """

    def __init__(
        self,
        url_or_host: str = "localhost",
        port: int = 6379,
        *,
        stream: str = "serving_stream",
        password: str | None = None,
        max_connections: int = 4,
        timeout_s: float = 5.0,
        ca_file: str | None = None,
        secret: str | None = None,
        salt: str | None = None,
        max_request_bytes: int = DEFAULT_LIMITS.max_payload_bytes,
    ) -> None:
        self._keys = keys_to_send_with(secret, salt)
        self._max_request_bytes = max_request_bytes
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
        self._redis = self._server.async_client()
        self._requests = Coalesced(self._send)

    async def enqueue(self, uri: Uri, only_input: object = None, /, **inputs: Any) -> str:
        """Queue one request and return its request id, without the forms of Cluster Serving; see `InputQueue.enqueue`.

        Args:
            uri: the name of the request.
            only_input: the input of a model that has one.
            **inputs: inputs by the model's names.

        Returns:
            The request id, for `AsyncOutputQueue.query`.

        Raises:
            InputError, ImageFileError, QueueFullError, ConnectError: see `InputQueue.enqueue`.
        """
        named = inputs if only_input is None else {"": only_input, **inputs}
        return await self._queue(self._request(uri, named))

    async def enqueue_image(self, uri: Uri, image: object, *, name: str = "", encoding: str = "jpeg") -> str:
        """Queue one image and return its request id; see `InputQueue.enqueue_image`.

        Args:
            uri: the name of the request.
            image: the bytes or path of a file, a file opened in binary mode, a PIL image or a uint8 array.
            name: of the input; "" for the one of a model that has one.
            encoding: what an array is encoded as, "jpeg" or "png".

        Returns:
            The request id, for `AsyncOutputQueue.query`.

        Raises:
            InputError, ImageFileError, ClientError, QueueFullError, ConnectError: see `InputQueue.enqueue_image`.
        """
        return await self._queue(self._request(uri, {name: as_image(image, encoding)}))

    async def enqueue_many(self, requests: Iterable[tuple[Uri, Inputs]]) -> list[str]:
        """Queue many requests and return their request ids; see `InputQueue.enqueue_many`.

        Args:
            requests: pairs of uri and inputs, which are a mapping by name or the one input of a model that has one.

        Returns:
            The request ids, in the order of the requests.

        Raises:
            InputError, ImageFileError, QueueFullError, ConnectError: see `InputQueue.enqueue_many`.
        """
        request_ids: list[str] = []
        with telling_what_is_queued(request_ids):
            for chunk in chunked(self._request(uri, inputs) for uri, inputs in requests):
                pipeline = self._redis.pipeline(transaction=True)
                for request in chunk:
                    pipeline.execute_command(*request.command(self._stream))
                with redis_errors(self._server):
                    try:
                        await pipeline.execute()
                    except (OutOfMemoryError, ExecAbortError) as err:
                        raise chunk_refused(self._server, len(request_ids)) from err
                request_ids += [request.request_id for request in chunk]
        return request_ids

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def __aenter__(self) -> "AsyncInputQueue":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _request(self, uri: Uri, inputs: Inputs) -> Request:
        return make_request(uri, inputs, self._keys, self._max_request_bytes)

    async def _queue(self, request: Request) -> str:
        with redis_errors(self._server):
            await self._requests.submit(request)
        return request.request_id

    async def _send(self, requests: list[Request]) -> Sequence[object]:
        if len(requests) == 1:
            return [await self._redis.execute_command(*requests[0].command(self._stream))]
        pipeline = self._redis.pipeline(transaction=False)
        for request in requests:
            pipeline.execute_command(*request.command(self._stream))
        replies: Sequence[object] = await pipeline.execute(raise_on_error=False)
        return replies


class AsyncOutputQueue:
    """`OutputQueue` with coroutines, the same results and the same errors. An instance belongs to one event loop.

    However many coroutines wait, they share one connection to do so, and round trips. It takes none of the arguments
    of Cluster Serving and answers as none of its queues does.

    Args:
        url_or_host: a host name, `host:port` or a URL; see `InputQueue`.
        port: of a host name that comes without one; ignored with a URL.
        stream: the stream that the requests were queued on.
        password: where the URL has none; None takes the environment variable BEAM_SERVING_REDIS_PASSWORD.
        by_label: best classes go by their names where the service has them, else by 0-based index.
        max_connections: so many commands run at once, beside the connection that waits; others wait for their turn.
        timeout_s: seconds, for each connection and for each reply, not for a result; above a day it is a day.
        ca_file: a PEM file of the certificates to trust with TLS; None for the system's.

    Raises:
        ValueError: the URL has another scheme or form.
        InputError: `timeout_s` is no number above 0.
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
        timeout_s: float = 5.0,
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
        self._redis = self._server.async_client()
        self._announcements = Announcements(self._redis)
        self._hashes = Coalesced(self._fetch)

    async def query(
        self, uri: Uri, timeout_s: float | None = None, *, request_id: str | None = None, delete: bool = False
    ) -> Reply | None:
        """Return the result of one request; see `OutputQueue.query`.

        Args:
            uri: as it was given to `enqueue`.
            timeout_s: seconds to wait, `math.inf` for no limit; None asks once.
            request_id: the result of this very request, as `enqueue` returned it; None takes one of any.
            delete: remove the result; else it stays for its lifetime.

        Returns:
            The result; None where there is none yet and `timeout_s` is None.

        Raises:
            InputError, ResultTimeoutError, ResultError, ConnectError: see `OutputQueue.query`.
        """
        request_ids = None if request_id is None else [request_id]
        replies = await self.query_many([uri], timeout_s, request_ids=request_ids, delete=delete)
        return checked_reply(uri, replies.get(uri), timeout_s)

    async def query_many(
        self,
        uris: Iterable[Uri],
        timeout_s: float | None = None,
        *,
        request_ids: Sequence[str] | None = None,
        delete: bool = False,
    ) -> dict[Any, Reply | ResultError]:
        """Return the results of many requests by uri; see `OutputQueue.query_many`.

        Args:
            uris: as they were given to `enqueue`.
            timeout_s: seconds to wait for all of them together, `math.inf` for no limit; None asks once.
            request_ids: one for each uri, in their order: results of other requests do not count.
            delete: remove the results that are returned.

        Returns:
            What came in time, in the order of `uris`, a failure as its ResultError; the rest is left out.

        Raises:
            InputError, ValueError, ConnectError: see `OutputQueue.query_many`.
        """
        wanted = Wanted(self._stream, uris, request_ids)
        with redis_errors(self._server):
            if timeout_s is None:
                await self._read(wanted, list(wanted.pending))
            elif wanted.pending:
                await self._wait(wanted, seconds_to_wait(timeout_s))
            if delete and wanted.arrived:
                await self._redis.delete(*wanted.arrived)
        return wanted.replies(self._by_label)

    async def dequeue(self) -> dict[str, Reply | ResultError]:
        """Take all results that are there; see `OutputQueue.dequeue`.

        Returns:
            The results by uri, a failure as its ResultError.

        Raises:
            ConnectError: Redis cannot be reached, or refuses us.
        """
        prefix = key_of(self._stream, "*")[:-1]
        taken: dict[str, Reply | ResultError] = {}
        cursor = -1
        with redis_errors(self._server):
            while cursor != 0:
                cursor, keys = await self._redis.scan(
                    max(cursor, 0), match=pattern_of(prefix), count=SCAN_COUNT, _type="hash"
                )
                if not keys:
                    continue
                pipeline = self._redis.pipeline(transaction=True)
                for key in keys:
                    pipeline.hgetall(key)
                    pipeline.delete(key)
                taken |= taken_replies(prefix, keys, await pipeline.execute(raise_on_error=False), self._by_label)
        return taken

    async def close(self) -> None:
        """Close the connections; what still waits gets no result."""
        await self._announcements.close()
        await self._redis.aclose()

    async def __aenter__(self) -> "AsyncOutputQueue":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _wait(self, wanted: Wanted, timeout_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        async with self._announcements.of(wanted.pending) as inbox:
            while wanted.pending:
                announced = await _announced(inbox, deadline)
                await self._read(wanted, announced or list(wanted.pending))
                if not announced:
                    return

    async def _read(self, wanted: Wanted, keys: Sequence[bytes]) -> None:
        if len(keys) == 1:
            wanted.take(keys[0], await self._hashes.submit(keys[0]))
            return
        for start in range(0, len(keys), READ_COUNT):
            page = keys[start : start + READ_COUNT]
            for key, fields in zip(page, await self._fetch(page), strict=True):
                wanted.take(key, fields)

    async def _fetch(self, keys: Sequence[bytes]) -> Sequence[Any]:
        if len(keys) == 1:
            return [await self._redis.hgetall(keys[0])]
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.hgetall(key)
        hashes: Sequence[object] = await pipeline.execute()
        return hashes


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
