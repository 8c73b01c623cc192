"""The operator's own functions before and behind the model: those of docs/pipelines.md, and what goes wrong in one."""

import re
import subprocess
import sys
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
from beam_serving.io.sink import commit_arguments
from beam_serving.launch.preflight import preflight
from beam_serving.models.base import STRING
from beam_serving.protocol.replies import decode_reply
from beam_serving.records import Answer, Failure, Image, Origins, Payload, Predictions, ProtocolVersion, Result
from beam_serving.transforms.own_steps import own_postprocess, own_preprocess
from beam_serving.transport.connection import RedisAt
from tests.service import USUAL
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
    about["data"] |= {"src": str(at), "streams": USUAL}
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
        (
            "return {'x': object()}",
            "request 'a': the service's own step 'step' failed: input 'x' is of type object, for NumPy of type object; "
            "wanted are numbers or texts, arrays or lists of these",
        ),
        (
            "return None",
            "request 'a': the service's own step 'step' failed: what it returned is of type NoneType, for NumPy of "
            "type object; wanted are numbers or texts, arrays or lists of these",
        ),
        (
            "return {}",
            "request 'a': the service's own step 'step' failed: it returned no input, its dict is empty; wanted is at "
            "least one",
        ),
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


NO_ARRAY = "; wanted are numbers or texts, arrays or lists of these"


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("{}", "it returned no output, its dict is empty; wanted is at least one"),
        ("None", f"what it returned is of type NoneType, for NumPy of type object{NO_ARRAY}"),
        ("{'y': None}", f"output 'y' is of type NoneType, for NumPy of type object{NO_ARRAY}"),
        ("{'y': [1.0, None]}", f"output 'y' is of type list, for NumPy of type object{NO_ARRAY}"),
        ("{'y': ['a', None]}", f"output 'y' is of type list, for NumPy of type object{NO_ARRAY}"),
        ("{'y': np.array([object()])}", f"output 'y' is of type ndarray, for NumPy of type object{NO_ARRAY}"),
        ("{'y': {'z': 1}}", f"output 'y' is of type dict, for NumPy of type object{NO_ARRAY}"),
        ("{'y': {1, 2}}", f"output 'y' is of type set, for NumPy of type object{NO_ARRAY}"),
        ("{'y': 1 << 70}", f"output 'y' is of type int, for NumPy of type object{NO_ARRAY}"),
        ("{'y': 1j}", f"output 'y' is of type complex, for NumPy of type complex128{NO_ARRAY}"),
        ("np.datetime64('2026-01-01')", f"what it returned is of type datetime64{NO_ARRAY}"),
        (
            "{'y': [[1], [2, 3]]}",
            "output 'y' is a list of lists that differ in length or depth; wanted are alike ones",
        ),
        (
            "{'y': np.ma.masked_array([1, 2], [0, 1])}",
            "output 'y' is a masked array, whose mask cannot be sent; choose the values with .filled(...)",
        ),
        ("{1: 2.0}", "the name of an output is of type int, wanted is str"),
        ("{None: 2.0}", "the name of an output is of type NoneType, wanted is str"),
        ("{'a': 1.0, b'b': 2.0}", "the name of an output is of type bytes, wanted is str"),
        (
            "{'\\ud800': 2.0}",
            r"the name '\ud800' of an output has half of a surrogate pair, which is no text",
        ),
        (
            "{'y': np.broadcast_to(0.0, (1 << 27,))}",
            "output 'y' is 1073741824 bytes, at most 536870912 fit into Redis",
        ),
    ],
)
def test_what_no_result_can_hold_is_an_error_that_says_so(
    tmp_path: Path, returned: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    step = own_postprocess(code(tmp_path, f"return {returned}"))
    origins = Origins(b"s", b"me", ProtocolVersion.NATIVE, [b"1-1"], [b"a"], [b""])
    ((_, outcome),) = step(Predictions(origins, {"y": np.array([1.0])}))
    assert outcome == Failure(f"the service's own step 'step' failed: {told}")
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    "returned",
    [
        "float('nan')",
        "{'y': float('inf'), '': np.float16(1)}",
        "{'y': []}",
        "{'y': np.zeros((0, 3))}",
        "''",
        "[[True], [False]]",
        "np.longdouble(2)",
        "{'a' * 5000: np.arange(64.0).reshape([1] * 58 + [2] * 6)}",
        "b'\\xff'",
        "'\\ud800'",
        "{'y': np.zeros(0, dtype='U1')}",
        "[1.0, 'text']",
    ],
)
@pytest.mark.parametrize("version", ProtocolVersion)
@pytest.mark.parametrize("as_lists", [False, True])
def test_whatever_else_a_function_returns_a_client_can_read_it_or_why_not(
    tmp_path: Path, returned: str, version: ProtocolVersion, as_lists: bool
) -> None:
    step = own_postprocess(code(tmp_path, f"return {returned}"))
    origins = Origins(b"s", b"me", version, [b"1-1"], [b"a"], [b""])
    ((origin, outcome),) = step(Predictions(origins, {"y": np.array([1.0])}))
    assert isinstance(outcome, Answer)
    fields = written_fields(Result(origin, outcome._replace(as_lists=as_lists)))
    if b"error" in fields:
        assert re.search(b"cannot be sent|is text, which the results of", fields[b"error"])
    else:
        decode_reply(fields)


def written_fields(result: Result) -> dict[bytes, bytes]:
    """Gives what the commit of a result writes, by the arguments of its script."""
    head = len(commit_arguments([Result(result.origin._replace(uri=b""), Failure(""))], "", 0)[1]) - 3
    _, arguments = commit_arguments([result], "serving", 0)
    parts = [part for part in arguments[head + 3 :] if isinstance(part, bytes)]
    assert len(parts) == arguments[head + 1]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_a_record_without_an_output_is_answered_with_an_error_whoever_asks(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    path = configured(tmp_path, at)
    (tmp_path / "steps.py").write_text(
        "def celsius(inputs):\n    return inputs\n\ndef verdict(outputs):\n    return {}\n", encoding="utf-8"
    )
    tensor = {"tensor:x": np.ones(1, np.float32).tobytes(), "dtype:x": "float32", "shape:x": "1"}
    client.xadd("serving_stream", {"uri": "without id", **tensor})  # type: ignore[dict-item]
    with InputQueue(str(at)) as queue, OutputQueue(str(at)) as results:
        queue.enqueue("ours", fahrenheit=[1.0])
        done = subprocess.run(
            [sys.executable, "-m", "beam_serving", "--config", str(path), "--drain", "--workers", "1"], check=False
        )
        assert done.returncode == 0
        for uri in ("ours", "without id"):
            with pytest.raises(ResultError, match=r"own step 'verdict' failed: it returned no output"):
                results.query(uri, timeout_s=5)
    assert client.xlen("serving_stream") == 0


@pytest.mark.parametrize("section", ["data", "params"])
def test_a_name_that_leads_nowhere_is_told_before_anything_runs(at: RedisAt, tmp_path: Path, section: str) -> None:
    path = configured(tmp_path, at)
    about = yaml.safe_load(path.read_text(encoding="utf-8"))
    about[section][{"data": "preprocess", "params": "post_processing"}[section]] = "steps.py:nothing"
    path.write_text(yaml.safe_dump(about), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"steps\.py defines no 'nothing'; it has Mapping, celsius, "):
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
