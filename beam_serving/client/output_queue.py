"""OutputQueue: fetches results, and waits for them without polling."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Unpack, overload

from redis.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from beam_serving.client.arrays import comparable
from beam_serving.client.endpoint import NOTHING_YET, Limits, OldArguments, Place, failed_like_cluster_serving
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
from beam_serving.client.readership import nobody_reads, reason
from beam_serving.client.requests import Uri
from beam_serving.errors import ConnectError, ResultError, ResultTimeoutError, brief
from beam_serving.protocol.replies import Reply
from beam_serving.transport.client_connection import GRACE_S, Call, RedisClient, Server
from beam_serving.transport.deadline import has_time, only_once, time_limit
from beam_serving.transport.retry import backoff

SCAN_COUNT = 512
READ_COUNT = 256
_LONGEST_WAIT_S = 3600.0
"""Of one call to the operating system, which takes no more than some weeks; a wait is as many of them as it needs."""
TAKES = 5
"""How often results are tried to be taken while the connection breaks."""

_log = logging.getLogger(__name__)


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
        timeout_s: seconds for what a call asks of Redis, connecting and trying again included, None for no limit. It
            ends with a ConnectError then, whatever Redis does. A call that waits for results has its own time, in which
            each look at Redis has this. `dequeue` has it for each page of 512 results, `query_many` of 256.
        ca_file: a PEM file of the certificates to trust with TLS; None for the system's.
        **old: arguments of Cluster Serving: `host` and `name` mean `url_or_host` and `stream`; `frontend_url` and
            `sync` mean nothing here.

    Raises:
        InputError: the URL has another scheme or form, an argument is unknown or given under both names, or one is
            none that can be.
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
        timeout_s: float | None = 5.0,
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

    @overload
    def query(self, uri: Uri, *, request_id: str | None = None, delete: bool = False) -> Reply | None: ...

    @overload
    def query(
        self, uri: Uri, timeout_s: float | None, *, request_id: str | None = None, delete: bool = False
    ) -> Reply: ...

    def query(
        self, uri: Uri, timeout_s: float | Wait | None = ONCE, *, request_id: str | None = None, delete: bool = False
    ) -> Any:
        """Return the result of one request.

        Args:
            uri: as it was given to `enqueue`.
            timeout_s: seconds to wait, None for no limit; without it, ask once. The call ends within half a second
                more, whatever Redis does. True or False is `delete`, which Cluster Serving has in this place.
            request_id: as `InputQueue.enqueue` returned it: a result of another request of the same uri does not count.
            delete: remove the result; else it stays for its lifetime, as it does where Redis fails just then.

        Returns:
            The result; None (or "[]", as in Cluster Serving) where there is none yet and `timeout_s` was not given.

        Raises:
            InputError: the uri or `timeout_s` is none that can be.
            ResultTimeoutError: no result came in `timeout_s`.
            ResultError: the service answered this request with an error; the message is its reason.
            ConnectError: Redis cannot be reached, does not answer in time, or refuses us.
        """
        if isinstance(timeout_s, bool):
            timeout_s, delete = ONCE, timeout_s
        request_ids = None if request_id is None else [request_id]
        reply: Any = self._query_many([uri], timeout_s, request_ids, delete).get(uri)
        if self._place.like_cluster_serving:
            if isinstance(reply, ResultError):
                return failed_like_cluster_serving(uri, reply)
            if reply is None and timeout_s is ONCE:
                return NOTHING_YET
            reply = comparable(reply)
        why = ""
        if reply is None and not isinstance(timeout_s, Wait) and nobody_reads(self._redis, self._stream):
            why = reason(self._server, self._stream)
        return checked_reply(uri, reply, timeout_s, why)

    def query_and_delete(self, uri: Uri) -> Reply | None:
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
        timeout_s: float | Wait | None = ONCE,
        *,
        request_ids: Sequence[str] | None = None,
        delete: bool = False,
    ) -> dict[Any, Reply | ResultError]:
        """Return the results of many requests by uri.

        Args:
            uris: as they were given to `enqueue`.
            timeout_s: seconds to wait for all of them together, None for no limit; without it, ask once. The call ends
                within half a second more, whatever Redis does.
            request_ids: one for each uri, in their order: results of other requests do not count. A uri may be there
                twice only with the same id.
            delete: remove the results that are returned; else they stay for their lifetime, as they do where Redis
                fails just then.

        Returns:
            What came in time, by uri in the order of `uris`; the rest is left out. A request that failed has its
            ResultError as a value, also where `query` answers as in Cluster Serving.

        Raises:
            InputError: a uri or `timeout_s` is none that can be, or the `request_ids` do not fit the uris.
            ConnectError: Redis cannot be reached, does not answer in time (and nothing came), or refuses us.
        """
        return self._query_many(uris, timeout_s, request_ids, delete)

    def _query_many(
        self, uris: Iterable[Uri], timeout_s: float | Wait | None, request_ids: Sequence[str] | None, delete: bool
    ) -> dict[Any, Reply | ResultError]:
        wanted = Wanted(self._stream, uris, request_ids)
        if isinstance(timeout_s, Wait):
            with Call(self._server, self._server.timeout_s, bounded=False):  # each page is
                self._read(wanted, list(wanted.pending))
                self._forget(wanted.arrived if delete else [])
            return wanted.replies(self._by_label)
        wait_s = seconds_to_wait(timeout_s)
        ends_at = time.monotonic() + wait_s
        try:
            with self._server.call(wait_s + GRACE_S):
                self._wait(wanted, ends_at)
                self._forget(wanted.arrived if delete else [])
        except ConnectError:
            if not wanted.arrived or time.monotonic() < ends_at:
                raise
        return wanted.replies(self._by_label)

    def dequeue(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Take all results that are there and delete them.

        Each goes to one caller. When a reply of Redis is lost, what may be deleted is given all the same, and perhaps
        to another caller too. Where Redis fails after some results were taken, these are returned.

        Args:
            timeout_s: seconds for all of it, None for no limit but that of the queue for each page of 512 results. What
                is not taken then stays.

        Returns:
            The results by uri, as text. A request that failed has its ResultError as a value ("NaN" where it is so in
            Cluster Serving).

        Raises:
            InputError: `timeout_s` is none that can be.
            ConnectError: Redis cannot be reached, does not answer in time, or refuses us; nothing was taken.
        """
        with time_limit(seconds_to_wait(timeout_s)):
            taken = take_all(self._server, self._redis, key_of(self._stream, "*")[:-1], self._by_label)
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
        for start in range(0, len(keys), READ_COUNT):
            page = keys[start : start + READ_COUNT]
            with time_limit(self._server.timeout_s):
                if len(page) == 1:
                    wanted.take(page[0], self._redis.hgetall(page[0]))
                    continue
                pipeline = self._redis.pipeline(transaction=False)
                for key in page:
                    pipeline.hgetall(key)
                for key, fields in zip(page, pipeline.execute(), strict=True):
                    wanted.take(key, fields)

    def _forget(self, keys: Sequence[bytes]) -> None:
        """Delete results that are in hand, where Redis is there; they are more than their deletion."""
        try:
            if keys:
                with time_limit(self._server.timeout_s):
                    self._redis.delete(*keys)
        except (RedisConnectionError, RedisTimeoutError) as err:
            _log.warning("%d results could not be deleted, and stay for their lifetime: %s", len(keys), err)

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


