"""Telling whoever started a service that it serves."""

import socket
from pathlib import Path

import pytest

from beam_serving.launch.systemd import tell_ready


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
