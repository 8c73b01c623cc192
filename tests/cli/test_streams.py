"""Every command on a terminal of any width, in a pipe that is closed, on a full disk; a new one is found by itself."""

import errno
import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from beam_serving.cli import main as cli
from beam_serving.cli import tables
from beam_serving.cli.commands.bench.figures import table as bench_table
from beam_serving.cli.terminal import PIPE_CLOSED
from beam_serving.telemetry.report import ready_key
from beam_serving.transport.connection import RedisAt
from tests.cli.commands import all_commands

CONFIG = """\
name: a-service-with-a-rather-long-name
model:
  path: noop
  labels: names-of-all-the-classes-that-there-are.txt
data: {src: 'SRC', streams: [one-stream-with-a-long-name, another-stream-with-a-long-name]}
redis: {wait_s: 1}
"""
LONG_RUNNING = {(), ("serve",), ("restart",), ("worker-pool",), ("quickstart",), ("bench",), ("stop",)}
"""Commands whose output is their help here: they serve, or wait for what serves."""


@pytest.fixture
def config(at: RedisAt, client: redis.Redis, tmp_path: Path) -> Path:
    """A configuration, with some results to show."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("SRC", str(at)), encoding="utf-8")
    for number in range(3):
        key = f"cluster-serving_serving_stream:größe-{number}.jpg"
        client.hset(key, mapping={"value": json.dumps([[0, 0.5]]), "labels": json.dumps(["größe"])})
    client.hset("cluster-serving_one-stream-with-a-long-name:größe.jpg", mapping={"error": "no image " * 30})
    # A stream that is read, with a request that was given up.
    client.xgroup_create("one-stream-with-a-long-name", "serving", mkstream=True)
    client.set("one-stream-with-a-long-name:owner:serving", "a-service-with-a-rather-long-name")
    letter = {"uri": "größe-9.jpg", "data": "x", "error": "given up after 3 deliveries"}
    client.xadd("one-stream-with-a-long-name:dead", letter, "1-1")
    client.set(ready_key("a-service-with-a-rather-long-name"), json.dumps({"model": "m" * 100, "workers": 1}))
    return path


def calls(config: Path) -> Iterator[list[str]]:
    """Yields a call of each command that prints something and ends."""
    row = config.with_name("rows.jsonl")
    row.write_text("\n".join(f'{{"uri": "größe-{number}", "x": [1]}}' for number in range(40)), encoding="utf-8")
    old = config.with_name("old.yaml")
    old.write_text("modelPath: m\njobName: birds\n", encoding="utf-8")
    known = {
        ("config", "check"): [str(config), "--no-model"],
        ("dead-letter", "show"): ["1-1", "--config", str(config)],
        ("dead-letter", "retry"): ["--all", "--dry-run", "--config", str(config)],
        ("dead-letter", "drop"): ["--all", "--dry-run", "--config", str(config)],
        ("config", "migrate"): [str(old)],
        ("model", "inspect"): [str(Path(__file__).parents[2] / "beam_serving/demo/model")],
        ("enqueue",): [str(row), "--json", "--config", str(config)],
        ("init",): [str(config.with_name("new.yaml")), "--force"],
    }
    for words, command in all_commands():
        takes_config = any("--config" in param.opts for param in command.params)
        yield [*words, "--help"]
        if tuple(words) in known:
            yield [*words, *known[tuple(words)]]
        elif takes_config and tuple(words) not in LONG_RUNNING and not any(param.required for param in command.params):
            yield [*words, "--config", str(config)]


def command(call: list[str]) -> list[str]:
    return [sys.executable, "-m", "beam_serving", *call]


def run(call: list[str], stdout: Any, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(call), stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, **settings)


def on_terminal(call: list[str], width: int) -> str:
    """Gives what a command shows on a terminal of that width, on both streams."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(command(call), stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        shown = b""
        try:
            while part := os.read(master, 65536):
                shown += part
        except OSError as err:
            assert err.errno == errno.EIO  # noqa: PT017 - so a terminal says that its last process is gone
        os.close(master)
    assert process.returncode in (0, 1), shown.decode()
    return shown.decode()


def test_every_command_survives_a_reader_that_is_gone(config: Path) -> None:
    for call in calls(config):
        reader, writer = os.pipe()
        os.close(reader)
        ended = run(call, writer)
        os.close(writer)
        assert (ended.returncode, ended.stderr) == (PIPE_CLOSED, ""), call


def test_every_command_tells_a_full_disk_in_one_line(config: Path) -> None:
    said = "error: standard output cannot be written (No space left on device)\n"
    for call in calls(config):
        with open("/dev/full", "wb") as full:
            ended = run(call, full)
        assert (ended.returncode, ended.stderr) == (1, said), call


def test_every_command_goes_without_its_streams(config: Path) -> None:
    for call in calls(config):
        if call[-1] == "--help":
            continue
        shell = ["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", *command(call)]
        assert subprocess.run(shell, check=False).returncode == run(call, subprocess.DEVNULL).returncode, call


