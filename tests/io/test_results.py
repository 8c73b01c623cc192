"""What results take in Redis: measured, warned of, and bounded."""

import json
import logging
import os
import threading
from collections.abc import Iterator

import pytest
import redis
from redis.exceptions import NoPermissionError

from beam_serving.io.consumer import Reading, StreamConsumer
from beam_serving.io.results import Bound, ResultsState, ResultsWatch, measure_results, read_state, results_key
from beam_serving.telemetry.context import service_context
from beam_serving.transport.connection import RedisAt
from tests.service import await_true

pytestmark = pytest.mark.every_server
STREAM = "serving_stream"
PREFIX = f"cluster-serving_{STREAM}:"
MB = 1 << 20


def write(client: redis.Redis, number: int, size: int, prefix: str = PREFIX, first: int = 0) -> int:
    """Write results, and return what they take."""
    pipeline = client.pipeline(transaction=False)
    for place in range(first, first + number):
        pipeline.hset(f"{prefix}{place}", mapping={"id": "7", "tensor:": os.urandom(size)})
    pipeline.execute()
    return number * int(client.memory_usage(f"{prefix}{first}") or 0)


@pytest.mark.parametrize(
    ("results", "others", "size", "within"), [(300, 5000, 3000, 0.02), (60_000, 30_000, 100, 0.05), (0, 100, 1, 0.0)]
)
def test_a_sample_tells_what_all_results_take(
    client: redis.Redis, results: int, others: int, size: int, within: float
) -> None:
    taken = write(client, results, size) if results else 0
    write(client, others, 10, "cluster-serving_other:")
    assert measure_results(client, [STREAM]) == pytest.approx(taken, rel=within)


def test_results_of_old_images_count_where_these_are_served(client: redis.Redis) -> None:
    taken = write(client, 10, 1000, "result:")
    assert measure_results(client, [STREAM]) == 0
    assert measure_results(client, [STREAM, "image_stream"]) == pytest.approx(taken, rel=0.02)
    assert measure_results(client, ["image_stream"], is_cluster=True) == pytest.approx(taken, rel=0.02)


@pytest.fixture
def watch(at: RedisAt) -> Iterator[ResultsWatch]:
    """One of a service that may have 1 MiB of results; it looks when it is told to."""
    one = ResultsWatch(at, "", [STREAM], MB)
    one._name = "digits"
    yield one
    one.close()


def look(watch: ResultsWatch, client: redis.Redis) -> bool:
    """Look after something was served, as if it were a second after the last look."""
    service_context().stats.counts["served"] += 1
    client.delete(results_key("digits") + ":lock")
    known = read_state(client, "digits")
    if known is not None:
        client.set(results_key("digits"), json.dumps(known[0]._replace(next_s=0.0)), px=59_000)
    watch._look()
    return service_context().shared(Bound).full


def test_reading_pauses_above_the_bound_and_goes_on_below(
    at: RedisAt, client: redis.Redis, watch: ResultsWatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "beam_serving")
    consumer = StreamConsumer(Reading(at, (STREAM,), "serving", 4, 0.05, 30.0), "me", threading.Event())
    client.xadd(STREAM, {"uri": "a"})
    write(client, 50, 10_000)
    assert not look(watch, client)
    assert caplog.messages == []
    write(client, 90, 10_000, first=50)
    assert look(watch, client)
    (said,) = caplog.messages
    assert said.startswith("results take about 1.")
    assert " of data: max_result_bytes 1.0 MB: reading pauses, requests stay queued." in said
    assert consumer.read_batch() == []
    assert look(watch, client)
    assert len(caplog.messages) == 1
    client.delete(*client.keys(f"cluster-serving_{STREAM}:*"))
    assert not look(watch, client)
    assert caplog.messages[1:] == ["results take about 0.0 of data: max_result_bytes 1.0 MB: reading goes on"]
    (block,) = consumer.read_batch()
    assert len(block.ids) == 1
    consumer.close()


def test_there_is_a_warning_before(client: redis.Redis, watch: ResultsWatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "beam_serving")
    size = MB // 100
    write(client, 72, size)
    assert not look(watch, client)
    write(client, 1, size, first=72)
    assert not look(watch, client)
    assert caplog.messages == []
    for first in range(73, 80):
        write(client, 1, size, first=first)
        assert not look(watch, client)
    (said,) = caplog.messages
    assert "0.8 of data: max_result_bytes 1.0 MB, at which reading pauses: have results deleted" in said


def test_what_grows_fast_is_held_before_it_is_there(client: redis.Redis, watch: ResultsWatch) -> None:
    write(client, 10, 10_000)
    assert not look(watch, client)
    write(client, 60, 10_000, first=10)
    assert look(watch, client), "the next seconds would bring as much again"
    assert not look(watch, client), "and then it does not grow"


def test_redis_own_limit_is_warned_of_without_a_bound(
    at: RedisAt, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    watch = ResultsWatch(at, "", [STREAM], None)
    watch._name = "digits"

    def set_limit(times_of_used: float) -> None:
        client.config_set("maxmemory", int(times_of_used * client.info("memory")["used_memory"]))

    set_limit(2.0)
    try:
        assert not look(watch, client)
        assert caplog.messages == []
        set_limit(1.05)
        assert not look(watch, client)
        (said,) = caplog.messages
        assert "of maxmemory" in said
        assert "at its limit clients cannot queue" in said
        assert not look(watch, client)
        assert len(caplog.messages) == 1
    finally:
        client.config_set("maxmemory", 0)
        watch.close()


def test_only_one_measures_and_nobody_while_nothing_is_served(client: redis.Redis, watch: ResultsWatch) -> None:
    write(client, 10, 10_000)
    assert not look(watch, client)
    first = read_state(client, "digits")
    assert first is not None
    client.set(results_key("digits"), json.dumps(first[0]._replace(next_s=0.0)), px=50_000)
    client.delete(results_key("digits") + ":lock")
    write(client, 10, 10_000, first=10)
    watch._look()
    assert read_state(client, "digits")[0].result_bytes == first[0].result_bytes, "nothing was served"  # type: ignore[index]
    client.set(results_key("digits") + ":lock", "another", px=50_000)
    service_context().stats.counts["served"] += 1
    watch._look()
    assert read_state(client, "digits")[0].result_bytes == first[0].result_bytes, "another does"  # type: ignore[index]


def test_what_another_has_found_counts(client: redis.Redis, watch: ResultsWatch) -> None:
    client.set(results_key("digits"), json.dumps(ResultsState(5 * MB, 0, 0, True, 10.0)), px=59_900)
    watch._look()
    assert service_context().shared(Bound).full


def test_a_user_that_may_not_measure_is_not_held(
    at: RedisAt, client: redis.Redis, watch: ResultsWatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(client, 200, 10_000)
    client.execute_command("ACL", "SETUSER", "default", "-scan")  # type: ignore[no-untyped-call]
    try:
        with pytest.raises(NoPermissionError):
            measure_results(client, [STREAM])
        assert not look(watch, client)
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+scan")  # type: ignore[no-untyped-call]
    assert caplog.messages == []


def test_the_thread_of_a_reader_looks_by_itself(at: RedisAt, client: redis.Redis) -> None:
    write(client, 200, 10_000)
    service_context().stats.counts["served"] += 1
    watch = ResultsWatch(at, "digits", [STREAM], MB)
    try:
        await_true(lambda: service_context().shared(Bound).full, "a look", within_s=10)
    finally:
        watch.close()
    assert not service_context().shared(Bound).full
