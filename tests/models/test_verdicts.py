"""Verdicts are found in a process of its own, once for each content and its options."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from beam_serving.cli.commands import model as command
from beam_serving.errors import ModelLoadError
from beam_serving.models.base import ModelOptions
from beam_serving.models.batches import predict_batch
from beam_serving.models.detect import find_model
from beam_serving.models.opening import OpenedModel, open_model
from beam_serving.models.trial import verdicts
from beam_serving.models.trial.probing import Verdict
from tests.models.onnx_files import FLOAT, STRING, node, saved


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The engines that each trial was told to leave out: one list for each process that was started."""
    started: list[list[str]] = []
    ended = verdicts._completed

    def counted(command: list[str], given: bytes) -> Any:
        job = json.loads(given)
        if not job["verdict"]:
            started.append(job["without"])
        return ended(command, given)

    monkeypatch.setattr(verdicts, "_completed", counted)
    return started


def scaled(directory: Path, by: float) -> Path:
    tensor = ("batch", 2)
    return saved(directory, [node("Mul", "x w", "y")], [("x", FLOAT, tensor)], [("y", FLOAT, tensor)], {"w": by})


def opened(directory: Path, **options: Any) -> OpenedModel:
    found = open_model(directory, ModelOptions(**options))
    assert found.copy is not None
    found.copy.close()
    return found


def served(found: OpenedModel, *values: float) -> list[float]:
    output = predict_batch(found.model, [{"x": np.full(2, value, np.float32)} for value in values])["y"]
    return [float(row[0]) for row in output]


def test_a_verdict_is_remembered_by_content_and_options(tmp_path: Path, trials: list[list[str]]) -> None:
    assert served(opened(scaled(tmp_path / "a", 2.5)), 1, 2) == [2.5, 5]
    assert served(opened(tmp_path / "a"), 1) == [2.5]
    assert served(opened(scaled(tmp_path / "b", 2.5), threads=2, full_batch=8), 3) == [7.5]
    assert len(trials) == 1

    assert opened(tmp_path / "a", batch_axis="none").model.one_by_one
    assert len(trials) == 2

    scaled(tmp_path / "a", 3.5)
    assert served(opened(tmp_path / "a"), 1) == [3.5]
    assert len(trials) == 3


def test_an_engine_that_ends_its_process_twice_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: list[list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    tensor = ("batch", 2)
    directory = saved(tmp_path, [node("Identity", "x", "y")], [("x", STRING, tensor)], [("y", STRING, tensor)])
    counted = verdicts._completed

    def crashing(command: list[str], given: bytes) -> Any:
        job = json.loads(given)
        if "openvino" not in job["without"]:
            # With this engine given, the trial really compiles the text model, which ends its process.
            job["options"]["engine"] = "openvino"
        return counted(command, json.dumps(job).encode())

    monkeypatch.setattr(verdicts, "_completed", crashing)

    with caplog.at_level("INFO"):
        found = opened(directory)

    assert found.model.engine == "onnxruntime"
    assert trials == [[], [], ["openvino"]]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2
    assert all(re.search("engine openvino ended its process.*(SIGABRT|SIGSEGV)", one) for one in told)
    opened(directory)
    assert len(trials) == 3


def test_a_refusal_after_a_crash_tells_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [({"engine": "onnxruntime"}, -11), ({"engine": "onnxruntime"}, -11), ({"refusal": "m: no"}, 0)]

    def answered(command: list[str], _: bytes) -> tuple[int, str]:
        answer, code = answers.pop(0)
        Path(command[-1]).write_text(json.dumps(answer))
        return code, ""

    monkeypatch.setattr(verdicts, "_completed", answered)

    with pytest.raises(ModelLoadError, match=r"m: no; engine onnxruntime ended its process.*SIGSEGV"):
        open_model(scaled(tmp_path, 7.25), ModelOptions())


def test_an_error_that_nobody_expected_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(command: list[str], _: bytes) -> tuple[int, str]:
        Path(command[-1]).write_text('{"engine": "onnxruntime"}')
        return 1, "Traceback ...\nKeyError: 'x'\n"

    monkeypatch.setattr(verdicts, "_completed", failed)

    with pytest.raises(ModelLoadError, match=r"engine onnxruntime .*KeyError: 'x'"):
        open_model(scaled(tmp_path, 7.75), ModelOptions(engine="onnxruntime"))


def test_a_kept_verdict_is_used_on_any_processor_without_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: list[list[str]]
) -> None:
    directory = scaled(tmp_path / "model", 4.5)
    about = command.verify_model(directory, ModelOptions(), keep=True)
    assert about["kept"] == str(directory / verdicts.KEPT)
    assert len(trials) == 1

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    monkeypatch.setattr(verdicts, "_processor", lambda: "another processor")

    found = opened(directory)

    assert served(found, 1, 2) == [4.5, 9]
    assert found.verdict is not None
    assert found.verdict.compared_with == "onnxruntime"
    assert len(trials) == 1
    opened(directory, output_names=("y",))
    assert len(trials) == 2


def test_a_kept_verdict_of_other_content_or_no_verdict_is_none(tmp_path: Path, trials: list[list[str]]) -> None:
    directory = scaled(tmp_path, 5.5)
    for text in ('{"key": {"engine": "x"}}', "[]", "{", ""):
        (directory / verdicts.KEPT).write_text(text)
        assert served(opened(directory), 1) == [5.5]
    assert len(trials) == 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", ["pipe", "device", "large", "folder"])
