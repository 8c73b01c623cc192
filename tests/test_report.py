"""What a service says of itself in Redis."""

import json
import os
import threading

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.launch.embedded_redis import free_port
from beam_serving.telemetry.report import (
    LIFETIME_S,
    Deployment,
    Report,
    announce,
    ask_to_stop,
    asked_to_stop,
    decode_report,
    encode_report,
    memory_bytes,
    read_reports,
    readiness,
    ready_key,
    retract,
    service_names,
    worker_key,
)
from beam_serving.telemetry.reporter import Rate, Reporter
from beam_serving.telemetry.stats import STAGES, WorkerStats
from beam_serving.transport.connection import RedisAt
from tests.service import await_true

FIRST, SECOND = Deployment("first", since=1.0), Deployment("second", since=2.0)
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
    assert body["memory_bytes"] == pytest.approx(memory_bytes(), rel=0.2)


def test_reports_add_up() -> None:
    one, two = stats(served=3, errors=1), stats("starting", served=4)
    one.stages["infer"].record(0.001)
    two.stages["infer"].record(0.001, 2)
    total = Report() + decode_report(encode_report(one).encode()) + decode_report(encode_report(two).encode())
    assert total.states == ["serving", "starting"]
    assert total.engine == "opencv"
    assert total.counts == {"served": 7, "errors": 1}
    assert sum(total.stages["infer"].counts.values()) == 3
    assert total.memory_bytes == pytest.approx(2 * memory_bytes(), rel=0.2)


def test_only_workers_that_reported_lately_are_read(at: RedisAt, client: redis.Redis) -> None:
    for worker, served in (("b", 2), ("a", 1), ("c", 3)):
        Reporter(at, "digits", worker, "run", stats(served=served), lambda: None).close()
    client.delete(worker_key("digits", "c"))
    assert [(one.worker, one.counts["served"]) for one in read_reports(client, "digits")] == [("a", 1), ("b", 2)]
    assert client.smembers("beam-serving:digits:workers") == {b"a", b"b"}
    client.expire(worker_key("digits", "a"), 9)
    assert [one.worker for one in read_reports(client, "digits")] == ["b"]
    assert [one.worker for one in read_reports(client, "digits", within_s=15)] == ["a", "b"]


def test_services_are_known_by_name_while_they_have_workers(at: RedisAt, client: redis.Redis) -> None:
    for name, worker, state in (("digits", "a", "serving"), ("birds", "b", "starting"), ("over", "c", "stopped")):
        Reporter(at, name, worker, "run", stats(state), lambda: None).close()
    assert service_names(client) == ["birds", "digits"]
    client.delete(worker_key("birds", "b"), worker_key("over", "c"))
    assert service_names(client) == ["digits"]
    assert client.smembers("beam-serving:services") == {b"digits"}


def test_a_user_that_may_not_list_the_service_is_stopped_as_any_other(at: RedisAt, client: redis.Redis) -> None:
    client.execute_command("ACL", "SETUSER", "default", "resetkeys", "~beam-serving:digits:*")
    stopped = threading.Event()
    try:
        reporter = Reporter(at, "digits", "a", "run", stats(), stopped.set)
        ask_to_stop(client, "digits", "run")
        assert stopped.wait(5)
        reporter.close()
    finally:
        client.execute_command("ACL", "SETUSER", "default", "allkeys")
    assert not client.exists("beam-serving:services")


def test_workers_of_another_deployment_are_told_apart(at: RedisAt, client: redis.Redis) -> None:
    for worker, deployment in (("a", "first"), ("b", "second")):
        Reporter(at, "digits", worker, deployment, stats(), lambda: None).close()
    assert [one.worker for one in read_reports(client, "digits", "second")] == ["b"]


def test_workers_of_a_run_that_shall_stop_are_told_so(at: RedisAt, client: redis.Redis) -> None:
    stopped = {deployment: threading.Event() for deployment in ("this", "other")}
    reporters = [
        Reporter(at, "digits", deployment, deployment, stats(), event.set) for deployment, event in stopped.items()
    ]
    try:
        ask_to_stop(client, "digits", "this")
        assert stopped["this"].wait(5)
        assert asked_to_stop(client, "digits", "this")
        assert not asked_to_stop(client, "digits", "other")
        assert not stopped["other"].is_set()
    finally:
        for reporter in reporters:
            reporter.close()


