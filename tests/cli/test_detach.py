"""A service in the background: started, found by others, started again, stopped."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from beam_serving.cli import detach
from beam_serving.cli.detach import start_detached
from beam_serving.errors import BeamServingError
from beam_serving.transport.connection import RedisAt
from tests.service import await_true


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "beam_serving", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def config(at: RedisAt, tmp_path: Path) -> Iterator[Path]:
    """A configuration whose service, if one was left, is ended."""
    path = tmp_path / "config.yaml"
    path.write_text(
        f"name: behind\nmodel: {{path: noop}}\ndata: {{src: '{at}'}}\nparams: {{workers: 1}}\n", encoding="utf-8"
    )
    yield path
    if services(path):
        assert run("stop", "--config", str(path)).returncode == 0
        # Its stop is asked for in Redis, which the next test empties.
        await_true(lambda: not services(path), "the end of the service")


def services(config: Path) -> list[str]:
    """Gives the processes that serve a configuration."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(config).encode() in (process / "cmdline").read_bytes().split(b"\0"):
                found.append(process.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def pid_of(said: subprocess.CompletedProcess[str], config: Path, before: str = "", after: str = "") -> int:
    """Reads the pid from what a command printed, which is checked."""
    assert said.returncode == 0, said.stderr
    wanted = rf"{before}behind: ready, pid (\d+), log {re.escape(str(config.parent))}/behind\.log\n{after}"
    match = re.fullmatch(wanted, said.stdout)
    assert match, said.stdout
    return int(match[1])


def test_a_service_in_the_background_is_started_again_and_stopped(config: Path, client: redis.Redis) -> None:
    flags = ("--config", str(config))
    first = pid_of(run("serve", "--detach", *flags), config)
    assert alive(first)
    assert os.getsid(first) == first
    assert client.exists("beam-serving:behind:ready")
    around = ("behind: 2 processes go on until the new ones serve, starting\n", "behind: what ran before has ended\n")
    second = pid_of(run("restart", "--detach", *flags), config, *around)
    await_true(lambda: not alive(first), "the end of the first service")
    assert alive(second)
    assert (config.parent / "behind.log").read_text(encoding="utf-8").count(" ready: serving ") == 2
    stopped = run("stop", *flags)
    assert (stopped.returncode, stopped.stdout) == (0, "behind: stopped\n"), stopped.stderr
    await_true(lambda: not alive(second), "the end of the second service")


def test_a_service_may_end_before_its_successor_starts(config: Path) -> None:
    flags = ("--config", str(config))
    first = pid_of(run("serve", "--detach", *flags), config)
    second = pid_of(run("restart", "--detach", "--stop-first", *flags), config, "behind: stopped, starting\n")
    assert not alive(first)
    assert alive(second)


def test_a_restart_of_what_does_not_run_starts_it_in_the_foreground(config: Path, client: redis.Redis) -> None:
    command = [sys.executable, "-m", "beam_serving", "restart", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            await_true(lambda: process.poll() is not None or client.exists("beam-serving:behind:ready"), "ready")
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.communicate()[0] == "behind: nothing runs, starting\n"
    assert process.returncode == 0


def test_a_service_that_cannot_start_gives_its_reason(config: Path) -> None:
    (config.parent / "behind.log").write_text("error: of yesterday\n", encoding="utf-8")
    config.write_text("name: behind\nmodel: {path: nothing}\n", encoding="utf-8")
    said = run("serve", "--detach", "--config", str(config))
    wanted = f"error: {config.parent}/nothing: there is no such directory; wanted is a model directory\n"
    assert (said.returncode, said.stdout, said.stderr) == (2, "", wanted)


def test_a_configuration_that_cannot_be_served_stops_nothing(config: Path) -> None:
    flags = ("--config", str(config))
    good = config.read_text(encoding="utf-8")
    pid = pid_of(run("serve", "--detach", *flags), config)
    config.write_text(good.replace("noop", "nothing"), encoding="utf-8")
    assert run("restart", "--detach", *flags).returncode == 2
    assert alive(pid)


def test_a_log_that_cannot_be_written_is_named(config: Path) -> None:
    said = run("serve", "--detach", "--config", str(config), "--log-file", str(config.parent / "none" / "x.log"))
    assert said.returncode == 2
    assert said.stderr == (
        f"error: {config.parent}/none/x.log: cannot be written (No such file or directory); "
        "--log-file names another file\n"
    )


def test_of_two_commands_at_once_one_starts_a_service(config: Path) -> None:
    command = [sys.executable, "-m", "beam_serving", "serve", "--detach", "--config", str(config)]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    assert "behind serves on this host already: pid " in "".join(said)


def test_a_service_that_is_not_ready_in_time_is_stopped(
    config: Path, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detach, "_START_S", 0.1)
    log = config.parent / "x.log"
    with pytest.raises(
        BeamServingError, match=r"^the service is not ready after 0\.1 s and was stopped; see .*x\.log$"
    ):
        start_detached(["--config", str(config)], log, grace_s=30)
    assert not client.exists("beam-serving:behind:ready")
