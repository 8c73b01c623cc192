"""`bench` measures a real service; no test looks at how fast it is, only at what is measured and said."""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import redis
import yaml

from beam_serving.cli.commands.bench.figures import figures, table
from beam_serving.cli.commands.bench.inputs import inputs_of_model
from beam_serving.cli.commands.bench.load import Load, Measured, Plan
from beam_serving.cli.commands.bench.machine import here_and_now, processor
from beam_serving.cli.commands.bench.plot import drawn, plot
from beam_serving.cli.main import main
from beam_serving.client import AsyncInputQueue, AsyncOutputQueue
from beam_serving.config.schema import Model, Settings
from beam_serving.errors import ConnectError
from beam_serving.launch.embedded_redis import embedded_redis
from beam_serving.records import Image
from beam_serving.telemetry.report import ready_key
from beam_serving.transport.connection import RedisAt
from tests.service import DIGITS, USUAL, service

IMAGES = sorted(map(str, (DIGITS / "images").glob("*.png")))
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def config(at: RedisAt, tmp_path: Path) -> Path:
    """The configuration of a service that serves digits, which is not running."""
    settings: dict[str, Any] = yaml.safe_load((DIGITS / "config.yaml").read_text(encoding="utf-8"))
    settings |= {"name": "tested", "model": {"path": str(DIGITS / "model")}}
    settings["data"] |= {"src": str(at), "streams": USUAL}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def measured(plan: Plan, latencies_ms: list[float], elapsed_s: float = 1.0, cpu_s: float = 0.1) -> Measured:
    return Measured(plan, [one / 1000 for one in latencies_ms], elapsed_s=elapsed_s, cpu_s=cpu_s)