@pytest.mark.parametrize("words", [words for words, _ in all_commands()], ids=" ".join)
def test_every_help_fits_80_columns_and_its_examples_can_be_copied(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    examples = shown.partition("Examples:\n")[2].partition("\n\n")[0]
    assert all(shlex.split(line)[:2] == ["python", "-m"] for line in examples.replace("\\\n", "").splitlines())


@pytest.mark.parametrize("width", [80, 40])
def test_every_table_fits_the_terminal(config: Path, width: int) -> None:
    for call in calls(config):
        if call[-1] in ("--help", "--force") or call[:2] == ["config", "migrate"] or "--json" in call:
            continue
        shown = on_terminal(call, width)
        assert "\x1b" not in shown, call
        lines = [line.rpartition("\r")[2] for line in shown.replace("\r\n", "\n").splitlines()]
        # A line of words, as of an error or a title, is broken by the terminal; what has columns is not.
        columns = [line for line in lines if re.search(r"\S  +\S", line)]
        assert columns or call[0] in ("status", "list") or call[1] in ("retry", "drop"), call
        assert all(len(line) <= width for line in columns), (call, columns)


@pytest.mark.parametrize("width", [80, 40])
def test_progress_fits_the_terminal_and_is_gone_at_its_end(config: Path, width: int) -> None:
    files = [str(config.with_name("rows.jsonl"))]
    list(calls(config))
    shown = on_terminal(["enqueue", *files, "--config", str(config), "--wait", "--timeout", "0.3"], width)
    bars = [part for line in shown.split("\n") for part in line.split("\r") if "waiting" in part]
    assert bars
    assert all(len(part.replace("\x1b[A", "").rstrip()) <= width for part in bars)


def test_there_is_no_progress_in_a_pipe(config: Path) -> None:
    list(calls(config))
    call = ["enqueue", str(config.with_name("rows.jsonl")), "--config", str(config), "--wait", "--timeout", "0.3"]
    ended = run(call, subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "\r" not in ended.stdout


def test_head_gets_its_line_and_the_command_ends(config: Path) -> None:
    line = " ".join(command(["results", "--json", "--config", str(config), "--stream", "serving_stream"]))
    ended = subprocess.run(["sh", "-c", f"{line} | head -1"], capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    assert json.loads(ended.stdout)["result"] == {"größe": 0.5}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_does_not_have_is_escaped(config: Path, encoding: str) -> None:
    call = ["results", "größe-0.jpg", "一.jpg", "--config", str(config), "--stream", "serving_stream"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    ended = subprocess.run(command(call), capture_output=True, env=environment, check=False)
    assert (ended.returncode, ended.stderr) == (1, b"")
    assert "größe-0.jpg".encode(encoding, "backslashreplace") in ended.stdout
    assert "一.jpg".encode(encoding, "backslashreplace") in ended.stdout


ROWS = [
    ("name", "state", "workers", "hosts", "records/s", "queue", "model"),
    ("a-rather-long-service-name", "ready", "2", "host-1, host-2", "123.4", "0", "/models/mobilenet_v2_1.0_224_frozen"),
    ("服务", "not ready", "0", "-", "0.0", "12", "m"),
]


@pytest.mark.parametrize("width", [*range(4, 130, 7), 80, 40])
@pytest.mark.parametrize("lay_out", [tables.aligned, tables.listed])
def test_a_table_fits_any_width_and_loses_nothing(lay_out: Any, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "columns", lambda: width)
    monkeypatch.setattr(tables, "is_terminal", lambda: True)
    shown = lay_out(ROWS)
    assert all(len(line) <= width for line in shown.split("\n"))
    letters = re.sub(r"\s", "", shown)
    assert all(letters.count(sign) >= sum(cell.count(sign) for row in ROWS[1:] for cell in row) for sign in "gx7/服_")


def test_a_table_for_a_program_is_one_line_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "is_terminal", lambda: False)
    assert len(tables.listed([("a" * 500, "b" * 500), ("c", "d")]).split("\n")) == 2


def test_the_table_of_the_bench_fits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"in_flight": 64, "rate": None, "requests": 10_000, "errors": 0, "first_error": None, "generator_cpu": 0.1}
    one |= {"records_per_s": 123_456.7, "latency_ms": {"p50": 1.234, "p90": 12.34, "p99": 123.4, "max": 1234.5}}
    report = {"name": "n", "model": "m", "workers": 2, "redis": "r", "inputs": "i", "measurements": [one, one]}
    monkeypatch.setattr(tables, "is_terminal", lambda: True)
    for width in (80, 40, 20):
        monkeypatch.setattr(tables, "columns", lambda: width)  # noqa: B023 - called at once
        assert max(map(len, bench_table(report).split("\n"))) <= max(width, 38)
