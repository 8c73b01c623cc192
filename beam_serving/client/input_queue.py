"""InputQueue: puts requests on the stream."""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Unpack

from redis.exceptions import ExecAbortError, OutOfMemoryError

from beam_serving.client.arrays import comparable
from beam_serving.client.arrow_inputs import ONLY_INPUT, data_to_b64, inputs_of, make_arrow_request
from beam_serving.client.endpoint import NOTHING_YET, Limits, OldArguments, Place, failed_like_cluster_serving
from beam_serving.client.images import as_image
from beam_serving.client.legacy_http import predict_over_http
from beam_serving.client.output_queue import OutputQueue
from beam_serving.client.pending_results import seconds_to_wait
from beam_serving.client.readership import nobody_reads, warn_that_nobody_reads
from beam_serving.client.requests import (
    Inputs,
    Request,
    Uri,
    checked,
    checked_pairs,
    chunked,
    make_request,
    new_request_id,
    telling_what_is_queued,
    whole_number,
)
from beam_serving.encryption.gcm import Keys, keys_to_send_with
from beam_serving.errors import InputError, QueueFullError, ResultError, ResultTimeoutError
from beam_serving.protocol.limits import DEFAULT_LIMITS
from beam_serving.protocol.replies import Reply
from beam_serving.transport.client_connection import GRACE_S, Server
from beam_serving.transport.deadline import time_limit


