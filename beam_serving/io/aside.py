"""Entries that are set aside: what takes long to decode does not keep what was read with it waiting.

A thread of low priority takes them up one after the other. Such an entry stays in Redis, pending and leased, and
only its id is kept here, so that many may wait; what came of it goes on with the next read batch. A worker that ends
leaves it pending, as any other, and not counted as delivered until its turn has come: who waits has ended no worker.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import redis
from redis.exceptions import RedisError

from beam_serving.records import Entry
from beam_serving.transport.retry import retry_until

_log = logging.getLogger(__name__)
_MOST = 6500
"""Entries of one consumer: a lease renews 7,000 at a time, those of a read batch among them."""
_LOW_PRIORITY = 10
_STOPPING_S = 2.0
_FINISHED = 4
"""Outcomes that wait to be taken: they hold tensors."""


class _Fault(NamedTuple):
    """What decoding raised in the other thread, where nobody would hear of it."""

    error: Exception


class Aside:
    """The entries that one consumer has set aside.

    `large` is held while a large request is decoded, here or in place, so that a worker never does two at once.
    """

    def __init__(self, client: redis.Redis, group: str, consumer: bytes, consumers: Consumers) -> None:
        self._consumers = consumers
        self._client = client
        self._group = group
        self._consumer = consumer
        self._waiting: queue.SimpleQueue[tuple[Entry, Callable[[Entry], object]] | None] = queue.SimpleQueue()
        self._finished: queue.Queue[object] = queue.Queue(_FINISHED)
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._count = 0
        self._give_up_at: float | None = None
        self._streams: frozenset[bytes] = frozenset()
        self.large = threading.Lock()

    def put(self, entry: Entry, decode: Callable[[Entry], object]) -> bool:
        """Set an entry aside for `decode`, which runs in another thread; says no where too many are already."""
        if self._count >= _MOST or self._stop.is_set():
            return False
        try:
            self._claim(entry, entry.deliveries - 1, only_id=True)
        except RedisError as err:
            _log.debug("cannot set an entry aside: %s", err)
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="aside", daemon=True)
            self._thread.start()
        self._count += 1
        self._streams |= {entry.stream}
        self._waiting.put((entry._replace(fields={}), decode))
        return True

    @property
    def busy(self) -> bool:
        """Whether entries are set aside whose outcomes were not taken."""
        return self._count > 0

    def goes_on(self, stopping: bool) -> bool:
        """Return whether to wait for what is set aside; of a service that stops for a moment only, the rest stays."""
        if stopping and self._give_up_at is None:
            self._give_up_at = time.monotonic() + _STOPPING_S
        return self.busy and (self._give_up_at is None or time.monotonic() < self._give_up_at)

    @property
    def streams(self) -> frozenset[bytes]:
        """The streams of entries that are set aside."""
        return self._streams if self._count else frozenset()

    def finished(self, within_s: float) -> bool:
        """Return whether there are outcomes to be taken; wait for one so long."""
        return self.busy and self._ready.wait(within_s)

    def take(self) -> list[object]:
        """Return the outcomes that are there.

        Raises:
            Exception: what `decode` raised, a fault of ours: the entry stays pending, and the bundle ends with it.
        """
        found = []
        self._ready.clear()
        while not self._finished.empty():
            self._count -= 1
            outcome = self._finished.get()
            if isinstance(outcome, _Fault):
                raise outcome.error
            if outcome is not None:
                found.append(outcome)
        return found

    def close(self) -> None:
        """End the thread after what it is at; what waits stays pending."""
        self._stop.set()
        self._waiting.put(None)
        self._consumers.close(self)

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOW_PRIORITY)
        while (next_one := self._waiting.get()) is not None and not self._stop.is_set():
            outcome = self._outcome(*next_one)
            while not self._stop.is_set():
                try:
                    self._finished.put(outcome, timeout=1.0)
                    self._ready.set()
                    break
                except queue.Full:
                    continue
        self._client.close()

    def _outcome(self, entry: Entry, decode: Callable[[Entry], object]) -> Any:
        fields = self._fields(entry)
        if not fields:
            return None
        try:
            with self.large:
                return decode(entry._replace(fields=fields))
        except Exception as err:  # noqa: BLE001 - whatever it is, it is raised where the outcome is taken
            return _Fault(err)

    def _claim(self, entry: Entry, deliveries: int, only_id: bool = False) -> Any:
        return self._client.xclaim(
            entry.stream,
            self._group,
            self._consumer,
            0,
            [entry.entry_id],
            retrycount=deliveries,
            justid=only_id,
        )

    def _fields(self, entry: Entry) -> dict[bytes, bytes]:
        """Read an entry again, as delivered now; return nothing where it is gone."""
        try:
            found = retry_until(lambda: self._claim_unless_stopped(entry), lambda _: True, stop=self._stop)
        except RedisError as err:
            _log.debug("cannot read an entry that was set aside: %s", err)
            return {}
        return found[0][1] if found else {}

    def _claim_unless_stopped(self, entry: Entry) -> Any:
        return [] if self._stop.is_set() else self._claim(entry, entry.deliveries)


class Consumers:
    """What each consumer of this process has set aside: its source looks after it, its decoding puts and takes."""

    def __init__(self) -> None:
        self._of: dict[bytes, Aside] = {}

    def open(self, consumer: bytes, group: str, client: redis.Redis) -> Aside:
        """Begin for a consumer."""
        self._of[consumer] = aside = Aside(client, group, consumer, self)
        return aside

    def of(self, consumer: bytes) -> Aside | None:
        """Return what a consumer has set aside; None where nobody would look after it."""
        return self._of.get(consumer)

    def close(self, aside: Aside) -> None:
        """End for a consumer."""
        self._of = {consumer: one for consumer, one in self._of.items() if one is not aside}
