"""--set and the environment on the command line: at every command, and all the way to the service."""

import json
import re
from pathlib import Path

import pytest
import redis

from beam_serving.cli import main as cli
from beam_serving.cli.place import Configuration
from beam_serving.telemetry.report import working_reports
from beam_serving.transport.connection import RedisAt
from tests.cli.commands import all_commands

Captured = pytest.CaptureFixture[str]


pytestmark = pytest.mark.usefixtures("logging_as_before")


ALL = list(all_commands())
READING = [words for words, command in ALL if any("--config" in param.opts for param in command.params)]


def test_every_command_that_reads_the_configuration_takes_values_beside_it() -> None:
    for words, command in ALL:
        flags = {flag for param in command.params for flag in param.opts}
        assert ("--set" in flags) == ("--config" in flags or words == ["config", "check"]), words
    assert {tuple(words) for words in READING} >= {(), ("serve",), ("restart",), ("status",), ("list",), ("enqueue",)}


def arguments_of(words: list[str]) -> list[str]:
    """Gives what a command wants beside its configuration."""
    wanted = {"enqueue": [__file__], "dead-letter show": ["1-0"], "dead-letter retry": ["--all"]}
    return {**wanted, "dead-letter drop": ["--all", "--yes"]}.get(" ".join(words), [])


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_a_wrong_value_from_beside_the_file_ends_each_command_alike(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model: {path: noop}\n", encoding="utf-8")
    call = [*words, *arguments_of(words), "--config", str(config)]
    assert cli.main([*call, "--set", "data.src=host:x"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: --set data.src: wants host:port with a port from 0 to 65535 (got 'host:x')"
    )
    monkeypatch.setenv("BEAM_SERVING__DATA__SCR", "host:1")
    assert cli.main(call) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: environment variable BEAM_SERVING__DATA__SCR: there is no such key; did you mean "
        "BEAM_SERVING__DATA__SRC?"
    )


def test_it_is_for_a_configuration_that_is_read(capsys: Captured) -> None:
    assert cli.main(["list", "--src", "localhost:1", "--set", "name=x"]) == 2
    said = "--set changes the configuration, and with --src none is read; leave one of them out"
    assert capsys.readouterr().err == f"error: {said}\n"


def test_a_configuration_is_named_to_another_process_as_it_was_here() -> None:
    config = Configuration(Path("a.yaml"), ("data.src=b:1", "name=x"))
    assert config.arguments() == ["--config", "a.yaml", "--set", "data.src=b:1", "--set", "name=x"]


def test_a_detached_service_has_what_was_set_and_a_restart_says_what_changes(
    at: RedisAt, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("name: ${NAME}\nmodel: {path: noop}\nredis: {wait_s: 1}\n", encoding="utf-8")
    monkeypatch.setenv("NAME", "named")
    monkeypatch.setenv("BEAM_SERVING__DATA__SRC", str(at))
    monkeypatch.setenv("BEAM_SERVING__PARAMS__WORKERS", "1")
    flags = ["--config", str(config)]
    try:
        assert cli.main(["serve", "--detach", *flags, "--set", "data.streams=mine"]) == 0
        assert capsys.readouterr().out.startswith("named: ready, pid ")
        assert cli.main(["status", "--json", *flags, "--set", "data.streams=mine"]) == 0
        about = json.loads(capsys.readouterr().out)
        assert (about["name"], list(about["streams"]), len(about["workers"])) == ("named", ["mine"], 1)
        log = (tmp_path / "named.log").read_text(encoding="utf-8")
        assert "data.streams: by --set data.streams" in log
        assert "params.workers: by environment variable BEAM_SERVING__PARAMS__WORKERS" in log

        monkeypatch.setenv("BEAM_SERVING__PARAMS__WORKERS", "2")
        assert cli.main(["restart", "--detach", *flags]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[0] == (
            "named: changed since its start: data.streams, params.workers (--set and environment variables count as "
            "they are given to restart)"
        )
        assert len(working_reports(client, "named")) == 2
        assert cli.main(["restart", "--detach", *flags]) == 0
        assert not re.search("changed", capsys.readouterr().out)
    finally:
        assert cli.main(["stop", *flags]) == 0
