"""Where a command looks for Redis and the stream."""

from dataclasses import fields
from pathlib import Path

import click
import pytest
from redis.connection import parse_url

from beam_serving.cli.arguments import run
from beam_serving.cli.place import config_option, settings_at, src_option, stream_at, stream_option
from beam_serving.config.bare import bare_settings
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Data, Model, Settings
from beam_serving.errors import ConfigError
from beam_serving.transport.client_connection import Server
from beam_serving.transport.connection import RedisAt


def place(*arguments: str) -> tuple[str, str]:
    """Gives the address and the stream that a command line means."""
    found: list[tuple[str, str]] = []

    @click.command()
    @config_option
    @src_option
    @stream_option
    def command(config: Path, src: Settings | None, stream: str | None) -> None:
        settings = settings_at(config, src)
        found.append((settings.data.src, stream_at(stream, settings)))

    assert run(command, arguments, "test") == 0
    return found[0]


def test_an_address_with_a_password_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^Invalid value for '--src': a password must not stand on the command line"):
        place("--src", "redis://:secret@host:1")


def test_without_a_configuration_all_but_redis_is_as_where_one_says_nothing() -> None:
    bare, settings = bare_settings("there:1"), Settings(model=Model(path="noop"), data=Data(src="there:1"))
    assert bare.name == settings.name
    for section in ("data", "redis"):
        for field in fields(getattr(bare, section)):
            assert getattr(getattr(bare, section), field.name) == getattr(getattr(settings, section), field.name)
    assert redis_at(bare) == redis_at(settings)


@pytest.mark.parametrize("src", ["ftp://there", "there:port", "redis+sentinel://there"])
def test_an_address_that_is_none_is_refused_in_one_line(src: str) -> None:
    with pytest.raises(ConfigError, match=r"^Invalid value for '--src': wants host:port"):
        place("--src", src)


def test_the_configuration_says_where_or_the_command_line_alone(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model: {path: m}\ndata: {src: 'there:1', streams: 'a, b'}\n", encoding="utf-8")
    assert place("-c", str(config)) == place(f"-c={config}") == ("there:1", "a")
    assert place("--config", str(config), "--stream", "b") == ("there:1", "b")
    assert place("--src", "here:2") == ("here:2", "serving_stream")


@pytest.mark.parametrize(
    "at",
    [
        RedisAt("there", 1, 2),
        RedisAt("::1", 1, username="me@home"),
        RedisAt("there", 1, tls=True),
    ],
)
def test_the_client_is_told_the_same_server(at: RedisAt) -> None:
    server = Server.at(at.url(), password="s3cret", max_connections=1, timeout_s=1)  # noqa: S106 - of nothing
    assert (server.name, server.password) == (str(at), "s3cret")
    options = parse_url(server.url)
    assert (options["host"], options["port"], options.get("db", 0)) == (at.host, at.port, at.db)
    assert options.get("username") == at.username
    assert at.url().startswith("rediss://" if at.tls else "redis://")


def test_the_client_is_told_the_same_sentinels() -> None:
    src = "rediss+sentinel://me@a:1,b:2/digits/3"
    at = redis_at(Settings(model=Model(path="noop"), data=Data(src=src)))
    assert at.url() == src
