"""`enqueue` and `results` against a whole service."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from beam_serving.cli import main as cli
from beam_serving.transport.connection import RedisAt
from tests.service import DIGITS, service

IMAGES = sorted((DIGITS / "images").glob("*.png"))
Captured = pytest.CaptureFixture[str]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "beam_serving", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_files_are_queued_and_waited_for_and_their_results_shown_again(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    config = {
        "model": {"path": str(DIGITS / "model")},
        "data": {"shape": "3,32,32", "scale": 1 / 255},
        "params": {"workers": 1},
    }
    files = [str(path) for path in IMAGES]
    with service(at, tmp_path, config):
        flags = ("--config", str(tmp_path / "config.yaml"))
        shown = run("enqueue", *files, "--wait", *flags)
        assert (shown.returncode, shown.stderr) == (0, "")
        title, *lines = shown.stdout.splitlines()
        assert title.split() == ["uri", "result"]
        assert [line.split()[0] for line in lines] == [path.name for path in IMAGES]
        assert all(line.split()[1] == f"{line.split('_')[1][0]}:" for line in lines)

        told = run("enqueue", str(broken), *files[:2], "--uri-prefix", "x/", "--wait", "--json", "--src", str(at))
        assert (told.returncode, told.stderr) == (1, "")
        by_uri = {line["uri"]: line for line in map(json.loads, told.stdout.splitlines())}
        assert set(by_uri) == {"x/broken.png", *(f"x/{path.name}" for path in IMAGES[:2])}
        assert "error" in by_uri["x/broken.png"]
        assert "result" in by_uri[f"x/{IMAGES[0].name}"]

    named = run("results", IMAGES[0].name, "nobody", "--json", *flags)
    assert named.returncode == 1
    assert json.loads(named.stdout.splitlines()[0])["uri"] == IMAGES[0].name
    assert named.stdout.splitlines()[1] == '{"uri": "nobody", "error": "there is no result"}'
    everything = run("results", *flags)
    assert everything.returncode == 1
    assert len(everything.stdout.splitlines()) == 1 + len(IMAGES) + 3
    assert run("results", IMAGES[0].name, "--delete", *flags).returncode == 0
    assert len(run("results", "--delete", "--json", *flags).stdout.splitlines()) == len(IMAGES) + 2
    nothing = run("results", *flags)
    assert (nothing.returncode, nothing.stdout) == (0, f"no results of 'serving_stream' in Redis at {at}\n")
    assert client.keys("cluster-serving_*") == []


def test_without_wait_it_says_what_was_queued(at: RedisAt, client: redis.Redis, capsys: Captured) -> None:
    place = ["--src", str(at), "--stream", "mine"]
    assert cli.main(["enqueue", str(IMAGES[0]), str(IMAGES[1]), *place]) == 0
    assert capsys.readouterr().out == f"2 requests queued on 'mine' of Redis at {at}\n"
    assert cli.main(["enqueue", str(IMAGES[2]), "--json", *place]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["uri"] == IMAGES[2].name
    assert client.xrange("mine")[2][1][b"id"] == told["request_id"].encode()  # type: ignore[index]


def test_a_result_that_does_not_come_is_given_up(at: RedisAt, capsys: Captured) -> None:
    assert cli.main(["enqueue", str(IMAGES[0]), "--src", str(at), "--wait", "--timeout", "0.2", "--json"]) == 1
    reason = "no result, and none of another request for 0.2 s"
    assert json.loads(capsys.readouterr().out) == {"uri": IMAGES[0].name, "error": reason}


def test_nothing_is_queued_when_a_file_is_wrong(
    at: RedisAt, client: redis.Redis, tmp_path: Path, capsys: Captured
) -> None:
    twin = tmp_path / IMAGES[0].name
    shutil.copy(IMAGES[0], twin)
    place = ["--src", str(at)]
    for files, said in (
        ([f"{tmp_path}/none.png"], f"{tmp_path}/none.png: there is no such file"),
        ([str(tmp_path)], f"{tmp_path}: is no file"),
        (
            [str(IMAGES[0]), str(twin)],
            f"{twin}: its uri {twin.name!r} is that of {IMAGES[0]} too; queue them one after the other, "
            "each with a --uri-prefix",
        ),
    ):
        assert cli.main(["enqueue", str(IMAGES[1]), *files, *place]) == 2
        assert capsys.readouterr().err == f"error: {said}\n"
    assert not client.exists("serving_stream")


def test_a_file_that_cannot_be_read_is_named(at: RedisAt, tmp_path: Path, capsys: Captured) -> None:
    unreadable = tmp_path / "unreadable.png"
    unreadable.symlink_to("/proc/self/mem")  # a file whose first byte nobody may read, root neither
    assert cli.main(["enqueue", str(unreadable), "--src", str(at)]) == 1
    assert capsys.readouterr().err == f"error: {unreadable}: cannot be read (Input/output error)\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["enqueue"], "Missing argument 'FILE...'"),
        (["enqueue", "a", "--timeout", "0"], "Invalid value for '--timeout': wants seconds, a number above 0, got '0'"),
        (["results", "--src", "http://x"], "Invalid value for '--src': wants host:port, redis://host:port/db, "),
        (["results", "--src", "u:p@x"], "Invalid value for '--src': a password must not stand on the command line"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: list[str], said: str, capsys: Captured) -> None:
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")
