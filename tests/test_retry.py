"""What may pass is tried again, until a stop or a time; what may not is raised at once."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from beam_serving.transport.retry import retry_until

BROKEN = RedisConnectionError("broken")


def calls_that(results: Sequence[RedisError | str]) -> tuple[list[float], Callable[[], str]]:
    """A call that raises or returns these one after the other, and when it was called."""
    left, times = list(results), []

    def call() -> str:
        times.append(time.monotonic())
        result = left.pop(0)
        if isinstance(result, RedisError):
            raise result
        return result

    return times, call


def passes(err: RedisError) -> bool:
    return err is BROKEN


def test_it_calls_until_there_is_a_result_and_reports_the_first_error_only() -> None:
    times, call = calls_that([BROKEN, BROKEN, "done"])
    reported: list[RedisError] = []
    assert retry_until(call, passes, report=reported.append) == "done"
    assert reported == [BROKEN]
    first_s, second_s = times[1] - times[0], times[2] - times[1]
    assert first_s >= 0.025
    assert second_s >= 0.05


def test_an_error_that_does_not_pass_is_raised_at_once() -> None:
    times, call = calls_that([ResponseError("refused"), "done"])
    reported: list[RedisError] = []
    with pytest.raises(ResponseError, match="refused"):
        retry_until(call, passes, report=reported.append)
    assert (len(times), reported) == (1, [])


def test_a_set_stop_leaves_one_call_more() -> None:
    stop = threading.Event()
    stop.set()
    times, call = calls_that([BROKEN, BROKEN, "done"])
    with pytest.raises(RedisConnectionError):
        retry_until(call, passes, stop=stop)
    assert len(times) == 2


def test_a_stop_cuts_a_wait_short() -> None:
    stop = threading.Event()
    times, call = calls_that([BROKEN] * 100)
    timer = threading.Timer(1.0, stop.set)
    timer.start()
    with pytest.raises(RedisConnectionError):
        retry_until(call, passes, stop=stop)
    assert time.monotonic() - times[0] < 1.5


def test_no_call_is_made_behind_the_time_to_give_up() -> None:
    give_up_at = time.monotonic() + 0.3
    times, call = calls_that([BROKEN] * 100)
    with pytest.raises(RedisConnectionError):
        retry_until(call, passes, give_up_at=give_up_at)
    assert 2 <= len(times) <= 8
    assert times[-1] < give_up_at
