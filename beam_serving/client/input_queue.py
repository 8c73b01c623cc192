"""InputQueue: puts requests on the stream."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np
from redis.exceptions import ExecAbortError, OutOfMemoryError

from beam_serving.client.connection import Server, redis_errors
from beam_serving.client.requests import Input, Inputs, Request, as_image, chunked, make_request
from beam_serving.errors import QueueFullError


class InputQueue:
    """Queues requests for the service that reads `stream`.

    An instance may be shared by threads, but not by processes. The password comes from the URL, from `password` or
    from the environment variable BEAM_SERVING_REDIS_PASSWORD. A request is delivered at least once: when the reply to
    a command is lost it is sent again under the same request id, and the service answers it once.

    A uri names a request; a later request of the same uri takes over its result.
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
    ) -> None:
        self._server = Server.at(
            url_or_host, port, password=password, max_connections=max_connections, timeout_s=timeout_s
        )
        self._stream = stream
        self._redis = self._server.client()

    def enqueue(self, uri: str, only_input: Input | None = None, /, **inputs: Input) -> str:
        """Queues one request and gives its request id.

        Inputs go by the model's names, `enqueue("a", pixels=array)`; the one input of a model may go without:
        `enqueue("a", array)`. Arrays and nested lists are tensors, bytes and `Path` are image files.

        Raises:
            QueueFullError: Redis has no room; nothing was queued.
            ConnectError: Redis cannot be reached, or refuses us.
        """
        request = make_request(uri, inputs if only_input is None else {"": only_input, **inputs})
        return self._queue(request)

    def enqueue_image(
        self, uri: str, image: np.ndarray | bytes | str | Path, *, name: str = "", encoding: str = "jpeg"
    ) -> str:
        """Queues one image and gives its request id: bytes or path of a file, or a uint8 array in BGR order.

        An array is encoded as `encoding` says: "jpeg" (quality 95) or "png" (lossless).

        Raises:
            QueueFullError: Redis has no room; nothing was queued.
            ConnectError: Redis cannot be reached, or refuses us.
        """
        return self._queue(make_request(uri, {name: as_image(image, encoding)}))

    def enqueue_many(self, requests: Iterable[tuple[str, Inputs]]) -> list[str]:
        """Queues pairs of uri and inputs, many per round trip, and gives their request ids.

        Raises:
            QueueFullError: Redis has no room; the message says how many requests were queued before.
            ConnectError: Redis cannot be reached, or refuses us.
        """
        request_ids: list[str] = []
        for chunk in chunked(make_request(uri, inputs) for uri, inputs in requests):
            self._queue_chunk(chunk, len(request_ids))
            request_ids += [request.request_id for request in chunk]
        return request_ids

    def close(self) -> None:
        """Closes the connections."""
        self._redis.close()

    def __enter__(self) -> "InputQueue":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _queue(self, request: Request) -> str:
        with redis_errors(self._server):
            self._redis.execute_command(*request.command(self._stream))
        return request.request_id

    def _queue_chunk(self, chunk: list[Request], queued: int) -> None:
        pipeline = self._redis.pipeline(transaction=True)
        for request in chunk:
            pipeline.execute_command(*request.command(self._stream))
        with redis_errors(self._server):
            try:
                pipeline.execute()
            except (OutOfMemoryError, ExecAbortError) as err:
                raise chunk_refused(self._server, queued) from err


def chunk_refused(server: Server, queued: int) -> QueueFullError:
    """Gives the error of a chunk, which is queued whole or not at all, after `queued` requests that were."""
    return QueueFullError(f"Redis at {server.name} has no memory for more; the first {queued} requests were queued")
