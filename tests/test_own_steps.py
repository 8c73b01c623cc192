"""The operator's own functions before and behind the model: those of docs/pipelines.md, and what goes wrong in one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import yaml

from beam_serving.cli.main import main
from beam_serving.client import InputQueue, OutputQueue, ResultError
from beam_serving.config.own_code import OwnCode
from beam_serving.config.schema import load_settings
from beam_serving.errors import ConfigError, RequestError
from beam_serving.launch.preflight import preflight
from beam_serving.models.base import STRING
from beam_serving.records import Answer, Failure, Image, Origins, Payload, Predictions, ProtocolVersion, Result
from beam_serving.transforms.own_steps import own_postprocess, own_preprocess
from beam_serving.transport.connection import RedisAt
from tests.test_own_pipeline import blocks

PNG = Path(__file__).parents[1] / "beam_serving/demo/images/digit_2.png"


def code(folder: Path, body: str, name: str = "step") -> OwnCode:
    place = folder / f"own_{folder.name}.py"
    place.write_text(f"import numpy as np\n\n\ndef step(given):\n    {body}\n", encoding="utf-8")
    return OwnCode("data: preprocess", str(place), name)


def configured(folder: Path, at: RedisAt, **more: Any) -> Path:
    (steps,) = blocks("def celsius")
    (folder / "steps.py").write_text(steps, encoding="utf-8")
    (config,) = blocks("steps.py:celsius")
    about = yaml.safe_load(config)
    about["data"]["src"] = str(at)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"name": "steps", **about, **more}), encoding="utf-8")
    return path


@pytest.mark.parametrize("runner", ["DirectRunner", "FlinkRunner", "SparkRunner"])
def test_the_functions_of_the_page_serve_on_each_runner(
    at: RedisAt, client: redis.Redis, tmp_path: Path, runner: str
) -> None:
    path = configured(tmp_path, at)
    with InputQueue(str(at)) as queue, OutputQueue(str(at)) as results:
        queue.enqueue("ill", fahrenheit=[102.2])
        queue.enqueue("well", fahrenheit=[98.6])
        queue.enqueue("broken", fahrenheit=[float("nan")])
        queue.enqueue("unknown", kelvin=[300.0])
        assert main(["serve", "--config", str(path), "--runner", runner, "--drain", "--workers", "1"]) == 0
        ill, well = (results.query(uri, timeout_s=5) for uri in ("ill", "well"))
        assert (round(float(ill["degrees"]), 3), str(ill["says"])) == (39.0, "fever")
        assert (round(float(well["degrees"]), 3), str(well["says"])) == (37.0, "well")
        with pytest.raises(ResultError, match=r"the thermometer is broken$"):
            results.query("broken", timeout_s=5)
        with pytest.raises(ResultError, match=r"^request 'unknown': the service's own step 'celsius' failed$"):
            results.query("unknown", timeout_s=5)
    assert client.xlen("serving_stream") == 0


def test_a_function_before_the_model_sees_files_arrays_and_texts_and_returns_any_of_them(tmp_path: Path) -> None:
    step = own_preprocess(code(tmp_path, "return {name: value for name, value in given.items()}"))
    inputs = {"photo": Image(PNG.read_bytes()), "x": np.arange(3), "text": np.array("hello", STRING)}
    payload = Payload(b"a", inputs, ProtocolVersion.NATIVE)
    returned = step(payload)
    assert returned.inputs["photo"] == inputs["photo"]
    assert returned.inputs["text"] == inputs["text"]
    assert returned._replace(inputs={}) == payload._replace(inputs={})
    np.testing.assert_array_equal(np.asarray(returned.inputs["x"]), np.arange(3))


def test_what_has_no_name_is_the_only_input(tmp_path: Path) -> None:
    step = own_preprocess(code(tmp_path, "return [1, 2]"))
    (name, value), *rest = step(Payload(b"a", {}, ProtocolVersion.NATIVE)).inputs.items()
    assert (name, list(np.asarray(value)), rest) == ("", [1, 2], [])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ValueError('too cold')", "request 'a': too cold"),
        ("raise KeyError('/etc/secret')", "request 'a': the service's own step 'step' failed"),
        ("return {'x': object()}", "request 'a': the service's own step 'step' failed"),
        ("return None", "request 'a': the service's own step 'step' failed"),
        ("return {}", "request 'a': the service's own step 'step' failed"),
        ("raise SystemExit(1)", "request 'a': the service's own step 'step' failed"),
        ("raise ValueError('a\\x1b[2Jb')", r"request 'a': a\x1b[2Jb"),
    ],
)
def test_what_a_function_raises_ends_one_request_and_tells_no_internals(
    tmp_path: Path, body: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    step = own_preprocess(code(tmp_path, body))
    with pytest.raises(RequestError) as caught:
        step(Payload(b"a", {}, ProtocolVersion.NATIVE))
    assert str(caught.value) == told
    assert ("Traceback" in caplog.text) == ("failed" in told)


def test_a_function_behind_the_model_fails_for_its_record_alone(tmp_path: Path) -> None:
    step = own_postprocess(
        code(tmp_path, "if given['y'][0] > 1: raise ValueError('no')\n    return float(given['y'][0]), 'text'")
    )
    origins = Origins(b"s", b"me", ProtocolVersion.NATIVE, [b"1-1", b"1-2"], [b"a", b"b"], [b"", b""])
    results = step(Predictions(origins, {"y": np.array([[1.0], [2.0]])}))
    assert isinstance(results, list)
    good, bad = results
    assert isinstance(good, Result)
    assert isinstance(good.outcome, Answer)
    assert [str(one) for one in np.asarray(good.outcome.outputs["output"])] == ["1.0", "text"]
    assert (bad.origin.uri, bad.outcome) == (b"b", Failure("no"))


@pytest.mark.parametrize("section", ["data", "params"])
def test_a_name_that_leads_nowhere_is_told_before_anything_runs(at: RedisAt, tmp_path: Path, section: str) -> None:
    path = configured(tmp_path, at)
    about = yaml.safe_load(path.read_text(encoding="utf-8"))
    about[section][{"data": "preprocess", "params": "post_processing"}[section]] = "steps.py:nothing"
    path.write_text(yaml.safe_dump(about), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"steps\.py defines no 'nothing'; it has celsius, "):
        preflight(load_settings(path))


def test_paths_of_functions_move_with_a_migrated_configuration(
    at: RedisAt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = configured(tmp_path, at, flink={"rest": "host:8081"})
    (tmp_path / "new").mkdir()
    target = tmp_path / "new" / "config.yaml"
    assert main(["config", "migrate", str(path), "-o", str(target)]) == 0, capsys.readouterr().err
    old, new = load_settings(path), load_settings(target)
    assert Path(str(new.data.preprocess)).resolve() == Path(str(old.data.preprocess)).resolve()
    about = yaml.safe_load(path.read_text(encoding="utf-8"))
    about["params"]["post_processing"] = "topN(3)"
    path.write_text(yaml.safe_dump(about), encoding="utf-8")
    assert main(["config", "migrate", str(path), "-o", str(target), "--force"]) == 0
    assert load_settings(target).params.post_processing == "topN(3)"


def test_an_image_that_takes_long_is_preprocessed_once(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    """Though it is decoded in another thread, beside what was read with it."""
    from tests.hostile import files

    calls = tmp_path / "calls"
    body = f"open({str(calls)!r}, 'a').write('x')\n    return {{'x': np.zeros(2, np.float32)}}"
    own = code(tmp_path, body)
    path = configured(tmp_path, at)
    about = yaml.safe_load(path.read_text(encoding="utf-8"))
    about["data"]["preprocess"], about["params"]["post_processing"] = f"{own.place}:step", "none"
    path.write_text(yaml.safe_dump(about), encoding="utf-8")
    with InputQueue(str(at)) as queue, OutputQueue(str(at)) as results:
        queue.enqueue_image("large", files.png(3000, 3000))
        assert main(["serve", "--config", str(path), "--drain", "--workers", "1"]) == 0
        assert results.query("large", timeout_s=5) == [0.0]
    assert calls.read_text() == "x"