def test_what_is_no_file_beside_a_model_is_no_verdict(tmp_path: Path, what: str, trials: list[list[str]]) -> None:
    directory = scaled(tmp_path, 5.5)
    kept = directory / verdicts.KEPT
    if what == "pipe":
        os.mkfifo(kept)
    elif what == "device":
        kept.symlink_to("/dev/zero")
    elif what == "folder":
        kept.mkdir()
    else:
        kept.write_text("[" + "1," * (16 << 20))
    assert served(opened(directory), 1) == [5.5]


def test_a_note_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = scaled(tmp_path, 5.5)
    assert command.main(["verify", "--keep", str(directory)]) == 0
    kept = directory / verdicts.KEPT
    ((key, verdict),) = json.loads(kept.read_text()).items()
    kept.write_text(json.dumps({key: {**verdict, "notes": ["x\n\nengine      torch"]}}))
    shutil.rmtree(verdicts.cache_folder() / "verdicts")
    capsys.readouterr()
    assert command.main(["inspect", str(directory)]) == 0
    assert "note        x\\n\\nengine      torch\n" in capsys.readouterr().out


def test_another_processor_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: list[list[str]]
) -> None:
    opened(scaled(tmp_path, 6.5))
    monkeypatch.setattr(verdicts, "_processor", lambda: "another processor")
    opened(tmp_path)
    assert len(trials) == 2


def test_a_verdict_comes_back_from_json_as_it_was(tmp_path: Path) -> None:
    verdict = opened(scaled(tmp_path, 6.5)).verdict
    assert verdict is not None
    assert verdict.inputs
    assert Verdict.decode(json.loads(json.dumps(verdict.encode()))) == verdict


@pytest.mark.parametrize(
    "damage",
    [
        *(
            {"shapes": 5},
            {"shapes": [1]},
            {"engine": "none"},
            {"engine": None},
            {"inputs": [[7, "x"]]},
            {"outputs": []},
        ),
        *({"engine": "noop"}, {"engine": "auto"}, {"compared_with": 1}, {"difference": "1"}, {"difference": None}),
        *({"random": [1]}, {"state": [[]]}, {"notes": [None]}),
        *({"nan": "no"}, {"plan": 5}, {"inputs": [[0, 1]]}),
        *({"plan": {"kind": "x"}}, {"plan": {"axis": "a"}}, {"plan": {"axis": -1}}, {"plan": {"drops": [1]}}),
        *({"plan": {"size": 0.5}}, {"plan": {"proven": None}}, {"plan": {"more": 1}}, {"more": 1}),
    ],
)
def test_a_verdict_that_no_trial_gives_is_none(tmp_path: Path, damage: dict[str, Any]) -> None:
    """A file in the cache or beside a model may hold anything."""
    verdict = opened(scaled(tmp_path, 7.5)).verdict
    assert verdict is not None
    good = json.loads(json.dumps(verdict.encode()))
    assert verdicts._decoded(good) == verdict
    plan = damage.get("plan", {})
    changed = {**good, **damage, "plan": {**good["plan"], **plan} if isinstance(plan, dict) else plan}
    assert verdicts._decoded(changed) is None


def counting(directory: Path) -> Path:
    """Write a model that adds all that it was sent before."""
    x = ops.parameter([-1, 2], np.float32, name="x")
    total = ops.read_value(ops.constant(np.zeros((1, 2), np.float32)), "total")
    added = ops.add(x, total)
    model = ov.Model(
        [ops.result(added)], [ops.assign(ops.reduce_sum(added, ops.constant(np.array([0])), True), "total")], [x], "m"
    )
    ov.save_model(model, directory / "model.xml", compress_to_fp16=False)
    return directory


def test_state_does_not_cross_requests(tmp_path: Path) -> None:
    found = opened(counting(tmp_path))

    outputs = [predict_batch(found.model, [{found.model.inputs[0].name: np.full(2, 3, np.float32)}]) for _ in range(3)]

    assert [next(iter(output.values())).tolist() for output in outputs] == [[[3, 3]]] * 3
    assert found.verdict is not None
    assert found.verdict.state == ("Assign", "ReadValue")


def test_inspect_tells_of_random_operators(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensor = ("batch", 2)
    nodes = [node("RandomNormalLike", "x", "r"), node("Add", "x r", "y")]
    directory = saved(tmp_path, nodes, [("x", FLOAT, tensor)], [("y", FLOAT, tensor)])

    assert command.main(["inspect", str(directory)]) == 0

    shown = capsys.readouterr().out
    assert "random      RandomNormalLike" in shown
    assert "engine      onnxruntime" in shown


def test_a_trial_that_ends_before_an_engine_is_at_work_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where several engines could serve the format: the next one would not get further."""
    shutil.copytree(Path(__file__).parent / "fixtures/digits/caffe", tmp_path / "model")
    broken = [sys.executable, "-c", "import sys; sys.exit('no such module')"]
    monkeypatch.setattr(verdicts.sandbox, "command", lambda *_, **__: broken)
    with pytest.raises(ModelLoadError, match=r"its trial failed \(no such module\) before an engine was at work$"):
        verdicts.tried_apart(find_model(tmp_path / "model"), ModelOptions())
