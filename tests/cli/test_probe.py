"""`status --probe`: a health check that costs little and tells the truth."""

import subprocess
import sys
from pathlib import Path

import pytest
import redis

from beam_serving.cli.main import main
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import load_settings
from beam_serving.config.whereabouts import NAME, REDIS_TIMEOUT_S, SRC, whereabouts
from beam_serving.launch.embedded_redis import free_port
from beam_serving.telemetry.report import Deployment, announce, retract
from beam_serving.transport.connection import RedisAt
from tests.service import await_true, service
from tests.test_faults import queue_records


def probe(config: Path) -> int:
    return main(["status", "--probe", "--config", str(config)])


def test_it_says_in_one_line_whether_a_service_is_ready(
    at: RedisAt, client: redis.Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    with service(at, tmp_path, {}) as running:
        queue_records(client, 1)
        assert probe(config) == 0
        assert capsys.readouterr().out == "tested: ready\n"
        running.process.kill()
        running.process.wait()
        await_true(lambda: probe(config) == 1, "the truth", within_s=5)
    assert capsys.readouterr().err.splitlines()[-1].startswith("tested: not ready: ")


def test_it_loads_neither_numpy_nor_the_check_of_the_configuration(at: RedisAt, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"name: digits\ndata:\n  src: {at.host}:{at.port}\n", encoding="utf-8")
    unwanted = ["apache_beam", "numpy", "pydantic", "pyarrow", "rich", "tqdm"]
    program = (
        "import sys; from beam_serving.cli.main import main; "
        f"print(main(['status', '--probe', '--config', {str(config)!r}]), sorted(set({unwanted}) & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("1 []\n", "digits: not ready: it has not announced that it is ready\n")


def test_a_redis_that_is_gone_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"data:\n  src: 127.0.0.1:{free_port()}\n", encoding="utf-8")
    assert probe(config) == 1
    assert capsys.readouterr().err.startswith("error: Redis at 127.0.0.1:")
    assert probe(tmp_path / "absent.yaml") == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        "model:\n  path: noop\n",
        "name: digits\nmodel:\n  path: noop\ndata:\n  src: rediss://ada@host:7000/3\nredis:\n  ca_file: certs/ca.pem\n",
        "name: '{a}'\nmodel:\n  path: noop\n"
        "data:\n  src: redis+cluster://one,two:7001\n  streams: '{a}_s'\nredis:\n  timeout_s: 1\n  username: bo\n",
        "model:\n  path: noop\ndata:\n  src: redis+sentinel://one:26379/mymaster/2\nredis:\n  password_file: secret\n",
        "modelPath: noop\njobName: birds\nredisUrl: host:7002\n",
        "model:\n  path: noop\n  name: birds\ndata:\n  src: host:7003\nredis:\n  timeout: 1500\n",
        "model:\n  path: noop\nparams:\n  batch_size: 4\n  poll_s: 2\ndata:\n  src: host:7004\n",
    ],
)
def test_it_looks_where_the_service_is(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text, encoding="utf-8")
    settings = load_settings(config)
    assert whereabouts(config, 60.0) == (settings.name, redis_at(settings))
    assert whereabouts(config, 0.5).at.timeout_s == 0.5


def test_what_it_takes_for_the_defaults_are_those_of_the_settings(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model:\n  path: noop\n", encoding="utf-8")
    settings = load_settings(config)
    assert (settings.name, settings.data.src, settings.redis.timeout_s) == (NAME, SRC, REDIS_TIMEOUT_S)


@pytest.mark.parametrize("data", ["[1]", "{src: 'host:nothing'}", "{src: 'ftp://host'}"])
def test_a_place_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {data}\n", encoding="utf-8")
    assert probe(config) == 2
    assert "config check" in capsys.readouterr().err


def test_ready_means_that_it_is_renewed(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"name: digits\ndata:\n  src: {at.host}:{at.port}\n", encoding="utf-8")
    announce(client, "digits", {"reports": 0}, Deployment("one"))
    assert probe(config) == 0
    retract(client, "digits", "one")
    assert probe(config) == 1
