"""The outbox: a stream beside each stream of requests that keeps results until they are in files.

`WriteToRedis` appends a result to it in the transaction that also writes the result for its client and acknowledges
the request. So a record is there exactly when its request is served, whatever dies and when; records are taken off only
when the files that hold them are complete. A crash in between writes them again: at least once, and `entry` tells
doubles.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis
from redis.exceptions import LockError, NoPermissionError, RedisError

from beam_serving.io.scripts import FORGET_OUTBOX_RECORDS, KEEP_LOCK, RELEASE_LOCK, TAKE_LOCK
from beam_serving.telemetry.periodic import PeriodicThread
from beam_serving.transport.lua import evaluate
from beam_serving.transport.retry import retry_until

_log = logging.getLogger(__name__)
OUTBOX = b":rows"
"""Appended to a stream's name, it names its outbox."""
_PAGE_BYTES = 8 << 20
_PAGE_ROWS = 1000
_LOCK_S = 60.0


class Outbox(NamedTuple):
    """What one outbox holds: records of the requests of `stream`, up to the record `last`."""

    stream: bytes
    last: bytes


class OutboxRecord(NamedTuple):
    """A result in an outbox. `record_id` begins with the time of its commit in ms; `fields` are those of the result.

    `entry` is the id of the request in its stream. `key` is where the client finds the result, empty without a uri.
    """

    stream: bytes
    record_id: bytes
    entry: bytes
    key: bytes
    fields: dict[bytes, bytes]


def kept(client: redis.Redis, streams: Iterable[str]) -> list[Outbox]:
    """Look which outboxes hold records now, and up to which record."""
    found = []
    for stream in streams:
        newest: Any = client.xrevrange(stream.encode() + OUTBOX, count=1)
        if newest:
            found.append(Outbox(stream.encode(), newest[0][0]))
    return found


def outbox_records(client: redis.Redis, stream: str) -> int | None:
    """Count the records of an outbox. None for a user who has no right to it, which only drains with an output need."""
    try:
        return int(client.xlen(stream.encode() + OUTBOX))
    except NoPermissionError:
        return None


def forget(client: redis.Redis, outbox: Outbox) -> None:
    """Take records off that are in files now."""
    evaluate(client, FORGET_OUTBOX_RECORDS, 1, outbox.stream + OUTBOX, outbox.last)


def records_in(client: redis.Redis, outbox: Outbox) -> Iterator[OutboxRecord]:
    """Yield records oldest first; reads at most about 8 MB at a time."""
    start, count = b"-", 1
    while True:
        page: Any = client.xrange(outbox.stream + OUTBOX, start, outbox.last, count)
        size = 0
        for record_id, fields in page:
            size += sum(map(len, fields.values()))
            entry, key = fields.pop(b"entry"), fields.pop(b"key", b"")
            yield OutboxRecord(outbox.stream, record_id, entry, key, fields)
        if len(page) < count:
            return
        start = b"(" + page[-1][0]
        count = max(1, min(_PAGE_ROWS, 2 * count, _PAGE_BYTES * count // (size + 1)))


@contextmanager
def sole_writer(client: redis.Redis, name: str, deployment: str) -> Iterator[None]:
    """Wait until nobody else writes the records of this service to files, and keep others from it.

    Raises:
        RedisError: the server does not answer.
    """
    key = f"beam-serving:{name}:output"
    retry_until(
        lambda: _take(client, key, deployment),
        lambda err: isinstance(err, LockError),
        report=lambda _: _log.info("another drain of %s writes its results to files; waiting for it", name),
    )
    renewing = PeriodicThread("output lock", _LOCK_S / 4, lambda: _renew(client, key, deployment))
    try:
        yield
    finally:
        renewing.close()
        _release(client, key, deployment)


def _take(client: redis.Redis, key: str, deployment: str) -> None:
    if not evaluate(client, TAKE_LOCK, 1, key, deployment, int(_LOCK_S * 1000)):
        raise LockError("another has it")


def _release(client: redis.Redis, key: str, deployment: str) -> None:
    try:
        evaluate(client, RELEASE_LOCK, 1, key, deployment)
    except RedisError as err:
        _log.debug("cannot release the lock %s, it expires by itself: %s", key, err)


def _renew(client: redis.Redis, key: str, deployment: str) -> None:
    try:
        evaluate(client, KEEP_LOCK, 1, key, deployment, int(_LOCK_S * 1000))
    except RedisError as err:
        _log.warning("cannot renew the lock %s, which another drain takes where that lasts: %s", key, err)
