"""What an operator reads: one line for each kind of bad request, JSON where programs read, a file that is followed."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.client import InputQueue, OutputQueue, ResultError
from beam_serving.records import Origin
from beam_serving.telemetry.logs import LogOptions, _Repeats, configure_logging, of_request, own_logging
from beam_serving.transport.connection import RedisAt
from tests.service import DIGITS, Service, await_true, service
from tests.test_faults import TENSOR

ORIGIN = Origin(b"stream", b"1-0", b"a", "native", b"7f")
CONFIG = {"params": {"workers": 1, "batch_size": 4}}


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Whatever a test does, the next one logs as before."""
    with own_logging(LogOptions(), "test"):
        yield


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def records(*messages: str, level: int = logging.WARNING) -> list[logging.LogRecord]:
    found = []
    for message in messages:
        record = logging.LogRecord("beam_serving.test", level, "", 0, message, None, None)
        record.__dict__ |= of_request(ORIGIN)
        found.append(record)
    return found


def test_the_first_of_a_kind_is_written_at_once_and_the_others_as_a_number() -> None:
    written: list[logging.LogRecord] = []
    clock = Clock()
    repeats = _Repeats(written.append, clock)
    passed = [repeats.filter(one) for one in records("input 'a' has 3 rows", "input 'b' has 45 rows", "no image")]
    assert passed == [True, False, True]
    repeats.tell()
    assert written == []
    clock.now = 61.0
    repeats.tell()
    assert [(one.getMessage(), one.repeated) for one in written] == [("input 'b' has 45 rows", 1)]  # type: ignore[attr-defined]
    assert repeats.filter(records("input 'c' has 1 rows")[0])
    repeats.close()


def test_a_program_has_its_own_hooks_and_warnings_again() -> None:
    before = sys.excepthook, threading.excepthook, warnings.showwarning
    with own_logging(LogOptions(), "service"):
        assert (sys.excepthook, threading.excepthook) != before[:2]
    assert (sys.excepthook, threading.excepthook, warnings.showwarning) == before


@given(some.lists(some.text(max_size=5), min_size=1, max_size=300))
def test_each_line_is_written_or_counted_whatever_stands_in_it(messages: list[str]) -> None:
    written: list[logging.LogRecord] = []
    repeats = _Repeats(written.append)
    at_once = sum(repeats.filter(one) for one in records(*messages))
    assert at_once <= 101
    repeats.close()
    assert at_once + sum(one.repeated for one in written) == len(messages)  # type: ignore[attr-defined]


def test_what_is_not_about_a_request_is_always_written() -> None:
    record = logging.LogRecord("beam_serving.test", logging.ERROR, "", 0, "again", None, None)
    repeats = _Repeats(lambda _: None)
    assert [repeats.filter(record) for _ in range(3)] == [True] * 3


def test_a_line_of_json_has_the_names_of_its_request(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogOptions(format="json"), "worker 0")
    logger = logging.getLogger("beam_serving.test")
    logger.warning("refused %r\n", "a\u2028b", extra=of_request(ORIGIN))
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("failed")
    first, second = map(json.loads, capfd.readouterr().err.splitlines())
    assert first.pop("time").endswith("Z")
    names = {"uri": "a", "request_id": "7f", "stream": "stream", "entry_id": "1-0"}
    assert first == {"level": "WARNING", "process": "worker 0", "message": "refused 'a\\u2028b'\n", **names}
    assert second["exception"].endswith("ValueError: no")


