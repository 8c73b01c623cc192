"""Runners: what all of them keep, and one more that the commands run, show and stop without knowing it."""

import ast
import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import redis
import yaml

from beam_serving.cli.main import main
from beam_serving.client import InputQueue, OutputQueue
from beam_serving.config.schema import Data, Model, Settings
from beam_serving.errors import ConfigError
from beam_serving.launch.deployed import Deployed
from beam_serving.launch.runner import RUNNERS, ClusterFlag, Plain, Spec, all_runners, runner_named
from beam_serving.launch.service import planned, serve
from beam_serving.launch.start import run_pipeline
from beam_serving.transport.connection import RedisAt

COMMANDS = Path(__file__).parents[1] / "beam_serving" / "cli" / "commands"
RAN: list[Spec] = []
CANCELLED: list[str] = []


class OneProcess:
    """A runner that drains the queue in this very process, and says that a cluster has a job of it until cancelled."""

    name = "OneProcess"
    key = "one"
    endless = False
    flags: tuple[str, ...] = ()
    cluster_flag: ClusterFlag | None = ClusterFlag("--one_at", "where it would be")

    def plan(self, spec: Spec) -> "OneProcessPlan":
        return OneProcessPlan(spec)

    def jobs(self, settings: Settings, cluster: str | None) -> "OneJob | None":
        return OneJob(f"{settings.name} at {cluster}") if cluster else None


class OneProcessPlan:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def require(self) -> None:
        """Nothing is missing."""

    def run(self) -> int:
        RAN.append(self.spec)
        run_pipeline(self.spec.settings, ["only"], self.spec.arguments, self.spec.drain)
        return 0


class OneJob:
    def __init__(self, job_id: str) -> None:
        self._id = job_id

    def status(self) -> Mapping[str, Plain]:
        return {"job": self._id}

    def lines(self, status: Mapping[str, Plain]) -> list[str]:
        return [f"one job: {status['job']}"]

    def active(self) -> list[str]:
        return [] if self._id in CANCELLED else [self._id]

    def cancel(self, job_id: str) -> None:
        CANCELLED.append(job_id)


@pytest.fixture(autouse=True)
def one_more_runner() -> Iterator[None]:
    RUNNERS["OneProcess"] = f"{__name__}:OneProcess"
    _read_options_anew()
    RAN.clear()
    CANCELLED.clear()
    yield
    del RUNNERS["OneProcess"]
    _read_options_anew()


def _read_options_anew() -> None:
    """Commands ask the runners for their options when they are imported."""
    for name in ("place", "commands.status", "commands.stop"):
        importlib.reload(importlib.import_module(f"beam_serving.cli.{name}"))


def settings(at: RedisAt, name: str = "one", grace_s: float = 0.2) -> Settings:
    data = Data(src=str(at), streams=("stream",))
    return Settings.model_validate(
        {"name": name, "model": Model(path="noop"), "data": data, "params": {"grace_s": grace_s}}
    )


def test_a_runner_is_a_row_and_its_module(at: RedisAt) -> None:
    queue, results = InputQueue(str(at), stream="stream"), OutputQueue(str(at), stream="stream")
    queue.enqueue("a", x=[1.0])
    assert serve(settings(at), "OneProcess", drain=True, beam_arguments=["--job_name=x"]) == 0
    assert results.query("a", timeout_s=5) == [1.0]
    (spec,) = RAN
    assert (spec.arguments, spec.drain, spec.every_s) == (("--job_name=x",), True, None)


def test_a_runner_without_endless_sources_asks_for_an_end(at: RedisAt) -> None:
    with pytest.raises(ConfigError, match=r"^--runner=OneProcess needs --drain, since OneProcess runs no pipeline "):
        serve(settings(at), "OneProcess")
    with pytest.raises(ConfigError, match=r"^--every goes with --runner=SparkRunner, OneProcess; DirectRunner serves"):
        serve(settings(at), every_s=5)
    with pytest.raises(ConfigError, match=r"^--runner=Nowhere is not served yet; wanted is one of DirectRunner, "):
        serve(settings(at), "Nowhere")
    with pytest.raises(ConfigError, match=r"^unknown flag --jobb_name; did you mean --job_name\?$"):
        serve(settings(at), beam_arguments=["--jobb_name=x"])
    assert RAN == []


def test_status_and_stop_ask_the_cluster_of_each_runner(
    at: RedisAt, client: redis.Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    config = {"name": "one", "model": {"path": "noop"}, "data": {"src": str(at)}, "params": {"grace_s": 0.2}}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    flags = ["--config", str(path), "--one_at=here"]
    assert main(["status", *flags, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["one"] == {"job": "one at here"}
    assert main(["status", *flags]) == 1
    assert capsys.readouterr().out.endswith("\none job: one at here\n")
    assert main(["stop", *flags]) == 0
    assert CANCELLED == ["one at here"]
    assert main(["stop", *flags]) == 1


def test_what_is_left_is_told_while_a_service_is_stopped(at: RedisAt, client: redis.Redis) -> None:
    left: list[int] = []
    assert Deployed(settings(at), {"--one_at": "here"}).stop(client, left.append)
    assert (left[0], left[-1]) == (1, 0)
    assert not Deployed(settings(at), {}).stop(client, left.append)


@pytest.mark.parametrize("name", ["DirectRunner", "FlinkRunner", "SparkRunner"])
def test_a_plan_starts_nothing(name: str) -> None:
    """Not even a connection: the address answers nobody."""
    spec = Spec(settings(RedisAt("127.0.0.1", 1)), workers=2, drain=True)
    assert planned(spec, name).runner.name == runner_named(name).name


def test_each_runner_has_a_name_and_a_key_of_its_own() -> None:
    runners = all_runners()
    assert len({one.name for one in runners}) == len({one.key for one in runners}) == len(runners) == 4
    assert all(type(one) is type(runner_named(one.name)) for one in runners)


@pytest.mark.parametrize("command", ["serve", "restart", "status", "stop"])
def test_commands_know_no_runner_by_name(command: str) -> None:
    tree = ast.parse((COMMANDS / f"{command}.py").read_text(encoding="utf-8"))
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [
        name for name in imported if name.startswith(("beam_serving.launch.flink", "beam_serving.launch.spark"))
    ]
