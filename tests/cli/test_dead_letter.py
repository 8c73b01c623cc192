"""The command for requests that were given up."""

import json
import subprocess
import sys
from typing import Any

import pytest
import redis

from beam_serving.cli.main import main
from beam_serving.io.dead_letters import count_dead_letters
from beam_serving.transport.connection import RedisAt
from tests.service import await_true

HOUR_MS = 3_600_000


@pytest.fixture
def now_ms(client: redis.Redis) -> int:
    """Three letters: of an hour and a day ago, and a cut one of the other stream."""
    now = client.time()[0] * 1000
    for age_ms, uri, reason in ((24 * HOUR_MS, "monday/a", "delivered 3 times"), (HOUR_MS, "b\x1b[31m", "no memory")):
        client.xadd(
            "serving_stream:dead", {"uri": uri, "id": uri[:1], "x": b"\xff", "error": reason}, f"{now - age_ms}-9"
        )
    cut = {"uri": "monday/c", "error": "no memory", "cut": "9 bytes of the request are left out"}
    client.xadd("image_stream:dead", cut, f"{now - 1000}-9")
    return now


def call(at: RedisAt, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["dead-letter", *arguments, "--src", f"{at.host}:{at.port}"])
    said = capsys.readouterr()
    return code, said.out + said.err


def found(at: RedisAt, capsys: pytest.CaptureFixture[str], *filters: str) -> list[Any]:
    code, said = call(at, capsys, "list", "--json", *filters)
    assert code == 0
    return [json.loads(line)["uri"] for line in said.splitlines()]


@pytest.mark.usefixtures("now_ms")
def test_letters_are_listed_for_people(at: RedisAt, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = call(at, capsys, "list")
    assert code == 0
    assert said.splitlines()[0].split() == ["id", "stream", "age", "bytes", "uri", "reason"]
    assert "\\x1b[31m" in said
    assert "\x1b" not in said
    assert "1 d" in said
    assert "delivered 3 times" in said
    assert "... and more; --limit 2 shows more of them" in call(at, capsys, "list", "--limit", "1")[1]
    assert call(at, capsys, "list", "--stream", "other") == (0, "no dead letters of 'other'\n")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], ["monday/c", "b\x1b[31m", "monday/a"]),
        (["--uri", "monday/*"], ["monday/c", "monday/a"]),
        (["--reason", "MEMORY"], ["monday/c", "b\x1b[31m"]),
        (["--request-id", "m"], ["monday/a"]),
        (["--older-than", "2h"], ["monday/a"]),
        (["--newer-than", "90m"], ["monday/c", "b\x1b[31m"]),
        (["--newer-than", "2h", "--older-than", "30m"], ["b\x1b[31m"]),
        (["--stream", "serving_stream", "--limit", "1"], ["b\x1b[31m"]),
    ],
)
@pytest.mark.usefixtures("now_ms")
def test_filters_say_which_are_meant(
    at: RedisAt, capsys: pytest.CaptureFixture[str], filters: list[str], expected: list[str]
) -> None:
    assert sorted(found(at, capsys, *filters)) == sorted(expected)


