"""Telling whoever started a service that it serves."""

import socket
from pathlib import Path

import pytest

from beam_serving.launch.systemd import reloading, tell_ready, tell_stopping


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_readiness_is_one_datagram_to_the_socket_that_the_environment_names(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "socket") if kind == "path" else f"@{tmp_path.name}-beam-serving"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0", 1))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        tell_ready()
        assert listener.recv(64) == b"READY=1"


def test_nobody_who_listens_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    tell_ready()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    tell_ready()


def test_a_reload_is_told_while_the_service_is_ready_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "socket"))
        tell_stopping()  # as before any start
        assert listener.recv(64) == b"STOPPING=1"
        with reloading():
            pass
        tell_ready()
        with pytest.raises(OSError, match="gone"), reloading():
            raise OSError("gone")
        told = [listener.recv(64).partition(b"=")[0] for _ in range(3)]
        assert told == [b"READY", b"RELOADING", b"READY"]
        tell_stopping()
        with reloading():
            pass
        assert listener.recv(64) == b"STOPPING=1"
        with pytest.raises(BlockingIOError):
            listener.recv(64)