def test_many_bad_requests_are_one_line_and_a_number(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    config = {**CONFIG, "model": {"path": str(DIGITS / "model")}}
    with service(at, tmp_path, config, "--log-format", "json") as running:
        with InputQueue(str(at)) as queue, OutputQueue(str(at)) as results:
            for number in range(20):
                queue.enqueue(f"bad{number}", data=[float(number)])
            for number in range(20):
                with pytest.raises(ResultError):
                    results.query(f"bad{number}", timeout_s=20)
        assert running.stop() == 0
        lines = [json.loads(line) for line in running.log.splitlines()]
    refused = [line for line in lines if "refused an entry" in line["message"]]
    assert len(refused) == 2
    assert refused[0]["uri"] == "bad0"
    assert refused[1]["repeated"] == 19
    assert [line for line in lines if line["level"] in ("WARNING", "ERROR") and line not in refused] == []


@pytest.mark.parametrize("runner", ["DirectRunner", pytest.param("FlinkRunner", marks=pytest.mark.java)])
@pytest.mark.parametrize("how", ["SIGTERM", "stop"])
@pytest.mark.timeout(300)
def test_a_normal_stop_raises_no_alarm(how: str, runner: str, at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    params = {"params": {"workers": 2, "batch_size": 4}}
    with service(at, tmp_path, params, f"--runner={runner}") as running:
        client.xadd("serving_stream", {"uri": "a", **TENSOR})
        await_true(lambda: client.exists("cluster-serving_serving_stream:a"), "an answer")
        if how == "stop":
            command = [sys.executable, "-m", "beam_serving", "stop", "--config", str(tmp_path / "config.yaml")]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            assert running.process.wait(60) == 0
        else:
            assert running.stop() == 0
    assert [line for line in running.log.splitlines() if " INFO [" not in line] == []
    assert "finishing what is in flight" in running.log or "what was in flight is finished" in running.log


def test_a_renamed_log_is_followed_by_all_processes_and_a_hangup_ends_nothing(
    at: RedisAt, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "own.log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with service(at, tmp_path, CONFIG, "--log-file", str(log)) as running:
            assert listener.recv(256) == b"READY=1"
            assert "] ready: " in log.read_text(encoding="utf-8")
            log.rename(tmp_path / "old.log")
            for pid in [*running.worker_pids(), running.process.pid]:
                os.kill(pid, signal.SIGHUP)
            assert listener.recv(256).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert listener.recv(256) == b"READY=1"
            await_true(lambda: log.exists() and "SIGHUP: the log goes on here" in log.read_text("utf-8"), "a new log")
            client.xadd("serving_stream", {"uri": "bad", "data": "what?"})
            await_true(lambda: "[worker 0] refused an entry" in log.read_text("utf-8"), "a line of a worker")
            assert running.stop() == 0
            assert listener.recv(256) == b"STOPPING=1"
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(256)
    assert "state DONE" in log.read_text(encoding="utf-8")
    assert "state DONE" not in (tmp_path / "old.log").read_text(encoding="utf-8")
    assert running.log == ""


def test_a_log_whose_folder_is_gone_ends_no_signal_and_comes_back(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    with service(at, tmp_path, CONFIG, "--log-file", str(folder / "own.log")) as running:
        (folder / "own.log").unlink()
        folder.rmdir()
        running.process.send_signal(signal.SIGHUP)
        client.xadd("serving_stream", {"uri": "bad", "data": "what?"})
        await_true(lambda: client.exists("cluster-serving_serving_stream:bad"), "an answer")
        folder.mkdir()
        running.process.send_signal(signal.SIGHUP)
        await_true(lambda: (folder / "own.log").exists(), "the log again")
        assert running.stop() == 0


def test_what_the_code_of_an_operator_prints_stops_no_worker(at: RedisAt, tmp_path: Path) -> None:
    (tmp_path / "printing.py").write_text(
        "def preprocess(inputs):\n    print('x' * 100_000)\n    return inputs\n", encoding="utf-8"
    )
    config = {**CONFIG, "data": {"preprocess": "printing.py:preprocess"}}
    with service(at, tmp_path, config) as running, InputQueue(str(at)) as queue:
        for _ in range(5):
            assert queue.predict([1.0], timeout=20) is not None
        assert running.log.count("x" * 100_000) == 5


def test_a_closed_standard_error_keeps_nothing_from_serving(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"model: {{path: noop}}\ndata: {{src: '{at}'}}\nparams: {{workers: 1}}\n", encoding="utf-8")
    log = tmp_path / "own.log"
    call = f"exec {sys.executable} -m beam_serving --config {config} --log-file {log} 2>&-"
    with subprocess.Popen(["sh", "-c", call]) as process:
        try:
            await_true(lambda: log.exists() and "] ready: " in log.read_text("utf-8"), "a service")
        finally:
            process.terminate()
    assert process.returncode == 0


def test_an_error_that_nobody_caught_is_a_line_too() -> None:
    program = (
        "import threading, warnings\n"
        "from beam_serving.telemetry.logs import LogOptions, configure_logging\n"
        "configure_logging(LogOptions(format='json'), 'test')\n"
        "warnings.warn('look out')\n"
        "thread = threading.Thread(target=lambda: 1 / 0)\n"
        "thread.start()\n"
        "thread.join()\n"
        "raise ValueError('the end')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    warned, died, last = map(json.loads, ended.stderr.splitlines())
    assert "look out" in warned["message"]
    assert died["exception"].endswith("ZeroDivisionError: division by zero")
    assert last["exception"].endswith("ValueError: the end")
    assert ended.returncode == 1


def heeds_no_hangup(pid: int) -> bool:
    """Whether a process ignores or handles SIGHUP; a moment after it began, before any of ours runs, it does not."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigIgn:", "SigCgt:"))]
    return any(mask & 1 << (signal.SIGHUP - 1) for mask in masks)


def test_a_hangup_in_the_start_ends_nothing(at: RedisAt, tmp_path: Path) -> None:
    running = Service(at, tmp_path, CONFIG)
    try:
        await_true(lambda: heeds_no_hangup(running.process.pid), "our own code")

        def hangs_up() -> bool:
            running.process.send_signal(signal.SIGHUP)
            return running.ready() is not None or running.process.poll() is not None

        await_true(hangs_up, "a service that is ready")
        assert running.process.poll() is None
    finally:
        running.process.terminate()
        running.process.wait()


def test_a_second_service_in_the_background_is_told_who_serves(at: RedisAt, tmp_path: Path) -> None:
    with service(at, tmp_path, CONFIG) as running:
        command = [sys.executable, "-m", "beam_serving", "serve", "--detach", "--config", str(tmp_path / "config.yaml")]
        said = subprocess.run(command, check=False, capture_output=True, text=True)
        assert (said.returncode, said.stdout) == (1, "")
        assert said.stderr.startswith(f"error: tested serves on this host already: pid {running.process.pid}, since 2")
        assert "`restart --detach` takes its place" in said.stderr


def test_the_reason_of_a_service_in_the_background_is_read_from_its_json(at: RedisAt, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"model: {{path: nothing}}\ndata: {{src: '{at}'}}\n", encoding="utf-8")
    command = [sys.executable, "-m", "beam_serving", "serve", "--config", str(config), "--log-format", "json"]
    said = subprocess.run([*command, "--detach"], check=False, capture_output=True, text=True)
    wanted = f"{tmp_path}/nothing: there is no such directory; wanted is a model directory"
    assert (said.returncode, json.loads(said.stderr)["message"]) == (2, wanted)
