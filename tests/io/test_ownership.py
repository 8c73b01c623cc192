"""One name at a time serves a stream and group: taken at once or not at all, renewed, given up."""

import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from beam_serving.config.schema import Data, Model, Settings
from beam_serving.errors import ConfigError
from beam_serving.io.ownership import Owner, Ownership
from beam_serving.telemetry.report import Deployment, announce
from beam_serving.telemetry.reporter import Reporter
from beam_serving.telemetry.stats import WorkerStats
from beam_serving.transport.connection import PASSWORD_VARIABLE, RedisAt
from beam_serving.transport.keys import owner_key
from tests.service import await_true

pytestmark = pytest.mark.every_server
KEY = owner_key("one", "serving")


def settings(name: str, *streams: str, share: bool = False, model: str = "/models/a") -> Settings:
    return Settings(name=name, model=Model(path=model), data=Data(streams=streams or ("one",), share=share))


def of(name: str, *streams: str, share: bool = False) -> Ownership:
    return Ownership(settings(name, *streams, share=share))


def owner(client: redis.Redis, stream: str = "one") -> str:
    text = client.get(owner_key(stream, "serving"))
    return Owner.decode(text).name if isinstance(text, bytes) else ""


class Worker:
    """What a worker process publishes, and its end."""

    def __init__(self, at: RedisAt, name: str, worker: str) -> None:
        self._stats = WorkerStats()
        self._stats.state = "serving"
        self._reporter = Reporter(at, name, worker, "run", self._stats, lambda: None, holding=of(name))

    def end(self) -> None:
        self._stats.state = "stopped"
        self._reporter.close()


def test_a_second_name_is_refused_and_told_of_the_first(client: redis.Redis) -> None:
    of("svc-a", "zero", "one").take(client)
    with pytest.raises(ConfigError) as caught:
        of("svc-b", "one", "two").take(client)
    assert str(caught.value) == (
        "stream 'one' and group 'serving' are served by 'svc-a' already (model /models/a), and 'svc-b' would take its "
        "requests: give this service data: streams of its own, or the same name where it is the same service, or set "
        "data: share: true; a service that died is forgotten within 60 s"
    )
    assert [owner(client, stream) for stream in ("zero", "one", "two")] == ["svc-a", "svc-a", ""]


def test_other_streams_and_groups_are_free(client: redis.Redis) -> None:
    of("svc-a").take(client)
    of("svc-b", "two").take(client)
    data = Data(streams=("one",), group="other")
    Ownership(Settings(name="svc-b", model=Model(path="m"), data=data)).take(client)


def test_one_name_starts_as_often_as_it_likes(client: redis.Redis) -> None:
    for model in ("/models/a", "/elsewhere/a"):
        Ownership(settings("svc-a", model=model)).take(client)
    of("svc-a").renew(client, "run-1")
    of("svc-a").take(client)
    of("svc-a").renew(client, "run-2")
    assert owner(client) == "svc-a"


def test_of_many_that_start_at_once_one_wins(at: RedisAt, client: redis.Redis) -> None:
    count = 8
    for _ in range(20):
        client.flushall()
        together = threading.Barrier(count)

        def start(number: int, together: threading.Barrier = together) -> bool:
            own = at.client()
            own.ping()
            together.wait(10)
            try:
                of(f"svc-{number}").take(own)
            except ConfigError:
                return False
            finally:
                own.close()
            return True

        with ThreadPoolExecutor(count) as pool:
            assert sum(pool.map(start, range(count))) == 1


def test_a_start_has_a_minute_and_a_worker_renews_for_seconds(client: redis.Redis) -> None:
    of("svc-a").take(client)
    assert 30_000 < client.pttl(KEY) <= 60_000
    of("svc-a").renew(client, "run")
    assert 5_000 < client.pttl(KEY) <= 15_000


def test_who_shares_takes_what_is_free_and_lets_others_have_theirs(
    client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "beam_serving")
    of("svc-a").take(client)
    shared = of("svc-b", "one", "two", share=True)
    shared.take(client)
    for _ in range(3):
        shared.renew(client, "run")
    assert [owner(client, stream) for stream in ("one", "two")] == ["svc-a", "svc-b"]
    assert caplog.messages == ["stream 'one' and group 'serving' are served by 'svc-a' too: either answers"]
    with pytest.raises(ConfigError, match="'two' and group 'serving' are served by 'svc-b' already"):
        of("svc-c", "two").take(client)


