"""What a service says of itself in Redis."""

import json
import os
import threading

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.connection import RedisAt
from beam_serving.embedded import free_port
from beam_serving.report import (
    Report,
    Reporter,
    announce,
    decode_report,
    encode_report,
    memory_bytes,
    read_reports,
    ready_key,
    retract,
    worker_key,
)
from beam_serving.stats import STAGES, WorkerStats
from tests.service import await_true

COUNTS = some.dictionaries(some.sampled_from(["served", "errors", "dead", "batches"]), some.integers(1, 10**9))
RECORDS = some.lists(some.tuples(some.sampled_from(STAGES), some.floats(0, 100), some.integers(1, 9)))


def stats(state: str = "serving", **counts: int) -> WorkerStats:
    filled = WorkerStats()
    filled.state, filled.engine = state, "opencv"
    filled.counts.update(counts)
    return filled


def test_keys_begin_with_the_name_of_the_service() -> None:
    assert ready_key("digits") == "beam-serving:digits:ready"
    assert worker_key("digits", "host-1-0") == "beam-serving:digits:worker:host-1-0"


@given(COUNTS, RECORDS)
def test_a_report_comes_back_as_it_was_written(counts: dict[str, int], records: list[tuple[str, float, int]]) -> None:
    written = stats(**counts)
    for stage, duration_s, times in records:
        written.stages[stage].record(duration_s, times)
    report = decode_report(encode_report(written).encode())
    assert (report.states, report.engine, report.counts) == (["serving"], "opencv", written.counts)
    assert {stage: report.stages[stage].counts for stage in STAGES} == {
        stage: written.stages[stage].counts for stage in STAGES
    }


def test_a_report_says_which_process_wrote_it_and_its_memory() -> None:
    body = json.loads(encode_report(stats()))
    assert body["pid"] == os.getpid()
    assert body["memory_bytes"] > 10_000_000


def test_reports_add_up() -> None:
    one, two = stats(served=3, errors=1), stats("starting", served=4)
    one.stages["infer"].record(0.001)
    two.stages["infer"].record(0.001, 2)
    total = Report() + decode_report(encode_report(one).encode()) + decode_report(encode_report(two).encode())
    assert total.states == ["serving", "starting"]
    assert total.engine == "opencv"
    assert total.counts == {"served": 7, "errors": 1}
    assert sum(total.stages["infer"].counts.values()) == 3
    assert total.memory_bytes == pytest.approx(2 * memory_bytes(), rel=0.1)


def test_only_living_workers_are_read(client: redis.Redis) -> None:
    client.set(worker_key("digits", "a"), encode_report(stats(served=1)))
    client.set(worker_key("digits", "c"), encode_report(stats(served=2)))
    reports = read_reports(client, "digits", ["a", "b", "c"])
    assert [report.counts["served"] for report in reports] == [1, 2]


def test_readiness_is_announced_for_some_seconds_and_retracted_at_once(client: redis.Redis) -> None:
    announce(client, "digits", {"workers": 2})
    assert json.loads(client.get("beam-serving:digits:ready")) == {"workers": 2}  # type: ignore[arg-type]
    assert 5 < client.ttl("beam-serving:digits:ready") <= 15  # type: ignore[operator]
    retract(client, "digits")
    assert not client.exists("beam-serving:digits:ready")


def test_a_reporter_publishes_what_changes_and_its_last_state(at: RedisAt, client: redis.Redis) -> None:
    numbers = WorkerStats()
    reporter = Reporter(at, "digits", "a", numbers, lambda: None)
    try:
        await_true(lambda: client.exists(worker_key("digits", "a")), "a first report", within_s=5)
        numbers.state = "serving"
        numbers.counts["served"] = 5
        await_true(lambda: read_reports(client, "digits", ["a"])[0].states == ["serving"], "the change", within_s=5)
        assert 5 < client.ttl(worker_key("digits", "a")) <= 15  # type: ignore[operator]
        numbers.counts["served"] = 6
    finally:
        numbers.state = "stopped"
        reporter.close()
    (report,) = read_reports(client, "digits", ["a"])
    assert (report.states, report.counts["served"]) == (["stopped"], 6)


def test_a_worker_whose_parent_is_gone_is_told_to_stop(at: RedisAt, monkeypatch: pytest.MonkeyPatch) -> None:
    orphaned = threading.Event()
    reporter = Reporter(at, "digits", "a", WorkerStats(), orphaned.set)
    try:
        monkeypatch.setattr(os, "getppid", lambda: 1)
        assert orphaned.wait(5)
    finally:
        reporter.close()


def test_a_server_that_is_down_does_not_stop_a_worker() -> None:
    reporter = Reporter(RedisAt("127.0.0.1", free_port()), "digits", "a", stats(), lambda: None)
    reporter.close()
