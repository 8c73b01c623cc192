"""The one way to try a command of Redis again."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from redis.exceptions import RedisError

T = TypeVar("T")


def backoff(first_s: float = 0.05, most_s: float = 5.0) -> Iterator[float]:
    """Yield waits that double up to `most_s`, each jittered by half, so that many workers do not return at once."""
    wait_s = first_s
    while True:
        yield wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
        wait_s = min(wait_s * 2, most_s)


def retry_until(
    call: Callable[[], T],
    passes: Callable[[RedisError], bool],
    *,
    report: Callable[[RedisError], None] | None = None,
    stop: threading.Event | None = None,
    give_up_at: float = math.inf,
) -> T:
    """Call something until it returns.

    A stop cuts the wait short and leaves one more call, so that what one lost connection kept out gets in.

    Args:
        call: Sends a command. It may be sent twice where only the reply was lost, so twice must do no more than once.
        passes: Whether an error may pass; any other is raised.
        report: Is told the first error that passes.
        stop: Ends the waiting.
        give_up_at: The time of `time.monotonic` behind which no call is made.

    Returns:
        What `call` returned.

    Raises:
        RedisError: the last one, where it does not pass, `stop` is set or it is too late.
    """
    waits = backoff()
    stop = stop or threading.Event()
    first = True
    while True:
        try:
            return call()
        except RedisError as err:
            wait_s = next(waits)
            if not passes(err) or (stop.is_set() and not first) or time.monotonic() + wait_s >= give_up_at:
                raise
            if first and report is not None:
                report(err)
            first = False
        stop.wait(wait_s)
