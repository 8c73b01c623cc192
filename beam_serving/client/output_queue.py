"""OutputQueue: fetches results, and waits for them without polling."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Unpack

from redis.client import PubSub

from beam_serving.client.arrays import comparable
from beam_serving.client.endpoint import NOTHING_YET, Limits, OldArguments, Place, failed_like_cluster_serving
from beam_serving.client.pending_results import Wanted, key_of, pattern_of, seconds_to_wait, taken_replies
from beam_serving.client.requests import Uri
from beam_serving.errors import ResultError, ResultTimeoutError
from beam_serving.protocol.replies import Reply
from beam_serving.transport.client_connection import RedisClient, redis_errors

SCAN_COUNT = 512
READ_COUNT = 256
_LONGEST_WAIT_S = 3600.0
"""Of one call to the operating system, which takes no more than some weeks; a wait is as many of them as it needs."""


class OutputQueue:
    """Fetches the results of requests on `stream`, of whichever version their client was.

    A result is, for a model with one output, a dict from class index to probability, best first, or an array, which
    for text is one of `str` (and a `str` itself where the output is one text without dimensions); for
    several outputs a dict of these by output name (a list of arrays where the result was written for an older client).
    Arrays may be read-only.

    To wait, the queue listens on the channel that is named like the result's key, on which the service tells that it
    has written. An instance may be shared by threads, but not by processes; each thread that waits has a connection
    of its own, kept for the next wait. When the connection breaks while waiting, it is made anew, and nothing is
    missed.

    Made with the arguments of Cluster Serving 0.9 and later (`host`, `name`, or neither an address nor a stream),
    `query` and `dequeue` answer as theirs do: "[]" where there is no result yet, "NaN" for a failure, whose reason goes
    to the log.

    Args:
        url_or_host: a host name, `host:port` or a URL; see `InputQueue`. None is localhost.
        port: of a host name that comes without one, 6379 where it is None; ignored with a URL.
        stream: the stream that the requests were queued on; None is "serving_stream".
        password: where the URL has none; None takes the environment variable BEAM_SERVING_REDIS_PASSWORD.
        by_label: best classes go by their names where the service has them, else by 0-based index.
        max_connections: so many commands run at once, beside the connections that wait for results; others wait up to
            `timeout_s` for their turn.
        timeout_s: seconds, for each connection and for each reply, not for a result; above a day it is a day.
        ca_file: a PEM file of the certificates to trust with TLS; None for the system's.
        **old: arguments of Cluster Serving: `host` and `name` mean `url_or_host` and `stream`; `frontend_url` and
            `sync` mean nothing here.

    Raises:
        ValueError: the URL has another scheme or form.
        TypeError: an argument is unknown or given under both names.
        InputError: `timeout_s` is no number above 0.
    """

    def __init__(
        self,
        url_or_host: str | None = None,
        port: int | str | None = None,
        *,
        stream: str | None = None,
        password: str | None = None,
        by_label: bool = False,
        max_connections: int = 4,
        timeout_s: float = 5.0,
        ca_file: str | None = None,
        **old: Unpack[OldArguments],
    ) -> None:
        limits = Limits(password=password, max_connections=max_connections, timeout_s=timeout_s, ca_file=ca_file)
        self._place = Place.at(url_or_host, port, stream, limits, **old)
        self._server = self._place.server
        self._stream = self._place.stream
        self._by_label = by_label
        self._redis = self._server.client()
        self._subscribers = self._server.subscriber()
        self._idle: list[PubSub] = []  # append and pop of a list are atomic

    def query(
        self, uri: Uri, timeout_s: float | None = None, *, request_id: str | None = None, delete: bool = False
    ) -> Reply | str | None:
        """Return the result of one request.

        Args:
            uri: as it was given to `enqueue`.
            timeout_s: seconds to wait, `math.inf` for no limit; None asks once. True or False is `delete`, which
                Cluster Serving has in this place.
            request_id: as `InputQueue.enqueue` returned it: a result of another request of the same uri does not count.
            delete: remove the result; else it stays for its lifetime.

        Returns:
            The result; None (or "[]", as in Cluster Serving) where there is none yet and `timeout_s` is None.

        Raises:
            InputError: the uri or `timeout_s` is none that can be.
            ResultTimeoutError: no result came in `timeout_s`.
            ResultError: the service answered this request with an error; the message is its reason.
            ConnectError: Redis cannot be reached, or refuses us.
        """
        if isinstance(timeout_s, bool):
            timeout_s, delete = None, timeout_s
        request_ids = None if request_id is None else [request_id]
        reply = self._query_many([uri], timeout_s, request_ids, delete).get(uri)
        if self._place.like_cluster_serving:
            if isinstance(reply, ResultError):
                return failed_like_cluster_serving(uri, reply)
            if reply is None and timeout_s is None:
                return NOTHING_YET
            reply = comparable(reply)
        return checked_reply(uri, reply, timeout_s)

    def query_and_delete(self, uri: Uri) -> Reply | str | None:
        """Return the result of one request and remove it: `query` with `delete`, which does not wait.

        Args:
            uri: as it was given to `enqueue`.

        Returns:
            The result; None (or "[]", as in Cluster Serving) where there is none yet.

        Raises:
            InputError, ResultError, ConnectError: see `query`.
        """
        return self.query(uri, delete=True)

    def query_many(
        self,
        uris: Iterable[Uri],
        timeout_s: float | None = None,
        *,
        request_ids: Sequence[str] | None = None,
        delete: bool = False,
    ) -> dict[Any, Reply | ResultError]:
        """Return the results of many requests by uri.

        Args:
            uris: as they were given to `enqueue`.
            timeout_s: seconds to wait for all of them together, `math.inf` for no limit; None asks once.
            request_ids: one for each uri, in their order: results of other requests do not count. The uris are all
                different then.
            delete: remove the results that are returned; else they stay for their lifetime.

        Returns:
            What came in time, by uri in the order of `uris`; the rest is left out. A request that failed has its
            ResultError as a value, also where `query` answers as in Cluster Serving.

        Raises:
            InputError: a uri or `timeout_s` is none that can be.
            ValueError: there are not as many `request_ids` as uris.
            ConnectError: Redis cannot be reached, or refuses us.
        """
        return self._query_many(uris, timeout_s, request_ids, delete)

    def _query_many(
        self, uris: Iterable[Uri], timeout_s: float | None, request_ids: Sequence[str] | None, delete: bool
    ) -> dict[Any, Reply | ResultError]:
        wanted = Wanted(self._stream, uris, request_ids)
        with redis_errors(self._server):
            if timeout_s is None:
                self._read(wanted, list(wanted.pending))
            else:
                self._wait(wanted, time.monotonic() + seconds_to_wait(timeout_s))
            if delete and wanted.arrived:
                self._redis.delete(*wanted.arrived)
        return wanted.replies(self._by_label)

    def dequeue(self) -> dict[str, Any]:
        """Take all results that are there and delete them. Each goes to one caller only, and is lost with its reply.

        Returns:
            The results by uri, as text. A request that failed has its ResultError as a value ("NaN" where it is so in
            Cluster Serving).

        Raises:
            ConnectError: Redis cannot be reached, or refuses us.
        """
        with redis_errors(self._server):
            taken = take_all(self._redis, key_of(self._stream, "*")[:-1], self._by_label)
        if not self._place.like_cluster_serving:
            return taken
        return {
            uri: failed_like_cluster_serving(uri, reply) if isinstance(reply, ResultError) else comparable(reply)
            for uri, reply in taken.items()
        }

    def close(self) -> None:
        """Close the connections; threads that still wait get a ConnectError."""
        while self._idle:
            self._idle.pop().close()
        self._subscribers.close()
        self._redis.close()

    def __enter__(self) -> "OutputQueue":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, wanted: Wanted, deadline: float) -> None:
        """Read each result when its subscription begins, whenever it is announced, and once at the very end."""
        if not wanted.pending:
            return
        with self._subscription(wanted.pending) as subscription:
            while wanted.pending:
                announced = _announced(subscription, wanted.pending, deadline)
                self._read(wanted, announced or list(wanted.pending))
                if not announced:
                    return

    def _read(self, wanted: Wanted, keys: Sequence[bytes]) -> None:
        if len(keys) == 1:
            wanted.take(keys[0], self._redis.hgetall(keys[0]))
            return
        for start in range(0, len(keys), READ_COUNT):
            page = keys[start : start + READ_COUNT]
            pipeline = self._redis.pipeline(transaction=False)
            for key in page:
                pipeline.hgetall(key)
            for key, fields in zip(page, pipeline.execute(), strict=True):
                wanted.take(key, fields)

    @contextmanager
    def _subscription(self, channels: Iterable[bytes]) -> Iterator[PubSub]:
        channels = list(channels)
        try:
            subscription = self._idle.pop()
        except IndexError:
            subscription = self._subscribers.pubsub()
        try:
            subscription.subscribe(*channels)
            yield subscription
            subscription.unsubscribe(*channels)  # type: ignore[no-untyped-call]
        except BaseException:
            subscription.close()
            raise
        self._idle.append(subscription)


def checked_reply(uri: Uri, reply: Reply | ResultError | None, timeout_s: float | None) -> Reply | None:
    """Return the reply to a query.

    Raises:
        ResultTimeoutError: it was waited for and did not come.
        ResultError: it is an error.
    """
    if isinstance(reply, ResultError):
        raise reply
    if reply is None and timeout_s is not None:
        raise ResultTimeoutError(f"request {uri!r}: no result within {timeout_s:g} s")
    return reply


def _announced(subscription: PubSub, pending: set[bytes], deadline: float) -> list[bytes]:
    """Wait for channels of `pending` on which something was told; none when the deadline has passed.

    The beginning of a subscription counts: what was told before, or while a connection was lost, would be missed.
    """
    announced: dict[bytes, None] = {}
    while len(announced) < len(pending):
        wait_s = 0.0 if announced else min(max(deadline - time.monotonic(), 0.0), _LONGEST_WAIT_S)
        message = subscription.get_message(timeout=wait_s)
        if message is None and (announced or time.monotonic() >= deadline):
            break
        if message is not None and message["type"] in ("subscribe", "message") and message["channel"] in pending:
            announced[message["channel"]] = None
    return list(announced)


def take_all(client: RedisClient, prefix: bytes, by_label: bool) -> dict[str, Reply | ResultError]:
    """Read and delete all hashes whose keys begin with `prefix`, page by page, each in one step with its deletion."""
    taken: dict[str, Reply | ResultError] = {}
    cursor = -1
    while cursor != 0:
        cursor, keys = client.scan(max(cursor, 0), match=pattern_of(prefix), count=SCAN_COUNT, _type="hash")
        if not keys:
            continue
        pipeline = client.pipeline(transaction=True)
        for key in keys:
            pipeline.hgetall(key)
            pipeline.delete(key)
        taken |= taken_replies(prefix, keys, pipeline.execute(raise_on_error=False), by_label)
    return taken
