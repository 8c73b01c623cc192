"""What happens when Redis has no memory left: serving goes on as long as that frees some, else reading pauses.

A commit writes its results also on such a server (`scripts.COMMIT`), so that a queue which fills it drains instead of
standing still. Where results are larger than their requests, draining would go far beyond the limit: then the reader
leaves requests in the queue until results were read or have expired. Nothing is asked and nothing is measured before a
commit has found the server without memory; the limit is passed by two batches of each worker at most.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence

import redis
from redis.exceptions import NoPermissionError

from beam_serving.io.results import memory_of
from beam_serving.records import Block
from beam_serving.transport.channel import Argument
from beam_serving.transport.connection import RedisAt

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0
_TELL_AGAIN_S = 600.0
_REQUEST_BYTES = 10
_RESULT_BYTES = 120
"""What Redis needs for one beside its bytes, about: an entry of a stream, and a hash with a key and a lifetime."""


class Balance:
    """Whether the server of this process was without memory at the last commit, and what serving costs it then."""

    def __init__(self) -> None:
        self.short = False
        self._requests: int | None = None
        self._results = 0

    def written(self, without_memory: bool, arguments: Sequence[Argument], records: int) -> None:
        """Take note of a commit; count its bytes where the server had no memory for it."""
        if without_memory:
            self.short = True
            sizes = (len(argument) for argument in arguments if not isinstance(argument, int))
            self._results += sum(sizes) + records * _RESULT_BYTES
        elif self.short:
            self.clear()

    def read(self, blocks: Iterable[Block]) -> None:
        """Take note of the requests whose results come next."""
        self._results = 0
        self._requests = sum(sum(map(len, flat)) + _REQUEST_BYTES for block in blocks for flat in block.fields)

    def grows(self) -> bool:
        """Return whether the last requests whose results were written without memory were smaller than these."""
        return self._requests is not None and self._results > self._requests

    def clear(self) -> None:
        """Forget everything: the server has memory."""
        self.short = False
        self._requests, self._results = None, 0


class Room:
    """Says whether a reader may go on; looks once a second while it may not, and tells when that begins and ends."""

    def __init__(self, at: RedisAt, client: redis.Redis, stop: threading.Event, balance: Balance) -> None:
        self._at = at
        self._balance = balance
        self._client = client
        self._stop = stop
        self._paused = False
        self._tell_at = 0.0

    def there(self) -> bool:
        """Return False after a moment's wait, where more results would only go beyond the limit.

        Raises:
            RedisError: the server does not answer.
        """
        if not self._balance.grows():
            return True
        try:
            used, limit = memory_of(self._client)
        except NoPermissionError as err:
            _log.debug("cannot ask Redis for its memory, going slowly: %s", err)
            self._stop.wait(_LOOK_EVERY_S)
            self._balance.clear()
            return True
        if limit == 0 or used < limit:
            self._balance.clear()
            if self._paused:
                _log.info("Redis at %s has memory again: reading goes on", self._at)
            self._paused = False
            return True
        self._pause(used, limit)
        return False

    def _pause(self, used: int, limit: int) -> None:
        now = time.monotonic()
        if not self._paused and now >= self._tell_at:
            self._paused = True
            self._tell_at = now + _TELL_AGAIN_S
            _log.warning(
                "Redis at %s has no memory left (%.1f of maxmemory %.1f MB), and results are larger than requests: "
                "reading pauses, requests stay queued. It goes on when results were deleted by who reads them, or "
                "expire (data: result_ttl_s); or raise maxmemory",
                self._at,
                used / 1e6,
                limit / 1e6,
            )
        self._stop.wait(_LOOK_EVERY_S)
