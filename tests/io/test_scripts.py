"""Refusals inside the scripts: whatever the server says, our message names the command that the user may not run."""

import re
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.exceptions import NoPermissionError

from beam_serving.io import scripts
from beam_serving.transport.channel import Channel, Script
from beam_serving.transport.connection import PASSWORD_VARIABLE, RedisAt, fatal
from beam_serving.transport.lua import evaluate

pytestmark = pytest.mark.every_server
Run = Callable[[RedisAt, str, list[str], list[str]], None]
GROUP, ME = "serving", "me"
RECORD = ["serving", "me", "-", "+", "60000", "10", "4096", "1024", "1-1", "2", "2", "value", "[]", "error", "no"]
RUNS: dict[str, tuple[list[str], list[str]]] = {
    "ENSURE_GROUP": (["stream"], [GROUP]),
    "KEEP_LEASE": (["stream"], [GROUP, ME]),
    "CLAIM": (["stream"], [GROUP, ME, "1000", "256", "1-1"]),
    "CLAIM_ABANDONED": (["stream"], [GROUP, ME, "1000", "256", "0", "0-0"]),
    "TAKE_BACK": (["stream"], [GROUP, ME]),
    "REAP_CONSUMERS": (["stream"], [GROUP, "-1"]),
    "RELEASE_CONSUMER": (["stream"], [GROUP, "idle"]),
    "COMMIT": (["stream", "stream:dead", "result"], RECORD),
    "COMMIT_AND_KEEP": (["stream", "stream:dead", "result", "stream:rows"], RECORD),
    "COMMIT_RANKED": (["stream", "result"], [GROUP, ME, "60000", "1", "value", "1-1", "[]"]),
    "DEAD_LETTERS": (["stream:dead"], ["+", "8", "4096"]),
    "RETRY_DEAD_LETTER": (["stream", "stream:dead", "result"], ["1-1"]),
    "FORGET_OUTBOX_RECORDS": (["stream:rows"], ["1-1"]),
    "KEEP_LOCK": (["lock"], ["me", "60000"]),
    "TAKE_LOCK": (["free"], ["me", "60000"]),
    "RELEASE_LOCK": (["lock"], ["me"]),
    "OWN": (["owner"], ["me", "60000"]),
    "DISOWN": (["owned"], ["me"]),
}
"""Keys and arguments with which a script runs every command it has, but for those that only some streams see."""
NOT_FATAL = {
    ("RELEASE_CONSUMER", "XPENDING"),
    ("COMMIT", "SET"),
    ("COMMIT_AND_KEEP", "SET"),
    ("COMMIT_RANKED", "SET"),
    ("COMMIT_RANKED", "XPENDING"),
    ("RETRY_DEAD_LETTER", "DEL"),
    ("RETRY_DEAD_LETTER", "HMGET"),
}
"""Who leaves does not mind, nor who only wants to know whether there is memory; a result replaces an error anyway."""


def commands_of(name: str) -> Iterator[str]:
    source = getattr(scripts, name)
    found = re.findall(r"redis\.p?call\('([A-Z]+)'(?:, '([A-Z]+)')?", source)
    yield from sorted({"|".join(filter(None, call)) for call in found})


CASES = [
    (name, command)
    for name in RUNS
    for command in commands_of(name)
    if (name, command) not in NOT_FATAL and command not in ("PUBLISH", "XGROUP|SETID")
]


@pytest.fixture
def limited(at: RedisAt, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisAt]:
    """A user, and a stream of which consumer "me" owns the only entry, beside one that owns none."""
    client.xgroup_create("stream", GROUP, "0", mkstream=True)
    client.xadd("stream", {"uri": "a"}, "1-1")
    client.xgroup_createconsumer("stream", GROUP, "idle")
    client.xreadgroup(GROUP, ME, {"stream": ">"})
    client.xadd("stream:rows", {"entry": "1-1"}, "1-1")
    client.xadd("stream:dead", {"uri": "a", "error": "no"}, "1-1")
    client.set("lock", "me")
    client.set("owned", "me\nrun\nmodel")
    monkeypatch.setenv(PASSWORD_VARIABLE, "right")
    client.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">right", "~*", "&*", "+@all")
    yield RedisAt(at.host, at.port, username="limited")
    client.execute_command("ACL", "DELUSER", "limited")


def test_all_scripts_are_here() -> None:
    assert RUNS.keys() == {name for name in vars(scripts) if name.isupper() and not name.startswith("_")}


def by_client(at: RedisAt, source: str, keys: list[str], arguments: list[str]) -> None:
    evaluate(at.client(), source, len(keys), *keys, *arguments)


def by_channel(at: RedisAt, source: str, keys: list[str], arguments: list[str]) -> None:
    Script(Channel(at.client()), source).run([key.encode() for key in keys], arguments)


@pytest.mark.parametrize("run", [by_client, by_channel])
@pytest.mark.parametrize(("name", "command"), CASES)
def test_a_command_that_is_refused_inside_a_script_is_named(
    name: str, command: str, run: Run, limited: RedisAt, client: redis.Redis
) -> None:
    client.execute_command("ACL", "SETUSER", "limited", f"-{command.lower()}")
    with pytest.raises(NoPermissionError) as caught:
        run(limited, getattr(scripts, name), *RUNS[name])
    reason = fatal(caught.value)
    assert reason is not None
    assert reason.startswith("the user lacks a permission: ")
    assert re.search(rf"'[^']*\b{re.escape(command.lower())}\b", reason), reason


def test_a_key_that_is_refused_inside_a_script_is_told_with_its_command(limited: RedisAt, client: redis.Redis) -> None:
    client.execute_command("ACL", "SETUSER", "limited", "resetkeys", "~stream")
    with pytest.raises(NoPermissionError, match="'xadd'"):
        evaluate(limited.client(), "return redis.call('XADD', 'other', '*', 'a', 'b')", 1, "stream")


def test_other_errors_stay_what_they_are(limited: RedisAt, client: redis.Redis) -> None:
    client.set("text", "a")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE") as caught:
        evaluate(limited.client(), scripts.ENSURE_GROUP, 1, "text", GROUP)
    assert not isinstance(caught.value, NoPermissionError)
