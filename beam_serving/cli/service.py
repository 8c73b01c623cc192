"""A service in a process of its own, for the commands that need one: started, awaited, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import yaml

from beam_serving.cli.place import Configuration
from beam_serving.config.overrides import PREFIX
from beam_serving.errors import BeamServingError
from beam_serving.launch.worker import python_module
from beam_serving.owner import tied
from beam_serving.telemetry.report import ready_key
from beam_serving.transport.connection import RedisAt

_START_S = 120.0


@contextmanager
def running_service(
    config: dict[str, Any], folder: Path, at: RedisAt, arguments: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service with this configuration until the body ends; yield its process when it is ready.

    What the environment says of a configuration is not of this one.

    Raises:
        BeamServingError: it ended before it was ready, or is not ready within two minutes.
    """
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    with _started(Configuration(path), arguments, environment) as process:
        await_ready(process, at.client(), config["name"])
        yield process


@contextmanager
def service_of_file(
    config: Configuration, at: RedisAt, name: str, arguments: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Run the service of a configuration until the body ends; yield what it says of itself when it is ready.

    Raises:
        BeamServingError: it ended before it was ready, or is not ready within two minutes.
    """
    with _started(config, arguments) as process:
        yield await_ready(process, at.client(), name)


@contextmanager
def _started(
    config: Configuration, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*python_module("beam_serving"), *config.arguments(), *arguments],
        env=None if environment is None else dict(environment),
        preexec_fn=tied(signal.SIGTERM),
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def await_ready(process: subprocess.Popen[bytes], client: redis.Redis, name: str) -> dict[str, Any]:
    """Wait until the service `name` says that it is ready; return what it says of itself.

    Raises:
        BeamServingError: its process ended, or two minutes have passed.
    """
    give_up_at = time.monotonic() + _START_S
    while time.monotonic() < give_up_at:
        about: Any = client.get(ready_key(name))
        if about:
            reported: dict[str, Any] = json.loads(about)
            return reported
        if process.poll() is not None:
            raise BeamServingError(f"the service ended with exit code {process.returncode} before it was ready")
        time.sleep(0.05)
    raise BeamServingError(f"the service is not ready after {_START_S:g} s; its log above says why")