def test_without_a_supervisor_one_worker_announces_when_all_serve(at: RedisAt, client: redis.Redis) -> None:
    about = {"workers": 2, "model": "m"}
    Reporter(at, "digits", "a", "run", stats(), lambda: None, about).close()
    assert not client.exists(ready_key("digits"))
    reporter = Reporter(at, "digits", "b", "run", stats(), lambda: None, about)
    try:
        await_true(lambda: len(read_reports(client, "digits")) == 2, "two reports", within_s=5)
        Reporter(at, "digits", "a", "run", stats(), lambda: None, about).close()
    finally:
        reporter.close()
    said = {
        "workers": 2,
        "model": "m",
        "engine": "opencv",
        "batch_size": 0,
        "deployment": "run",
        "since": 0.0,
        "inputs": [],
        "reports": 2,
    }
    assert json.loads(client.get(ready_key("digits"))) == said  # type: ignore[arg-type]


def serving(at: RedisAt, *workers: str, state: str = "serving") -> None:
    for worker in workers:
        Reporter(at, "digits", worker, "run", stats(state), lambda: None).close()


def test_a_service_is_ready_while_all_its_workers_say_that_they_serve(at: RedisAt, client: redis.Redis) -> None:
    assert readiness(client, "digits").reason == "it has not announced that it is ready"
    announce(client, "digits", {"model": "m", "reports": 2}, Deployment("run"))
    serving(at, "a")
    assert readiness(client, "digits").reason == "1 of 2 workers serve"
    serving(at, "b")
    said = {"model": "m", "reports": 2, "deployment": "run", "since": 0.0}
    assert readiness(client, "digits") == ("", said)
    assert readiness(client, "digits").ready
    assert readiness(client, "digits").about["model"] == "m"
    serving(at, "b", state="waiting for Redis")
    assert not readiness(client, "digits").ready


@pytest.mark.parametrize("dead", ["supervisor", "worker"])
def test_a_death_is_seen_before_what_the_dead_said_has_expired(at: RedisAt, client: redis.Redis, dead: str) -> None:
    announce(client, "digits", {"reports": 1}, Deployment("run"))
    serving(at, "a")
    assert readiness(client, "digits").ready
    of_three_seconds_ago = 1000 * (LIFETIME_S - 3)
    key = ready_key("digits") if dead == "supervisor" else worker_key("digits", "a")
    client.pexpire(key, of_three_seconds_ago)
    assert not readiness(client, "digits").ready


def test_the_rate_of_a_worker_is_that_of_its_last_second() -> None:
    now, counted = [0.0], stats()
    rate = Rate(counted, lambda: now[0])
    counted.counts["served"], now[0] = 500, 0.5
    assert rate.per_s() == 0.0
    now[0] = 2.0
    assert rate.per_s() == 250.0
    assert decode_report(encode_report(counted, "run", rate.per_s()).encode()).records_per_s == 250.0
    now[0] = 3.0
    assert rate.per_s() == 0.0


def test_readiness_is_announced_for_some_seconds_and_retracted_at_once(client: redis.Redis) -> None:
    announce(client, "digits", {"workers": 2}, FIRST)
    said = {"workers": 2, "deployment": "first", "since": 1.0}
    assert json.loads(client.get("beam-serving:digits:ready")) == said  # type: ignore[arg-type]
    assert 5 < client.ttl("beam-serving:digits:ready") <= 15  # type: ignore[operator]
    retract(client, "digits", "first")
    assert not client.exists("beam-serving:digits:ready")


def test_what_a_newer_deployment_says_stays_whatever_an_older_one_does(client: redis.Redis) -> None:
    for newer_first in (False, True):
        for deployment in (SECOND, FIRST) if newer_first else (FIRST, SECOND):
            announce(client, "digits", {}, deployment)
        retract(client, "digits", "first")
        assert json.loads(client.get("beam-serving:digits:ready"))["deployment"] == "second"  # type: ignore[arg-type]
    retract(client, "digits", "second")
    client.set("beam-serving:digits:ready", "of an earlier version")
    announce(client, "digits", {}, FIRST)
    assert json.loads(client.get("beam-serving:digits:ready"))["deployment"] == "first"  # type: ignore[arg-type]


def test_a_reporter_publishes_what_changes_and_its_last_state(at: RedisAt, client: redis.Redis) -> None:
    numbers = WorkerStats()
    reporter = Reporter(at, "digits", "a", "run", numbers, lambda: None)
    try:
        await_true(lambda: client.exists(worker_key("digits", "a")), "a first report", within_s=5)
        numbers.state = "serving"
        numbers.counts["served"] = 5
        await_true(lambda: read_reports(client, "digits")[0].states == ["serving"], "the change", within_s=5)
        assert 5 < client.ttl(worker_key("digits", "a")) <= 15  # type: ignore[operator]
        numbers.counts["served"] = 6
    finally:
        numbers.state = "stopped"
        reporter.close()
    (report,) = read_reports(client, "digits")
    assert (report.states, report.counts["served"]) == (["stopped"], 6)


def test_a_server_that_is_down_does_not_stop_a_worker() -> None:
    reporter = Reporter(RedisAt("127.0.0.1", free_port()), "digits", "a", "run", stats(), lambda: None)
    reporter.close()