def test_what_a_start_has_taken_is_not_given_up_by_those_who_end(client: redis.Redis) -> None:
    of("svc-a").renew(client, "old")
    of("svc-a").take(client)
    of("svc-a").release(client)
    assert owner(client) == "svc-a"
    of("svc-a").renew(client, "new")
    of("svc-b").release(client)
    assert owner(client) == "svc-a"


def test_workers_leave_the_model_as_the_start_named_it(client: redis.Redis) -> None:
    of("svc-a").take(client)
    Ownership(Settings(name="svc-a", model=Model(path="/a/copy"), data=Data(streams=("one",)))).renew(client, "run")
    owner = Owner.decode(client.get("one:owner:serving") or b"")  # type: ignore[arg-type]
    assert (owner.name, owner.deployment) == ("svc-a", "run")
    assert owner.model not in ("", "/a/copy")


def test_the_last_of_a_name_gives_up_what_others_of_it_renewed(client: redis.Redis) -> None:
    of("svc-a").renew(client, "run on another host, which has ended")
    of("svc-a").release(client)
    of("svc-b").take(client)


def test_workers_renew_it_and_the_last_that_ends_gives_it_up(at: RedisAt, client: redis.Redis) -> None:
    of("svc-a").take(client)
    first, second = (Worker(at, "svc-a", worker) for worker in ("w1", "w2"))
    await_true(lambda: client.pttl(KEY) <= 15_000, "a renewal")
    await_true(lambda: client.scard("beam-serving:svc-a:workers") == 2, "both workers")
    first.end()
    assert owner(client) == "svc-a"
    second.end()
    assert owner(client) == ""


def test_a_worker_that_finds_another_owner_says_so_once(
    at: RedisAt, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    mine = of("svc-a")
    of("svc-b").take(client)
    for _ in range(3):
        mine.renew(client, "run")
    assert caplog.messages == ["stream 'one' and group 'serving' are served by 'svc-b' too: either answers"]
    assert owner(client) == "svc-b"


def test_a_user_without_the_right_is_served_with_a_warning(
    at: RedisAt, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client.execute_command("ACL", "SETUSER", "old", "on", ">right", "~one", "+@all")
    monkeypatch.setenv(PASSWORD_VARIABLE, "right")
    try:
        of("svc-a").take(RedisAt(at.host, at.port, username="old").client())
    finally:
        client.execute_command("ACL", "DELUSER", "old")
    (said,) = caplog.messages
    assert re.match(r"whether another service serves 'one' is not known: the user has no one:owner:serving \(", said)


def test_what_somebody_else_wrote_is_another_name(client: redis.Redis) -> None:
    client.set(KEY, b"\xff" * 5000)
    with pytest.raises(ConfigError, match=r"are served by '\ufffd{1000}' already \(model unknown\)"):
        of("svc-a").take(client)


def test_it_is_taken_and_renewed_on_a_server_without_memory(client: redis.Redis) -> None:
    limit = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", 1)
    try:
        of("svc-a").take(client)
        of("svc-a").renew(client, "run")
        assert owner(client) == "svc-a"
    finally:
        client.config_set("maxmemory", limit)


def test_streams_of_two_services_that_would_share_keys_are_refused_whichever_is_first(
    at: RedisAt, client: redis.Redis
) -> None:
    of("svc-a", "one").take(client)
    with pytest.raises(ConfigError) as caught:
        of("svc-b", "one:two:three").take(client)
    assert str(caught.value) == (
        "streams 'one:two:three' and 'one', which 'svc-a' serves, would share keys: the result of a request of one "
        "could be at that of the other; give 'svc-b' streams of other names in data: streams"
    )
    of("svc-a", "one:two").take(client)
    of("svc-c", "one:two", share=True).take(client)
    worker = Worker(at, "svc-d", "w")
    announce(client, "svc-d", settings("svc-d", "four:five").about(1), Deployment("one"))
    await_true(lambda: client.smembers("beam-serving:services"), "the name of the service")
    with pytest.raises(ConfigError, match="streams 'four' and 'four:five', which 'svc-d' serves, would share keys"):
        of("svc-e", "four").take(client)
    of("svc-e", "fou").take(client)
    worker.end()
