"""AsyncInputQueue: `InputQueue` for asyncio."""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from redis.exceptions import ExecAbortError, OutOfMemoryError

from beam_serving.client.arrow_inputs import inputs_of
from beam_serving.client.async_output_queue import AsyncOutputQueue, closed
from beam_serving.client.coalescing import Coalesced
from beam_serving.client.event_loops import PerLoop
from beam_serving.client.images import as_image
from beam_serving.client.input_queue import chunk_refused, request_keys
from beam_serving.client.pending_results import seconds_to_wait
from beam_serving.client.readership import nobody_reads_async, warn_that_nobody_reads
from beam_serving.client.requests import (
    Inputs,
    Request,
    Uri,
    checked_pairs,
    chunked,
    make_request,
    new_request_id,
    telling_what_is_queued,
    whole_number,
)
from beam_serving.protocol.limits import DEFAULT_LIMITS
from beam_serving.protocol.replies import Reply
from beam_serving.transport.client_connection import GRACE_S, RedisClient, Server


class _Sending(NamedTuple):
    """What an input queue has on one event loop."""

    redis: RedisClient
    requests: Coalesced[Request]


class AsyncInputQueue:
    """`InputQueue` with coroutines and the same errors.

    An instance may be made outside of an event loop, and used by several, one after the other too: each has connections
    of its own, which `close` ends where it is awaited. What coroutines queue at the same time shares a round trip. It
    takes none of the arguments of Cluster Serving, and sends all requests in this project's own format.

    Args:
        url_or_host: a host name, `host:port` or a URL; see `InputQueue`.
        port: of a host name that comes without one; ignored with a URL.
        stream: the stream that the service reads.
        password: where the URL has none; None takes the environment variable BEAM_SERVING_REDIS_PASSWORD.
        max_connections: at most one more than so many commands run at once; others wait `timeout_s` for their turn.
        timeout_s: seconds for what a call asks of Redis, connecting and trying again included, None for no limit; see
            `InputQueue`.
        ca_file: a PEM file of the certificates to trust with TLS; None for the system's.
        secret: encrypts the inputs, with `salt`; see `InputQueue`. None for both sends them in clear.
        salt: of the secret.
        max_request_bytes: of the names and values of a request as it is sent; a larger one is refused.

    Raises:
        InputError: the URL has another scheme or form, `secret` or `salt` is missing or weak, or an argument is none
            that can be.
    """

    def __init__(
        self,
        url_or_host: str = "localhost",
        port: int = 6379,
        *,
        stream: str = "serving_stream",
        password: str | None = None,
        max_connections: int = 4,
        timeout_s: float | None = 5.0,
        ca_file: str | None = None,
        secret: str | None = None,
        salt: str | None = None,
        max_request_bytes: int = DEFAULT_LIMITS.max_payload_bytes,
    ) -> None:
        self._keys = request_keys(secret, salt)
        self._max_request_bytes = whole_number("max_request_bytes", max_request_bytes)
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
        self._loops = PerLoop(self._open)
        self._looked = False
        self._results = AsyncOutputQueue(
            self._server.url,
            stream=stream,
            password=password,
            max_connections=max_connections,
            timeout_s=timeout_s,
            ca_file=ca_file,
        )

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
            for chunk in chunked(self._request(uri, inputs) for uri, inputs in checked_pairs(requests)):
                async with self._server.async_call():
                    await self._queue_chunk(chunk, len(request_ids))
                request_ids += [request.request_id for request in chunk]
        return request_ids

    async def predict(self, request_data: object, timeout: float | None = 5.0) -> Reply:
        """Queue a request, wait for its result, and delete that; see `InputQueue.predict`.

        Args:
            request_data: a mapping of inputs by name, where "" names the one of a model that has one; or that input
                alone; or JSON text `{"instances": [{...}]}` with one instance.
            timeout: seconds to wait for the result, None for no limit.

        Returns:
            The result.

        Raises:
            ResultTimeoutError: no result came in time.
            ResultError: the service answered with an error.
            InputError, ImageFileError, QueueFullError, ConnectError: see `InputQueue.enqueue`.
        """
        inputs = inputs_of(request_data, as_columns=False)
        wait_s = seconds_to_wait(timeout)
        uri = new_request_id()
        request = self._request(uri, inputs)
        async with self._server.async_call(wait_s + GRACE_S):
            request_id = await self._queue(request)
            return await self._results.query(uri, timeout, request_id=request_id, delete=True)

    async def close(self) -> None:
        """Close the connections of this event loop."""
        await self._results.close()
        if sending := self._loops.taken():
            await closed(sending.redis)

    async def __aenter__(self) -> "AsyncInputQueue":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self) -> _Sending:
        client = self._server.async_client()

        async def send(requests: list[Request]) -> Sequence[object]:
            if len(requests) == 1:
                return [await client.execute_command(*requests[0].command(self._stream))]
            pipeline = client.pipeline(transaction=False)
            for request in requests:
                pipeline.execute_command(*request.command(self._stream))
            replies: Sequence[object] = await pipeline.execute(raise_on_error=False)
            return replies

        return _Sending(client, Coalesced(send, self._server.timeout_s))

    def _request(self, uri: Uri, inputs: object) -> Request:
        return make_request(uri, inputs, self._keys, self._max_request_bytes)

    async def _queue(self, request: Request) -> str:
        async with self._server.async_call():
            await self._loops.here().requests.submit(request)
            await self._look_for_readers()
        return request.request_id

    async def _look_for_readers(self) -> None:
        """Warn, once, where what was queued first waits for nobody."""
        if not self._looked:
            self._looked = True
            if await nobody_reads_async(self._loops.here().redis, self._stream):
                warn_that_nobody_reads(self._server, self._stream)

    async def _queue_chunk(self, chunk: list[Request], queued: int) -> None:
        pipeline = self._loops.here().redis.pipeline(transaction=True)
        for request in chunk:
            pipeline.execute_command(*request.command(self._stream))
        try:
            await pipeline.execute()
        except (OutOfMemoryError, ExecAbortError) as err:
            raise chunk_refused(self._server, queued) from err
        await self._look_for_readers()
