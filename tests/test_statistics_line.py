"""The line of numbers: rates since the last line, from running totals."""

import re
from collections import Counter

import pytest
import redis

from beam_serving.telemetry.report import Report
from beam_serving.telemetry.statistics_line import StatisticsLine
from beam_serving.telemetry.stats import Histogram


def report(
    memory_bytes: int = 0, infer: Histogram | None = None, pid: int = 1, state: str = "serving", **counts: int
) -> Report:
    filled = Report([state], "opencv", Counter(counts), memory_bytes=memory_bytes, pid=pid)
    if infer:
        filled.stages["infer"] = infer
    return filled


def durations(*values_s: float) -> Histogram:
    histogram = Histogram()
    for value_s in values_s:
        histogram.record(value_s)
    return histogram


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the line sees; a test moves it."""
    now = [100.0]
    monkeypatch.setattr("beam_serving.telemetry.statistics_line.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def statistics(clock: list[float], client: redis.Redis) -> StatisticsLine:
    for stream in ("one", "two"):
        client.xgroup_create(stream, "serving", "0", mkstream=True)
    return StatisticsLine(("one", "two"), "serving")


def test_a_service_that_does_nothing_says_nothing(
    statistics: StatisticsLine, clock: list[float], client: redis.Redis
) -> None:
    clock[0] += 10
    assert statistics.line(client, [report()]) is None
    assert statistics.line(client, []) is None


def test_a_line_has_the_rate_the_backlog_and_the_memory(
    statistics: StatisticsLine, clock: list[float], client: redis.Redis
) -> None:
    for stream in ("one", "two", "two"):
        client.xadd(stream, {"uri": "a"})
    client.xreadgroup("serving", "worker", {"two": ">"}, count=1)
    clock[0] += 10
    line = statistics.line(client, [report(30_000_000, served=20), report(40_000_000, pid=2, served=5)])
    assert line == "2.5 records/s, queue 3, pending 1, memory 70 MB; ms p50/p99: none"


def test_a_line_counts_from_the_last_line(statistics: StatisticsLine, clock: list[float], client: redis.Redis) -> None:
    clock[0] += 10
    statistics.line(client, [report(served=1000, infer=durations(0.5, 0.5))])
    clock[0] += 5
    line = statistics.line(client, [report(served=1010, errors=2, fenced=1, infer=durations(0.5, 0.5, 0.001))])
    assert line is not None
    head, times = line.split("; ms p50/p99: ")
    assert head == "2.0 records/s, queue 0, pending 0, errors 2, fenced 1, memory 0 MB"
    match = re.fullmatch(r"infer (\S+)/(\S+)", times)
    assert match
    assert [float(part) for part in match.groups()] == pytest.approx([1.0, 1.0], rel=0.09)


def test_a_queue_that_empties_is_told_once(statistics: StatisticsLine, clock: list[float], client: redis.Redis) -> None:
    entry = client.xadd("one", {"uri": "a"})
    clock[0] += 1
    assert statistics.line(client, [report()]) == "0.0 records/s, queue 1, pending 0, memory 0 MB; ms p50/p99: none"
    client.xdel("one", entry)  # type: ignore[arg-type]
    clock[0] += 1
    assert statistics.line(client, [report()]) == "0.0 records/s, queue 0, pending 0, memory 0 MB; ms p50/p99: none"
    clock[0] += 1
    assert statistics.line(client, [report()]) is None


def test_a_stream_that_is_gone_counts_as_empty(
    statistics: StatisticsLine, clock: list[float], client: redis.Redis
) -> None:
    client.xadd("one", {"uri": "a"})
    client.delete("two")
    clock[0] += 1
    assert statistics.line(client, [report()]) == "0.0 records/s, queue 1, pending 0, memory 0 MB; ms p50/p99: none"


def test_a_worker_that_starts_again_takes_nothing_off_the_rate(
    statistics: StatisticsLine, clock: list[float], client: redis.Redis
) -> None:
    clock[0] += 1
    statistics.line(client, [report(served=100)])
    clock[0] += 1
    assert statistics.line(client, [report(served=10)]) is None


def test_the_totals_are_told_at_the_end(statistics: StatisticsLine) -> None:
    total = statistics.total([report(served=3, errors=1), report(pid=2, served=4)])
    assert total == "7 records served, 1 of them with an error"


def test_workers_that_are_gone_stay_in_the_totals(statistics: StatisticsLine) -> None:
    assert statistics.total([]) == "0 records served, 0 of them with an error"
    statistics.note([report(served=1), report(pid=2, served=2)])
    statistics.note([report(served=3), report(pid=2, state="stopped", served=4)])
    # The first was killed, the second ended by itself, and a third has taken its place.
    for _ in range(3):
        statistics.note([report(pid=3, served=5)])
    assert statistics.total([]) == "12 records served, 0 of them with an error"