class InputQueue:
    """Queues requests for the service that reads `stream`.

    An instance may be shared by threads, but not by processes. No socket is opened before the first command. A request
    is delivered at least once: when the reply to a command is lost it is sent again under the same request id, up to
    five times in about two seconds, and the service answers it once.

    A uri names a request; a later request of the same uri takes over its result.

    Made with the arguments of Cluster Serving 0.9 and later (`host`, `name`, `frontend_url`, or neither an address nor
    a stream), `enqueue` and `predict` take inputs as theirs do and send them in their format: see docs/moving.md.

    Args:
        url_or_host: a host name, `host:port`, or a URL: `redis://`, `rediss://` (TLS), `unix://`, or one of sentinels
            or of a cluster, as docs/redis.md has it. None is localhost. `http://` and `https://` are a `frontend_url`.
        port: of a host name that comes without one, 6379 where it is None; ignored with a URL.
        stream: the stream that the service reads; None is "serving_stream". On a cluster it needs a hash tag.
        password: where the URL has none; None takes the environment variable BEAM_SERVING_REDIS_PASSWORD.
        max_connections: so many commands run at once; others wait up to `timeout_s` for their turn.
        timeout_s: seconds for what a call asks of Redis, waiting for its turn, connecting and trying again included;
            None for no limit. It ends with a ConnectError then, whatever Redis does. `enqueue_many` has it for each
            chunk.
        ca_file: a PEM file of the certificates to trust with TLS; None for the system's.
        secret: that of the service's `data: encryption`, 16 characters or more. With it and `salt` the inputs are
            encrypted. Uris, names, types and shapes are not, and neither are results. None for both: nothing is.
        salt: that of the same, 8 characters or more.
        max_request_bytes: of the names and values of a request as it is sent. A larger one is refused at once; a
            service whose `data: max_request_bytes` is smaller answers it with an error.
        **old: arguments of Cluster Serving: `host` and `name` mean `url_or_host` and `stream`, `frontend_url` is where
            `predict` goes, and `sync` means nothing.

    Raises:
        InputError: the URL has another scheme or form, `secret` or `salt` is missing or weak, an argument is unknown or
            given under both names, or one is none that can be.
    """

    def __init__(
        self,
        url_or_host: str | None = None,
        port: int | str | None = None,
        *,
        stream: str | None = None,
        password: str | None = None,
        max_connections: int = 4,
        timeout_s: float | None = 5.0,
        ca_file: str | None = None,
        secret: str | None = None,
        salt: str | None = None,
        max_request_bytes: int = DEFAULT_LIMITS.max_payload_bytes,
        **old: Unpack[OldArguments],
    ) -> None:
        self._keys = request_keys(secret, salt)
        self._max_request_bytes = whole_number("max_request_bytes", max_request_bytes)
        limits = Limits(password=password, max_connections=max_connections, timeout_s=timeout_s, ca_file=ca_file)
        self._place = Place.at(url_or_host, port, stream, limits, **old)
        self._server = self._place.server
        self._stream = self._place.stream
        self._limits = limits
        self._redis = self._server.client()
        self._results: OutputQueue | None = None
        self._looked = False

    def enqueue(self, uri: Uri, only_input: Any = None, /, **inputs: Any) -> str:
        """Queue one request and return its request id.

        Arrays and nested lists are tensors; a string, and lists or arrays of strings, are text; bytes, `bytearray`,
        `memoryview`, `Path`, a file opened in binary mode and a PIL image are an image. A list of floats is sent as
        float32, or as float64 where float32 would change a whole number or make a number infinite.

        As in Cluster Serving, where the queue was made so: inputs may have other names, in the model's order; tensors
        are sent as float32 unless that would change a whole number; text is the path of an image file, `{"b64": ...}`
        its base64, a list of texts is a tensor of these, and `[indices, values, shape]`, three arrays, is a sparse
        tensor.

        Args:
            uri: the name of the request: text, bytes, a whole number or a `Path`, of 1 to 4096 bytes.
            only_input: the one input of a model that has one, `enqueue("a", array)`; without a batch axis, or with one
                of size 1. None is none.
            **inputs: inputs by the model's names, of at most 256 bytes, `enqueue("a", pixels=array)`; likewise.

        Returns:
            The request id, for `OutputQueue.query`.

        Raises:
            InputError: this is no request, or it is above a limit of docs/protocol.md.
            ImageFileError: an image file cannot be read.
            QueueFullError: Redis has no room; nothing was queued.
            ConnectError: Redis cannot be reached, or refuses us.
        """
        only = ONLY_INPUT if self._place.like_cluster_serving else ""
        return self._queue(self._prepared(uri, inputs if only_input is None else {only: only_input, **inputs}))

    def enqueue_image(self, uri: Uri, image: object, *, name: str = "", encoding: str = "jpeg") -> str:
        """Queue one image, in this project's own format, and return its request id.

        Args:
            uri: the name of the request; see `enqueue`.
            image: the bytes or the path of a file, a file opened in binary mode, which is read from where it stands, a
                PIL image, which is sent as PNG, or a uint8 array: (height, width), (height, width, channels) or
                (channels, height, width), of 3 channels in BGR order, 4 with alpha behind, or 1. The channels are the
                last axis where that has 1, 3 or 4, else the first.
            name: of the input; "" for the one of a model that has one.
            encoding: what an array is encoded as, "jpeg" (quality 95, up to 65500 pixels a side) or "png" (lossless).

        Returns:
            The request id, for `OutputQueue.query`.

        Raises:
            InputError: this is no image, or it is above a limit of docs/protocol.md.
            ImageFileError: the file cannot be read.
            ClientError: it is an array, and OpenCV, which encodes it, is not installed.
            QueueFullError: Redis has no room; nothing was queued.
            ConnectError: Redis cannot be reached, or refuses us.
        """
        return self._queue(self._request(uri, {name: as_image(image, encoding)}))

    def enqueue_many(self, requests: Iterable[tuple[Uri, Inputs]]) -> list[str]:
        """Queue many requests, in this project's own format, and return their request ids.

        They are sent in chunks of at most 128, which end once they hold 1 MiB; a chunk is queued whole or not at all.

        Args:
            requests: pairs of uri and inputs as of `enqueue`; the inputs are a mapping by name, or the one input of a
                model that has one. No more than a chunk of them is held at once.

        Returns:
            The request ids, in the order of the requests.

        Raises:
            InputError: one is no request, or above a limit; the message says how many were queued before.
            ImageFileError: an image file cannot be read; likewise.
            QueueFullError: Redis has no room; the message says how many requests were queued before.
            ConnectError: Redis cannot be reached, or refuses us.
        """
        request_ids: list[str] = []
        with telling_what_is_queued(request_ids):
            for chunk in chunked(self._request(uri, inputs) for uri, inputs in checked_pairs(requests)):
                self._queue_chunk(chunk, len(request_ids))
                request_ids += [request.request_id for request in chunk]
        return request_ids

    def predict(self, request_data: object, timeout: float | None = 5.0) -> Reply:
        """Queue a request, wait for its result, and delete that; with `frontend_url` it goes over HTTP.

        Args:
            request_data: a mapping of inputs by name, where "" names the one of a model that has one; or that input
                alone, which Cluster Serving's format names "t"; or JSON text `{"instances": [{...}]}` with
                one instance, whose texts are base64 of image files.
            timeout: seconds to wait for the result, None for no limit. The call ends within half a second more,
                whatever Redis or the front end does.

        Returns:
            The result. As in Cluster Serving, where the queue was made so: "[]" stands for one that did not come in
            time, "NaN" for a failure, whose reason goes to the log.

        Raises:
            ResultTimeoutError: no result came in time.
            ResultError: the service answered with an error.
            ClientError: the front end refuses the request.
            InputError, ImageFileError, QueueFullError, ConnectError: see `enqueue`.
        """
        place = self._place
        inputs = inputs_of(request_data, as_columns=place.like_cluster_serving or place.frontend_url is not None)
        if self._place.frontend_url is not None:
            if self._keys is not None:
                raise InputError("a request to a front end is not encrypted; leave secret and salt out")
            return predict_over_http(self._place.frontend_url, inputs, timeout)
        if self._results is None:
            self._results = OutputQueue(self._server.url, stream=self._stream, **self._limits)
        wait_s = seconds_to_wait(timeout)
        uri = new_request_id()
        try:
            with time_limit(wait_s + GRACE_S):
                request_id = self._queue(self._prepared(uri, inputs))
                reply: Any = self._results.query(uri, timeout, request_id=request_id, delete=True)
        except (ResultTimeoutError, ResultError) as err:
            if not self._place.like_cluster_serving:
                raise
            reply = failed_like_cluster_serving(uri, err) if isinstance(err, ResultError) else NOTHING_YET
        return comparable(reply) if self._place.like_cluster_serving else reply  # type: ignore[no-any-return]

    def data_to_b64(self, **inputs: object) -> str:
        """Return inputs as Cluster Serving 0.9 and later have them on the stream, in the field `data`.

        Args:
            **inputs: inputs by name, as `enqueue` takes them where the queue was made as in Cluster Serving.

        Returns:
            Base64 of an Arrow stream; with a secret its images are encrypted.

        Raises:
            InputError: there is no input, or one that this format does not have.
            ImageFileError: an image file cannot be read.
        """
        return data_to_b64(inputs, self._keys).decode()

    def close(self) -> None:
        """Close the connections."""
        if self._results is not None:
            self._results.close()
        self._redis.close()

    def __enter__(self) -> "InputQueue":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepared(self, uri: Uri, inputs: Mapping[str, object]) -> Request:
        if not self._place.like_cluster_serving:
            return self._request(uri, inputs)
        return checked(make_arrow_request(uri, inputs, self._keys), self._max_request_bytes)

    def _request(self, uri: Uri, inputs: object) -> Request:
        return make_request(uri, inputs, self._keys, self._max_request_bytes)

    def _queue(self, request: Request) -> str:
        with self._server.call():
            self._redis.execute_command(*request.command(self._stream))
            self._look_for_readers()
        return request.request_id

    def _look_for_readers(self) -> None:
        """Warn, once, where what was queued first waits for nobody."""
        if not self._looked:
            self._looked = True
            if nobody_reads(self._redis, self._stream):
                warn_that_nobody_reads(self._server, self._stream)

    def _queue_chunk(self, chunk: list[Request], queued: int) -> None:
        with self._server.call():
            pipeline = self._redis.pipeline(transaction=True)
            for request in chunk:
                pipeline.execute_command(*request.command(self._stream))
            try:
                pipeline.execute()
            except (OutOfMemoryError, ExecAbortError) as err:
                raise chunk_refused(self._server, queued) from err
            self._look_for_readers()


def request_keys(secret: str | None, salt: str | None) -> Keys | None:
    """Return the keys that requests are encrypted with, None where they are not.

    Raises:
        InputError: one of both is missing, weak, or no text.
    """
    try:
        return keys_to_send_with(secret, salt)
    except (TypeError, ValueError) as err:
        raise InputError(str(err)) from err


def chunk_refused(server: Server, queued: int) -> QueueFullError:
    """Return the error of a chunk, which is queued whole or not at all, after `queued` requests that were."""
    return QueueFullError(f"Redis at {server.name} has no memory for more; the first {queued} requests were queued")
