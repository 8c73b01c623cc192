"""A small Redis for trying, in the foreground, until it is stopped."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from beam_serving.cli.arguments import Command, run, with_examples
from beam_serving.cli.terminal import say
from beam_serving.errors import BeamServingError, ConfigError
from beam_serving.launch.embedded_redis import embedded_redis, listens
from beam_serving.transport.connection import PASSWORD_VARIABLE

_ANSWER_S = 2.0


def main(arguments: Sequence[str]) -> int:
    """Run the server until SIGTERM, SIGHUP or Ctrl-C, and return the exit code, 0 then.

    Raises:
        ConfigError: the port or the folder is in use, or there is no server program.
        BeamServingError: the server did not come up, or ended.
    """
    return run(_command, arguments, "beam-serving redis")


@with_examples("beam_serving redis", "beam_serving redis --port 6380 --dir redis-data")
@click.command(
    cls=Command,
    help="Run a small Redis on this machine until Ctrl-C or SIGTERM. It is for trying: whoever has a user here may use "
    f"it, unless {PASSWORD_VARIABLE} holds a password, and it holds 4 GB at most.",
)
@click.option(
    "--port", type=click.IntRange(1, 65_535), default=6379, show_default=True, help="Where it listens, on 127.0.0.1."
)
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), metavar="DIR",
    help="Keep the data in this folder, an append-only file; without it they go with the server.",
)  # fmt: skip
def _command(port: int, folder: Path | None) -> int:
    _refuse_a_used_port(port)
    with ExitStack() as stack:
        options: Sequence[str] = () if folder is None else stack.enter_context(_kept_in(folder))
        stack.enter_context(embedded_redis(port, *options))
        password = os.environ.get(PASSWORD_VARIABLE)
        if password:
            _client(port).config_set("requirepass", password)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            # Of a terminal that is closed: the server ends as by SIGTERM.
            signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
        data = "its data go with it (--dir DIR keeps them)" if folder is None else f"its data are kept in {folder}"
        guarded = f"with the password in {PASSWORD_VARIABLE}" if password else "without a password"
        try:
            say(f"Redis listens on localhost:{port}, {guarded}: for trying only; {data}; Ctrl-C ends it", flush=True)
            _await_end(port)
        except KeyboardInterrupt:
            return 0
    raise BeamServingError(f"the server on port {port} has ended by itself, or was ended by somebody else")


def _client(port: int) -> redis.Redis:
    return redis.Redis(host="localhost", port=port, socket_timeout=_ANSWER_S, retry=Retry(NoBackoff(), 0), protocol=2)


def _refuse_a_used_port(port: int) -> None:
    if not listens("localhost", port):
        return
    try:
        _client(port).ping()
    except (redis.AuthenticationError, redis.BusyLoadingError):
        pass
    except redis.RedisError as err:
        raise ConfigError(f"port {port} is in use, and not by a Redis; --port takes another one") from err
    raise ConfigError(f"a Redis answers on localhost:{port} already: use that one, or take another --port")


@contextmanager
def _kept_in(folder: Path) -> Iterator[Sequence[str]]:
    """Hold a folder, made where it is missing, for one server; yield the options that keep its data there."""
    try:
        if not folder.exists():
            folder.mkdir(parents=True)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as err:
        raise ConfigError(f"--dir {folder}: cannot be used ({err.strerror})") from err
    try:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"--dir {folder}: this user may not write there")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            raise ConfigError(f"--dir {folder}: another server keeps its data there; stop that one first") from err
        yield "--dir", str(folder.resolve()), "--appendonly", "yes"
    finally:
        os.close(held)


def _await_end(port: int) -> None:
    """Wait until nothing listens any more: a connection that says nothing ends with its server."""
    while listens("localhost", port):
        try:
            with socket.create_connection(("localhost", port)) as idle:
                idle.recv(1)
        except OSError:
            continue