def checked_reply(
    uri: Uri, reply: Reply | ResultError | None, timeout_s: float | Wait | None, why: str = ""
) -> Reply | None:
    """Return the reply to a query; `why` is known of one that did not come.

    Raises:
        ResultTimeoutError: it was waited for and did not come.
        ResultError: it is an error.
    """
    if isinstance(reply, ResultError):
        raise reply
    if reply is None and not isinstance(timeout_s, Wait):
        raise ResultTimeoutError(f"request {brief(uri)}: no result within {timeout_s:g} s{why}")
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


def take_all(server: Server, client: RedisClient, prefix: bytes, by_label: bool) -> dict[str, Reply | ResultError]:
    """Take all hashes whose keys begin with `prefix`, page by page; see `OutputQueue.dequeue`."""
    taken: dict[bytes, Hash] = {}
    cursor = -1
    try:
        while cursor != 0:
            taking = Taking()
            try:
                with server.call():
                    cursor, keys = client.scan(max(cursor, 0), match=pattern_of(prefix), count=SCAN_COUNT, _type="hash")
                    if keys:
                        _take(client, keys, taking)
            finally:
                taken |= taking.hashes()
    except ConnectError as err:
        if not taken:
            raise
        report_unfinished(taken, err)
    return taken_replies(prefix, taken, by_label)


def _take(client: RedisClient, keys: Sequence[bytes], taking: Taking) -> None:
    """Take the results at some keys; see `Taking`.

    Raises:
        RedisError: those that are not taken could not be, and are there still.
    """
    for tries, wait_s in enumerate(backoff(most_s=1.0), 1):
        try:
            pipeline = client.pipeline(transaction=False)
            for key in keys:
                pipeline.hgetall(key)
            there = taking.read(keys, pipeline.execute(raise_on_error=False))
            if not there:
                return
            pipeline = client.pipeline(transaction=True)
            for key in there:
                pipeline.hgetall(key)
                pipeline.delete(key)
            with only_once():
                taking.took(there, pipeline.execute(raise_on_error=False))
            return
        except (RedisConnectionError, RedisTimeoutError):
            taking.failed()
            if tries == TAKES or not has_time(wait_s):
                raise
            time.sleep(wait_s)
        except RedisError:
            taking.refused()
            raise
