"""`enqueue` and `results` against a whole service."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from beam_serving.cli import main as cli
from beam_serving.transport.connection import RedisAt
from tests.cli.test_input_files import trapped
from tests.service import DIGITS, say_it_is_read, service

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
    place = ["--src", str(at)]
    for files, said in (
        ([f"{tmp_path}/none.png"], f"{tmp_path}/none.png: there is no such file"),
        ([f"{tmp_path}/*.jpg"], f"{tmp_path}/*.jpg: matches no file"),
        (["/dev/null"], "/dev/null: is no file"),
    ):
        assert cli.main(["enqueue", str(IMAGES[1]), *files, *place]) == 2
        assert capsys.readouterr().err == f"error: {said}\n"
    assert not client.exists("serving_stream")


def test_a_file_that_cannot_be_read_is_named(at: RedisAt, tmp_path: Path, capsys: Captured) -> None:
    unreadable = tmp_path / "unreadable.png"
    unreadable.symlink_to("/proc/self/mem")  # a file whose first byte nobody may read, root neither
    assert cli.main(["enqueue", str(unreadable), "--src", str(at)]) == 1
    said = capsys.readouterr()
    assert said.err == f"not queued: {unreadable}: cannot be read (Input/output error)\n"
    assert said.out == f"0 requests queued on 'serving_stream' of Redis at {at}\n"


def test_what_cannot_be_sent_does_not_stop_the_rest(
    at: RedisAt, client: redis.Redis, tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for path in ("a.png", "sub/a.png", ".hidden.png"):
        shutil.copy(IMAGES[0], folder / path)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.md").write_text("no image", encoding="utf-8")
    (folder / "objects.npy").write_bytes(trapped(tmp_path / "trace"))
    np.save(folder / "tensor.npy", np.zeros((2, 3), np.float32))
    (folder / "rows.csv").write_text("uri,x,y\none,1,2\none,3,4\n,5,b\n", encoding="utf-8")
    (folder / "rows.jsonl").write_text('{"x": [1.5]}\n{"x": }\n', encoding="utf-8")
    assert cli.main(["enqueue", str(folder), str(folder / "*.png"), "-r", "--src", str(at), "--uri-prefix", "p/"]) == 1
    said = capsys.readouterr()
    assert said.out == f"5 requests queued on 'serving_stream' of Redis at {at}\n"
    assert said.err.replace(f"{folder}/", "").splitlines() == [
        "not queued: empty.jpg: is empty",
        "not queued: objects.npy: holds Python objects, which are never loaded, since that could run anything; save "
        "numbers or texts: array.astype('float32'), array.astype('U')",
        "not queued: rows.csv:3: its uri 'one' is that of rows.csv:2 too",
        "not queued: rows.csv:4: column 'y' has 'b', wanted is a number; --by-column sends each column as an input of "
        "its own",
        "not queued: rows.jsonl:2: is no JSON (Expecting value at column 7)",
        "skipped 3; .hidden.png: is hidden; notes.md: is of no known kind; name it to send it as an image; "
        "a.png: was named before",
    ]
    entries: Any = client.xrange("serving_stream")
    uris = [fields[b"uri"].decode() for _, fields in entries]
    assert uris == ["p/a.png", "p/one", "p/rows.jsonl:1", "p/sub/a.png", "p/tensor.npy"]

    assert cli.main(["enqueue", str(folder / "empty.jpg"), "--src", str(at), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"uri": "empty.jpg", "error": "not queued: is empty"}
    flags = ("--src", str(at), "--wait", "--timeout", "0.2")
    assert cli.main(["enqueue", str(folder / "empty.jpg"), *flags]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == ["empty.jpg  error: not queued: is empty"]


def test_what_the_client_refuses_is_told_and_its_neighbours_are_queued(
    at: RedisAt, client: redis.Redis, tmp_path: Path, capsys: Captured
) -> None:
    rows = [f'{{"uri": "u{number}", "x": [{number}]}}' for number in range(300)]
    rows[200] = '{"uri": "", "x": []}'
    rows[201] = json.dumps({"uri": "u" * 5000, "x": [1]})
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    assert cli.main(["enqueue", str(tmp_path / "rows.jsonl"), "--src", str(at)]) == 1
    said = capsys.readouterr()
    first, second = said.err.splitlines()
    assert first.startswith(f"not queued: {tmp_path}/rows.jsonl:201: input 'x' ")
    assert second == f"not queued: {tmp_path}/rows.jsonl:202: uri is 5000 bytes, at most 4096 are served"
    assert client.xlen("serving_stream") == 298


def test_a_folder_without_anything_to_send_is_told(at: RedisAt, tmp_path: Path, capsys: Captured) -> None:
    assert cli.main(["enqueue", str(tmp_path), "--src", str(at)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: there is nothing to send\n"
    (tmp_path / "sub").mkdir()
    (tmp_path / "notes.md").write_text("", encoding="utf-8")
    assert cli.main(["enqueue", str(tmp_path), "--src", str(at)]) == 2
    assert capsys.readouterr().err.replace(f"{tmp_path}/", "") == (
        f"error: {tmp_path}: there is nothing to send; notes.md: is of no known kind; name it to send it as an image; "
        "sub: is a folder; --recursive takes what is in it\n"
    )


def test_lines_of_json_come_from_standard_input_too(at: RedisAt, client: redis.Redis) -> None:
    command = [sys.executable, "-m", "beam_serving", "enqueue", "-", "--src", str(at)]
    lines = '{"uri": "a", "x": [1.0, 2.0]}\n"some text"\n'
    say_it_is_read(client)
    ended = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    entries: Any = client.xrange("serving_stream")
    assert [fields[b"uri"] for _, fields in entries] == [b"a", b"stdin:2"]


def test_rows_of_a_table_are_served(at: RedisAt, tmp_path: Path) -> None:
    config = {"model": {"path": "noop"}, "params": {"workers": 1, "top_n": 0}}
    (tmp_path / "rows.csv").write_text("\ufeffa;b\r\n1;2.5\r\n3;4\r\n", encoding="utf-8")
    np.save(tmp_path / "rows.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    with service(at, tmp_path, config):
        files = [str(tmp_path / "rows.csv"), str(tmp_path / "rows.npy")]
        shown = run("enqueue", *files, "--by-row", "--wait", "--json", "--config", str(tmp_path / "config.yaml"))
    assert (shown.returncode, shown.stderr) == (0, "")
    results = {line["uri"]: line["result"] for line in map(json.loads, shown.stdout.splitlines())}
    # The no-op model answers with the first number of each.
    assert results == {"rows.csv:2": [1], "rows.csv:3": [3], "rows.npy:0": [0], "rows.npy:1": [3]}


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