@pytest.mark.usefixtures("now_ms")
def test_filters_that_no_letter_passes_do_not_hide_that_there_are_some(
    at: RedisAt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dead-letter", "list", "--src", str(at), "--reason", "nothing of that kind"]) == 0
    assert capsys.readouterr().out.startswith("none of the 3 dead letters of ")


def test_a_letter_is_listed_and_shown_as_json(at: RedisAt, capsys: pytest.CaptureFixture[str], now_ms: int) -> None:
    letter_id = f"{now_ms - HOUR_MS}-9"
    (line,) = call(at, capsys, "list", "--json", "--request-id", "b")[1].splitlines()
    about = json.loads(line)
    assert 3600 <= about.pop("age_s") < 3700
    assert about.pop("died_at").endswith("Z")
    assert about == {
        "id": letter_id,
        "stream": "serving_stream",
        "uri": "b\x1b[31m",
        "request_id": "b",
        "reason": "no memory",
        "size_bytes": 14,
        "cut": None,
        "fields": {"uri": 6, "id": 1, "x": 1},
    }
    code, said = call(at, capsys, "show", letter_id, "--json")
    assert code == 0
    assert json.loads(said)["fields"]["x"] == {"base64": "/w=="}
    assert json.loads(said)["fields"]["error"] == {"text": "no memory"}
    code, said = call(at, capsys, "show", letter_id, "1-1")
    assert code == 1
    assert "(no text)" in said
    assert "there is no dead letter 1-1 of " in said


def test_requests_are_queued_again(
    at: RedisAt, client: redis.Redis, capsys: pytest.CaptureFixture[str], now_ms: int
) -> None:
    assert call(at, capsys, "retry", "--all", "--dry-run")[0] == 1
    assert client.xlen("serving_stream") == 0
    code, said = call(at, capsys, "retry", "--all")
    assert code == 1, "one is cut"
    assert said.splitlines() == [
        "2 dead letters of 'image_stream' and 'serving_stream' were queued again",
        f"left: {now_ms - 1000}-9 (monday/c): 9 bytes of the request are left out",
    ]
    queued: Any = client.xrange("serving_stream")
    assert [fields[b"uri"] for _, fields in queued] == [b"monday/a", b"b\x1b[31m"], "the oldest first"
    assert all(b"error" not in fields for _, fields in queued)
    code, said = call(at, capsys, "retry", f"{now_ms - HOUR_MS}-9", "--json")
    assert (code, json.loads(said)["missing"]) == (1, [f"{now_ms - HOUR_MS}-9"])


def test_letters_are_dropped(at: RedisAt, client: redis.Redis, capsys: pytest.CaptureFixture[str], now_ms: int) -> None:
    del now_ms
    assert call(at, capsys, "drop", "--uri", "monday/*", "--dry-run")[1].endswith(" would be removed\n")
    code, said = call(at, capsys, "drop", "--all")
    assert (code, said.count("\n")) == (2, 1), "there is no terminal to ask"
    assert "--yes" in said
    assert count_dead_letters(client, "serving_stream") == 2
    code, said = call(at, capsys, "drop", "--limit", "1", "--older-than", "2h", "--yes")
    assert (code, said) == (0, "1 dead letter of 'image_stream' and 'serving_stream' was removed\n")
    assert found(at, capsys, "--stream", "serving_stream") == ["b\x1b[31m"]
    code, said = call(at, capsys, "drop", "--all", "--yes", "--json")
    assert (code, len(json.loads(said)["dropped"])) == (0, 2)
    assert found(at, capsys) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["retry"], "which dead letters? give their ids, a filter such as --uri or --reason, or --all"),
        (["drop"], "which dead letters?"),
        (["drop", "--all", "--uri", "a*"], "--all means all of them"),
        (["retry", "cat.jpg"], "'cat.jpg' is no id of a letter"),
        (["list", "--older-than", "soon"], "wants seconds, or as 90s, 10m, 2h or 7d, got 'soon'"),
    ],
)
def test_what_is_not_clear_is_refused(
    at: RedisAt, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, told = call(at, capsys, *arguments)
    assert (code, told.count("\n")) == (2, 1)
    assert said in told


@pytest.mark.parametrize("command", [[], ["list"], ["show"], ["retry"], ["drop"]])
def test_each_help_has_an_example(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert main(["dead-letter", *command, "--help"]) == 0
    shown = " ".join(["beam_serving", "dead-letter", *command])
    assert f"  python -m {shown}" in capsys.readouterr().out


def test_a_kill_loses_and_doubles_nothing(at: RedisAt, client: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:
    letters = 3000
    pipeline = client.pipeline()
    for number in range(letters):
        pipeline.xadd("serving_stream:dead", {"uri": number, "x": "1", "error": "no"}, f"{number + 1}-0")
    pipeline.execute()
    command = [sys.executable, "-m", "beam_serving", "dead-letter", "retry", "--all", "--src", f"{at.host}:{at.port}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        await_true(lambda: client.xlen("serving_stream") > 0, "the first request")
        process.kill()
    queued: Any = client.xrange("serving_stream")
    assert 0 < len(queued) < letters
    assert len(queued) + count_dead_letters(client, "serving_stream") == letters
    assert call(at, capsys, "retry", "--all")[0] == 0
    queued = client.xrange("serving_stream")
    assert sorted(int(fields[b"uri"]) for _, fields in queued) == list(range(letters))
