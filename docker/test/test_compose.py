"""The compose file: Redis and the service, on one machine or on Flink, for a client outside."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine import DOCKER, Engine
from serving import DEMO, LISTENERS, RIGHT, await_true, backlog, digits
from stand_in import REDIS

from beam_serving.launch.embedded_redis import listens
from beam_serving.telemetry.report import ready_key
from beam_serving.transport.connection import RedisAt

AT = RedisAt("127.0.0.1", 6379)


class Compose:
    """The compose file as it is but for the network, of which an engine without rights has only the host's."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        composed = yaml.safe_load((DOCKER / "docker-compose.yml").read_text(encoding="utf-8"))
        for service in composed["services"].values():
            service |= {"network_mode": "host", "extra_hosts": ["redis:127.0.0.1"]}
            service.pop("ports", None)
            service.pop("build", None)
        (folder / "docker-compose.yml").write_text(yaml.safe_dump(composed), encoding="utf-8")

    def run(self, *arguments: str) -> str:
        """Run a command of podman-compose and return what it says."""
        program = str(Path(sys.executable).with_name("podman-compose"))
        variables = {"MODEL": str(DEMO / "model"), "CONFIG": str(DOCKER / "config.yaml"), "REDIS_IMAGE": REDIS}
        ended = subprocess.run(
            [program, "--in-pod=false", *arguments],
            check=False,
            cwd=self._folder,
            env={**self._engine.environment(), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    def inside(self, service: str, *command: str) -> Any:
        """Return what a command prints, as JSON, that runs beside a service in its container."""
        return json.loads(self._engine.run("exec", f"beam-serving_{service}_1", *command))

    def exit_code(self, service: str) -> int:
        """Return the exit code of a service's container that has ended."""
        (state,) = json.loads(self._engine.run("inspect", "--format", "json", f"beam-serving_{service}_1"))
        code: int = state["State"]["ExitCode"]
        return code


@pytest.fixture
def compose(engine: Engine, tmp_path: Path) -> Iterator[Compose]:
    """What `docker compose` would be told, with nothing left of it afterwards."""
    made = Compose(engine, tmp_path)
    yield made
    made.run("--profile=flink", "down", "--volumes", "--timeout=40")


def _ready() -> Any:
    if not listens(AT.host, AT.port):
        return None
    client = AT.client()
    try:
        return client.get(ready_key("beam-serving"))
    finally:
        client.close()


@pytest.mark.parametrize(("service", "named"), [("serving", ()), ("serving-flink", ("serving-flink",))])
def test_a_client_outside_is_answered_and_a_stop_is_clean(
    service: str, named: tuple[str, ...], compose: Compose
) -> None:
    compose.run(*(("--profile=flink",) if named else ()), "up", "--detach", *named)
    await_true(_ready, "ready")
    assert digits(AT) == RIGHT
    listening = compose.inside(service, "python", "-c", LISTENERS)
    assert bool(listening) is (service == "serving-flink")
    assert all(on_this_machine_only for _, on_this_machine_only in listening)
    compose.run("--profile=flink", "stop", "--timeout=40", service)
    assert compose.exit_code(service) == 0
    assert backlog(AT) == (0, 0)


def test_what_redis_accepted_survives_its_restart(compose: Compose) -> None:
    compose.run("up", "--detach", "redis")
    await_true(lambda: listens(AT.host, AT.port), "Redis")
    AT.client().xadd("serving_stream", {"kept": "yes"})
    compose.run("restart", "redis")
    await_true(lambda: listens(AT.host, AT.port), "Redis again")
    kept: Any = AT.client().xlen("serving_stream")
    assert kept == 1