def test_a_service_is_started_measured_with_its_own_inputs_and_stopped(
    config: Path, client: redis.Redis, capsys: Captured
) -> None:
    loads = ["--in-flight", "1", "--in-flight", "16", "--requests", "50"]
    assert main(["bench", "--config", str(config), *loads, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["started"] is True
    assert report["workers"] == 1
    assert report["inputs"] == "16 records of random values, data float32[3, 32, 32]"
    assert [one["in_flight"] for one in report["measurements"]] == [1, 16]
    for one in report["measurements"]:
        assert (one["requests"], one["errors"], one["first_error"], one["rate"]) == (50, 0, None, None)
        assert one["records_per_s"] == pytest.approx(50 / one["seconds"])
        times = one["latency_ms"]
        assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["max"]
        assert one["generator_cpu"] > 0
    assert client.get(ready_key("tested")) is None
    assert client.keys("*bench-*") == []
    assert client.xlen("serving_stream") == 0


def test_a_service_that_serves_is_measured_as_it_is_and_goes_on(
    at: RedisAt, client: redis.Redis, config: Path, tmp_path: Path, capsys: Captured
) -> None:
    told = ["bench", "--config", str(config), "--no-start"]
    np.savez(tmp_path / "tensors.npz", data=np.zeros((3, 32, 32), np.float32))
    np.save(tmp_path / "tensor.npy", np.ones((3, 32, 32), np.float32))
    (tmp_path / "text.jpg").write_text("no image", encoding="utf-8")
    tensors = [str(tmp_path / "tensors.npz"), str(tmp_path / "tensor.npy")]
    folder = tmp_path / "service"
    folder.mkdir()
    with service(at, folder, yaml.safe_load(config.read_text(encoding="utf-8"))):
        picture = tmp_path / "bench.png"
        loads = ["--in-flight", "4", "--requests", "40", "--plot", str(picture)]
        assert main([*told, *loads, "--input", *IMAGES, *tensors]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"tested: {DIGITS / 'model'}, 1 worker, Redis at {at}"
        assert lines[1] == f"inputs: {len(IMAGES) + 2} files, digit_0.png, ..."
        assert lines[3].replace(", ms", "").split() == ["records/s", "p50", "p90", "p99", "max", "requests", "errors"]
        assert lines[4].startswith("4 in flight")
        assert lines[4].split()[-2:] == ["40", "0"]
        assert cv2.imdecode(np.fromfile(picture, np.uint8), cv2.IMREAD_COLOR) is not None

        assert main([*told, "--rate", "50", "--requests", "25", "--json"]) == 0
        (at_rate,) = json.loads(capsys.readouterr().out)["measurements"]
        assert (at_rate["rate"], at_rate["in_flight"], at_rate["requests"]) == (50, None, 25)
        assert at_rate["seconds"] >= 24 / 50

        loads = ["--seconds", "0.3", "--in-flight", "2"]
        assert main([*told, *loads, "--input", IMAGES[0], str(tmp_path / "text.jpg")]) == 1
        said = capsys.readouterr().out.splitlines()
        good, bad = map(int, said[4].split()[-2:])
        assert good > bad > 0
        assert said[6].startswith("first error: this format is not supported: 8 bytes that start with b'no image'")

        assert main([*told, "--requests", "1", "--input", str(tmp_path / "text.jpg")]) == 1
        said_of_none = "error: none of 1 requests is served (this format is not supported: 8 bytes that start with"
        assert capsys.readouterr().err.startswith(said_of_none)
        assert client.get(ready_key("tested")) is not None
        assert client.keys("*bench-*") == []


async def test_a_redis_that_goes_ends_the_measurement_with_one_error() -> None:
    plan = Plan(in_flight=4, rate=None, requests=None, seconds=30.0, timeout_s=30.0)
    with embedded_redis() as port:
        async with AsyncInputQueue("127.0.0.1", port) as queue, AsyncOutputQueue("127.0.0.1", port) as results:
            measuring = asyncio.create_task(Load(queue, results, [{"": np.zeros(2, np.float32)}]).measure(plan, int))
            client = RedisAt("127.0.0.1", port).client()
            while not client.xlen("serving_stream"):
                await asyncio.sleep(0.01)
            client.shutdown(nosave=True)
            with pytest.raises(ConnectError):
                await measuring


async def test_a_request_without_a_result_has_failed_after_its_time(at: RedisAt) -> None:
    plan = Plan(in_flight=2, rate=None, requests=4, seconds=1.0, timeout_s=0.05)
    async with AsyncInputQueue(str(at)) as queue, AsyncOutputQueue(str(at)) as results:
        found = await Load(queue, results, [{"": np.zeros(2, np.float32)}]).measure(plan, int)
    assert found.failures == {"no result within 0.05 s": 4}
    assert found.latencies_s == []


def test_a_model_that_takes_anything_gets_a_tensor_and_one_that_is_not_here_an_image(tmp_path: Path) -> None:
    settings = Settings(model=Model(path="noop"))
    assert inputs_of_model(settings).title == "16 records of random values, float32[64]"
    sent = inputs_of_model(Settings(model=Model(path=str(tmp_path / "gone"))))
    assert sent.title.startswith("an image, digit_2.png: the model is not here (")
    assert isinstance(sent.requests[0][""], Image)


def test_what_does_not_run_is_not_started_against_the_operators_word(
    config: Path, at: RedisAt, capsys: Captured
) -> None:
    assert main(["bench", "--config", str(config), "--no-start"]) == 2
    assert capsys.readouterr().err == (
        f"error: no service 'tested' is ready at Redis {at}; start it, or leave out --no-start, and it is started "
        "for as long as it is measured\n"
    )


def test_a_service_without_redis_is_told_where_it_was_looked_for(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {path: noop}\ndata: {src: '127.0.0.1:1'}\n", encoding="utf-8")
    assert main(["bench", "--config", str(path)]) == 1
    assert "Redis at 127.0.0.1:1 cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rate", "5", "--in-flight", "2"], "--rate and --in-flight are two ways to load a service; leave one out"),
        (
            ["--requests", "5", "--seconds", "2"],
            "--requests and --seconds are two lengths of a measurement; leave one out",
        ),
        (["--in-flight", "0"], "Invalid value for '--in-flight': wants a number from 1 to 10000, got '0'"),
        (["--rate", "x"], "Invalid value for '--rate': wants requests each second, above 0 up to 100000, got 'x'"),
        (["--requests", "0"], "Invalid value for '--requests': wants a whole number from 1, got '0'"),
        (["--input", "nothing.jpg"], "--input nothing.jpg: there is no such file"),
        (["--plot", "no/such/bench.png"], "--plot no/such/bench.png: there is no folder no/such"),
    ],
)
def test_a_wrong_flag_is_refused_before_anything_starts(
    flags: list[str], said: str, config: Path, capsys: Captured
) -> None:
    assert main(["bench", "--config", str(config), *flags]) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.npy", b"no array", "holds no tensors that NumPy reads"),
        ("a.npz", b"PK\x03\x04", "holds no tensors that NumPy reads"),
        ("objects.npy", None, "holds Python objects, which are never loaded"),
        ("empty.npz", None, "holds no tensor, wanted is one for each input of the model"),
    ],
)
def test_a_file_without_tensors_is_refused(
    name: str, content: bytes | None, said: str, config: Path, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    elif path.suffix == ".npz":
        np.savez(path)
    else:
        np.save(path, np.array([{}]))
    assert main(["bench", "--config", str(config), "--input", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: --input {path}: {said}")


def test_a_plot_without_matplotlib_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "--plot", "bench.png"]) == 2
    expected = "error: --plot needs matplotlib; pip install 'beam-serving[bench]' brings it\n"
    assert capsys.readouterr().err == expected


def test_figures_are_those_of_good_results() -> None:
    plan = Plan(in_flight=2, rate=None, requests=None, seconds=1.0, timeout_s=1.0)
    of_run = measured(plan, [float(each) for each in range(1, 102)], elapsed_s=2.0, cpu_s=0.5)
    of_run.failures["no result within 1 s"] += 3
    found = figures(of_run)
    assert found["latency_ms"] == pytest.approx({"mean": 51.0, "p50": 51.0, "p90": 91.0, "p99": 100.0, "max": 101.0})
    assert (found["requests"], found["errors"], found["first_error"]) == (104, 3, "no result within 1 s")
    assert found["records_per_s"] == 50.5
    assert found["generator_cpu"] == 0.25


def test_a_run_without_a_result_has_dashes_and_a_busy_bench_is_told() -> None:
    plan = Plan(in_flight=1, rate=20.0, requests=None, seconds=1.0, timeout_s=1.0)
    report = {"name": "a", "model": "m", "workers": 2, "redis": "r", "inputs": "i"}
    said = table({**report, "measurements": [figures(measured(plan, [], cpu_s=0.97))]}).splitlines()
    assert said[0] == "a: m, 2 workers, Redis at r"
    assert said[4].split() == ["20", "each", "second", "0", "-", "-", "-", "-", "0", "0"]
    assert said[-1] == "the bench itself used 97% of a core: a faster service would not show"


def test_the_picture_has_a_curve_for_each_measurement_with_results_and_names_its_machine() -> None:
    good = Measured(Plan(8, None, 10, 1.0, 1.0), [0.001, 0.002], elapsed_s=1.0)
    none = Measured(Plan(64, None, 10, 1.0, 1.0), [], elapsed_s=1.0)
    figure = drawn("digits: model", here_and_now(), [good, none])
    assert figure is not None
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == ["8 in flight: 2 records/s"]
    title, machine = axis.get_title().split("\n")
    assert title == "digits: model"
    assert machine.startswith(f"{processor()}, ")
    assert re.search(r", \d+ cores?, \d{4}-\d\d-\d\d \d\d:\d\d UTC$", machine)


def test_there_is_no_empty_picture(tmp_path: Path) -> None:
    none = Measured(Plan(64, None, 10, 1.0, 1.0), [], elapsed_s=1.0)
    assert plot("title", "machine", [none], tmp_path / "none.png") is False
    assert not (tmp_path / "none.png").exists()
