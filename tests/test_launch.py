"""What is checked before anything starts, and the pipeline that then runs."""

import logging
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from beam_serving.config.schema import Data, Model, Params, Redis, Settings
from beam_serving.errors import ConfigError, ConnectError, ModelLoadError
from beam_serving.launch.beam_flags import check_beam_flags
from beam_serving.launch.embedded_redis import embedded_redis, free_port
from beam_serving.launch.preflight import preflight
from beam_serving.launch.start import run_pipeline
from beam_serving.transport.connection import PASSWORD_VARIABLE, RedisAt

pytestmark = pytest.mark.every_server

OWN_FLAGS = ("--config", "--runner", "--workers", "--drain", "--log-level")


def settings(at: RedisAt | str, *streams: str, model: str = "noop", **options: Any) -> Settings:
    data = Data(src=str(at), streams=streams or ("stream",))
    return Settings(model=Model(path=model), data=data, redis=Redis(**{"wait_s": 0.1, **options}))


def refusal(wanted: Settings) -> str:
    with pytest.raises(ConnectError) as caught:
        preflight(wanted)
    return str(caught.value)


@pytest.fixture
def limited(at: RedisAt, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """A server with a user "limited", whose password is set and whose permissions a test sets."""
    monkeypatch.setenv(PASSWORD_VARIABLE, "right")
    client.execute_command(
        "ACL", "SETUSER", "limited", "on", ">right", "~stream", "~stream:*", "~cluster-serving_stream:*", "+@all"
    )
    yield client
    client.execute_command("ACL", "DELUSER", "limited")


def test_the_streams_and_their_group_are_made(at: RedisAt, client: redis.Redis) -> None:
    files = preflight(settings(at, "one", "two"))
    assert files.format == "noop"
    for stream in ("one", "two"):
        (group,) = client.xinfo_groups(stream)  # type: ignore[misc]
        assert group["name"] == b"serving"


def test_streams_that_another_service_serves_are_refused(at: RedisAt) -> None:
    preflight(settings(at, "one", "two").model_copy(update={"name": "svc-a"}))
    with pytest.raises(ConfigError, match=r"^stream 'two' and group 'serving' are served by 'svc-a' already .*'svc-b'"):
        preflight(settings(at, "two").model_copy(update={"name": "svc-b"}))
    preflight(settings(at, "two").model_copy(update={"name": "svc-a"}))


def test_what_was_queued_before_the_first_start_will_be_read(at: RedisAt, client: redis.Redis) -> None:
    client.xadd("stream", {"uri": "a"})
    preflight(settings(at))
    assert client.xreadgroup("serving", "worker", {"stream": ">"})


def test_a_directory_without_a_model_is_told_before_redis_is_asked(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    with pytest.raises(ModelLoadError, match=f"^{tmp_path}: is empty; wanted is one model: "):
        preflight(settings(nowhere, model=str(tmp_path)))


def test_a_server_that_is_down_is_waited_for_and_then_given_up(caplog: pytest.LogCaptureFixture) -> None:
    at = f"127.0.0.1:{free_port()}"
    started = time.monotonic()
    said = refusal(settings(at, wait_s=0.3))
    assert time.monotonic() - started > 0.1
    assert said == (
        f"Redis at {at} cannot be reached (Error 111 connecting to {at}. Connection refused.); "
        "start one there (`beam-serving redis` runs a small one for trying), or set data: src to where it is"
    )
    (record,) = caplog.records
    assert record.getMessage().startswith(f"Redis at {at} does not answer yet (")
    assert record.getMessage().endswith("); waiting up to 0.3 s")


def test_a_server_that_comes_up_while_it_is_waited_for_is_used() -> None:
    port = free_port()
    server = embedded_redis(port)
    wanted = settings(f"127.0.0.1:{port}", wait_s=30.0)

    class StartOnFirstWarning(logging.Handler):
        started = False

        def emit(self, record: logging.LogRecord) -> None:
            server.__enter__()
            self.started = True

    handler = StartOnFirstWarning(logging.WARNING)
    logging.getLogger("beam_serving.launch.preflight").addHandler(handler)
    try:
        assert preflight(wanted).format == "noop"
    finally:
        logging.getLogger("beam_serving.launch.preflight").removeHandler(handler)
        if handler.started:
            server.__exit__(None, None, None)
    assert handler.started


def test_a_wrong_password_is_not_waited_for(at: RedisAt, limited: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong")
    started = time.monotonic()
    said = refusal(settings(at, username="limited", wait_s=30.0))
    assert time.monotonic() - started < 30
    assert said.startswith(f"Redis at {at}: it refuses our user or password (")


def test_a_stream_that_is_no_stream_is_named(at: RedisAt, client: redis.Redis) -> None:
    client.set("two", "text")
    said = refusal(settings(at, "one", "two", wait_s=30.0))
    assert said.startswith(f"Redis at {at}, stream 'two': a key that we need holds something else: WRONGTYPE ")


def test_a_stream_that_we_may_not_use_is_named(at: RedisAt, limited: redis.Redis) -> None:
    said = refusal(settings(at, "stream", "other", username="limited", wait_s=30.0))
    assert said.startswith(f"Redis at {at}, stream 'other': the user lacks a permission: ")


def test_a_command_inside_a_script_that_we_may_not_use_is_fatal(at: RedisAt, limited: redis.Redis) -> None:
    limited.execute_command("ACL", "SETUSER", "limited", "-xgroup")
    said = refusal(settings(at, username="limited", wait_s=30.0))
    assert said.startswith(f"Redis at {at}, stream 'stream': the user lacks a permission: ")
    assert "xgroup" in said


@pytest.mark.parametrize("missing", ["stream:dead", "cluster-serving_stream:*"])
def test_a_key_without_which_no_request_can_end_is_missed_at_the_start(
    at: RedisAt, limited: redis.Redis, missing: str
) -> None:
    keys = [f"~{key}" for key in ("stream", "stream:dead", "cluster-serving_stream:*") if key != missing]
    limited.execute_command("ACL", "SETUSER", "limited", "resetkeys", *keys)
    said = refusal(settings(at, username="limited", wait_s=30.0))
    assert said.startswith(f"Redis at {at}, stream 'stream': the user lacks a permission: ")


@pytest.mark.parametrize("right", ["scan", "dbsize", "memory|usage"])
def test_a_bound_of_results_that_could_not_be_measured_is_refused(
    at: RedisAt, limited: redis.Redis, right: str
) -> None:
    wanted = settings(at, username="limited", wait_s=30.0)
    bounded = wanted.model_copy(update={"data": wanted.data.model_copy(update={"max_result_bytes": 1000})})
    limited.execute_command("ACL", "SETUSER", "limited", "~beam-serving:*", "-" + right.partition("|")[0])
    said = refusal(bounded)
    assert said.startswith(f"Redis at {at}: the user lacks a permission: ")
    assert said.endswith("; data: max_result_bytes wants it")
    preflight(wanted)


def test_a_server_that_evicts_requests_is_warned_of(
    at: RedisAt, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        preflight(settings(at))
    finally:
        client.config_set("maxmemory-policy", "noeviction")
    assert caplog.messages == [
        f"Redis at {at} deletes queued requests when memory is short (maxmemory-policy allkeys-lru)",
        "set its maxmemory-policy to noeviction: then producers are told instead",
    ]


def test_a_server_that_is_nearly_full_is_warned_of(
    at: RedisAt, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    limit = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", 1)
    try:
        preflight(settings(at))
    finally:
        client.config_set("maxmemory", limit)
    (said,) = caplog.messages
    assert re.fullmatch(
        f"Redis at {at} uses [0-9]+ % of its maxmemory: raise it, or delete results that were read", said
    )


def test_a_user_who_may_not_ask_for_the_eviction_policy_is_served(
    at: RedisAt, limited: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    limited.execute_command("ACL", "SETUSER", "limited", "-info")
    assert preflight(settings(at, username="limited")).format == "noop"
    assert not caplog.messages


@pytest.mark.parametrize(
    "arguments",
    [[], ["--job_name=digits"], ["--job_name", "digits"], ["--streaming"], ["--direct_num_workers=1"]],
)
def test_flags_of_beam_pass(arguments: list[str]) -> None:
    check_beam_flags(arguments, OWN_FLAGS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--worker", "2"], "unknown flag --worker; did you mean --workers?"),
        (["--confg=x"], "unknown flag --confg; did you mean --config?"),
        (["--job_nam=x"], "unknown flag --job_nam; did you mean --job_name?"),
        (["--zzzzzzzzzz"], "unknown flag --zzzzzzzzzz; --help lists ours, Beam's documentation the rest"),
        (["--streaming", "surplus"], "argument 'surplus' belongs to no flag"),
        (["--job_name"], "argument --job_name: expected one argument"),
        (
            ["--direct_num_workers=2"],
            "--direct_num_workers would lose records of an endless source; use --workers N",
        ),
        (
            ["--direct_num_workers", "0"],
            "--direct_num_workers would lose records of an endless source; use --workers N",
        ),
        (["--direct_num_workers=x"], "argument --direct_num_workers: invalid int value: 'x'"),
    ],
)
def test_what_beam_would_drop_in_silence_is_refused(arguments: Sequence[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_beam_flags(arguments, OWN_FLAGS)
    assert str(caught.value) == said


def test_a_drained_pipeline_serves_what_is_queued_and_ends(at: RedisAt, client: redis.Redis) -> None:
    wanted = settings(at).model_copy(update={"params": Params(top_n=1)})
    preflight(wanted)
    for uri in ("a", "b", "c"):
        client.xadd("stream", {"uri": uri, "tensor:": b"\0" * 4, "dtype:": "float32", "shape:": "1"})
    client.xadd("stream", {"uri": "bad"})
    assert run_pipeline(wanted, ["worker"], ["--job_name=tested"], drain=True) == "DONE"
    assert client.xlen("stream") == 0
    for uri in ("a", "b", "c"):
        assert client.hget(f"cluster-serving_stream:{uri}", "value") == b"[[0,0.0]]"
    error = client.hget("cluster-serving_stream:bad", "error")
    assert isinstance(error, bytes)
    assert error.startswith(b"request 'bad': payload is missing")


def test_a_model_that_cannot_be_loaded_is_told_before_beam_wraps_it(at: RedisAt, tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("no model", encoding="utf-8")
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"model\.xml"):
        run_pipeline(settings(at, model=str(tmp_path)), ["worker"], [], drain=True)
