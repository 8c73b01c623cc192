"""`model inspect` and `model verify` as a user runs them: the real command line."""

import json
import re
import shutil
from pathlib import Path

import pytest

from beam_serving.cli.main import main
from beam_serving.config.values import SHAPES_WANTED
from beam_serving.models.trial.verdicts import KEPT
from tests.models.conftest import DIGITS


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(["model", *arguments])
    except SystemExit as err:
        code = int(err.code or 0)
    output = capsys.readouterr()
    return code, output.out, output.err


def test_a_table_says_what_a_model_is(capsys: pytest.CaptureFixture[str]) -> None:
    directory = DIGITS / "onnx"

    code, out, err = run(capsys, "inspect", str(directory))

    lines = {line[:12].strip(): line[12:] for line in out.splitlines() if not line.startswith(("batch of", "load"))}
    assert (code, err) == (0, "")
    same = lines.pop("compared")
    assert re.fullmatch(r"equal to onnxruntime, largest difference \d\.\de-\d\d of the largest value", same)
    assert lines == {
        "directory": str(directory),
        "format": "onnx (an ONNX model)",
        "engine": "openvino",
        "files": "model.onnx (103,610 bytes)",
        "size": "103,610 bytes",
        "input": "input  float32[?, 3, 32, 32]",
        "output": "prob  float32[?, 10]",
        "batch axis": "any number of records along axis 0",
        "NaN, inf": "refused: this engine computes them otherwise",
        "tried with": "no network, no writes",
    }
    titles = [line[:12].strip() for line in out.splitlines()]
    assert titles[5:] == [
        "load time",
        "input",
        "output",
        "batch axis",
        "compared",
        "NaN, inf",
        "tried with",
        "batch of 1",
        "batch of 8",
    ]


def test_programs_get_json(capsys: pytest.CaptureFixture[str]) -> None:
    directory = DIGITS / "bigdl_split"

    code, out, _ = run(capsys, "inspect", str(directory), "--json", "--shape", "3,32,32")

    about = json.loads(out)
    assert code == 0
    assert about["files"] == {"model.model": 4219, "model.bin": 103_708}
    assert about["size_bytes"] == 4219 + 103_708
    assert about["inputs"] == [
        {"name": "input", "dtype": "float32", "shape": [None, 3, 32, 32], "text": "float32[?, 3, 32, 32]"}
    ]
    assert [one["batch_size"] for one in about["trial"]] == [1, 8]
    assert all(one["median_ms"] > 0 for one in about["trial"])


def test_a_saved_model_is_all_of_its_directory(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "inspect", str(DIGITS / "tf_saved_model"), "--json")

    assert sorted(json.loads(out)["files"]) == [
        "fingerprint.pb",
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    ]


def test_the_noop_model_can_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", "noop")

    assert code == 0
    assert "input       any  as it comes" in out.splitlines()


def test_what_cannot_be_served_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "inspect", str(tmp_path))
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {tmp_path}: is empty; wanted is one model: ")
    assert err.count("\n") == 1

    code, _, err = run(capsys, "inspect", str(DIGITS / "bigdl"))
    assert code == 2
    assert "does not say its input shape" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "text", "wanted"),
    [
        ("--shape", "3,x", SHAPES_WANTED),
        ("--shape", "3x0", SHAPES_WANTED),
        ("--shape", "[[3,8],", "no YAML"),
        ("--shape", "2026-13-45", "no YAML"),
        ("--batch-axis", "9" * 5000, "no YAML"),
        ("--sample", "[[3, 0]]", SHAPES_WANTED),
        ("--batch-axis", "first", "wants auto, none or the number of an axis, from 0"),
        ("--constants", "5", "wants values by input name, such as {keep_prob: 1.0, sr: 16000}"),
    ],
)
def test_a_wrong_value_says_what_is_wanted(
    capsys: pytest.CaptureFixture[str], flag: str, text: str, wanted: str
) -> None:
    code, _, err = run(capsys, "inspect", "noop", flag, text)
    assert code == 2
    got = "3,0" if text == "3x0" else text
    said = f"Invalid value for {flag!r}: {wanted}, got {got!r}"
    assert err == f"error: {said}; beam-serving model inspect --help has examples\n"


def test_shapes_are_written_as_people_write_them(capsys: pytest.CaptureFixture[str]) -> None:
    for shape in ("3,32,32", "3x32x32", "[3, 32, 32]", "{input: [3, 32, 32]}"):
        code, out, _ = run(capsys, "verify", str(DIGITS / "onnx"), "--json", "--shape", shape)
        assert code == 0
        assert json.loads(out)["engine"] == "openvino"


def test_a_verdict_is_shown_and_kept_beside_the_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(DIGITS / "onnx", directory)

    code, out, _ = run(capsys, "verify", str(directory), "--keep", "--json")

    about = json.loads(out)
    assert code == 0
    assert (about["engine"], about["compared_with"], about["notes"]) == ("openvino", "onnxruntime", [])
    assert 0 < about["difference"] < 1e-5
    assert about["kept"] == str(directory / KEPT)
    assert len(json.loads((directory / KEPT).read_text(encoding="utf-8"))) == 1


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["inspect", "--help"], ["verify", "--help"]):
        code, out, _ = run(capsys, *arguments)
        assert code == 0
        assert f"python -m beam_serving model {arguments[0] if len(arguments) > 1 else 'inspect'} my_model/" in out


def test_what_was_asked_for_and_never_compared_is_shown_as_that(capsys: pytest.CaptureFixture[str]) -> None:
    compared = {}
    for engine in ("openvino", "onnxruntime"):
        _, out, _ = run(capsys, "inspect", str(DIGITS / "onnx"), "--engine", engine)
        (compared[engine],) = (line.split(maxsplit=1)[1] for line in out.splitlines() if line.startswith("compared"))

    assert compared == {
        "openvino": "with nothing, though its own framework is onnxruntime",
        "onnxruntime": "with nothing: it runs in its own framework",
    }
