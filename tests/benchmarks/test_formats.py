"""The comparison of model formats: what is written is one network, and a run measures all there is of each format."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from beam_serving.models.base import ModelOptions
from beam_serving.models.detect import find_model
from beam_serving.models.formats.registry import formats
from beam_serving.models.loading import load
from benchmarks import frameworks, writers
from benchmarks.__main__ import main
from benchmarks.formats import compared, formats_table
from benchmarks.mobilenet import Block, Convolution, Network
from benchmarks.writers import WRITERS, Writer
from tests.benchmarks.compare import quick_run


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(0, 0.2, shape).astype(np.float32)


def small_network() -> Network:
    """Every kind of layer that the network of the benchmark has, once; 4 channels, 1000 classes."""
    first = Convolution(random(4, 3, 3, 3), random(4), stride=2)
    wide = Convolution(random(8, 4, 1, 1), random(8))
    depthwise = Convolution(random(8, 1, 3, 3), random(8), groups=8)
    narrow = Convolution(random(4, 8, 1, 1), random(4), clipped=False)
    down = Convolution(random(4, 1, 3, 3), random(4), stride=2, groups=4)
    blocks = (Block((first,)), Block((wide, depthwise, narrow), residual=True), Block((down,)))
    return Network(blocks, random(4, 1000), random(1000))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one quick run of two formats wrote."""
    return quick_run(
        tmp_path_factory.mktemp("bench"), "--workload", "formats", "--formats", "caffe,bigdl", "--workers", "1"
    )


def test_a_run_measures_the_service_and_the_own_framework_of_each_format(outcome: dict[str, Any]) -> None:
    measured = outcome["formats"]["measured"]
    assert {form: list(about["targets"]) for form, about in measured.items()} == {
        "caffe": ["loop", "loops", "service", "auto", "native"],
        "bigdl": ["loop", "loops", "service", "auto"],
    }
    for about in measured.values():
        service = about["targets"]["service"]["records_per_s"]
        plain = about["targets"][about["baseline"]]["records_per_s"]
        assert service["ratio"] == pytest.approx(service["median"] / plain["median"])
    assert measured["caffe"]["gain"]["ratio"] > 0
    assert measured["bigdl"]["gain"] is None


def test_the_plot_of_formats_is_a_picture(outcome: dict[str, Any]) -> None:
    assert cv2.imdecode(np.frombuffer(outcome["plot"], np.uint8), cv2.IMREAD_COLOR) is not None


def test_every_format_that_is_served_is_compared() -> None:
    assert list(WRITERS) == [known.name for known in formats()]


def test_the_native_engine_of_a_format_is_one_of_its_engines() -> None:
    engines = {known.name: set(known.loaders) for known in formats()}
    assert all(not writer.engine or writer.engine in engines[form] for form, writer in WRITERS.items())


# Not in one process: torch.export and TensorFlow do not get along there.
_WRITE = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[3])))
from tests.benchmarks.test_formats import small_network
from benchmarks.writers import write
write(small_network(), sys.argv[1], Path(sys.argv[2]))
"""


@pytest.mark.parametrize("form", ["onnx", "tflite", "torch_export", "caffe", "bigdl"])
def test_each_format_holds_the_same_network(form: str, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in {form, "openvino"}}
    for name, folder in folders.items():
        folder.mkdir()
        command = [sys.executable, "-W", "ignore", "-c", _WRITE, name, str(folder), str(Path(__file__).parents[2])]
        subprocess.run(command, check=True, capture_output=True)
    image = np.random.default_rng(0).uniform(-1, 1, (2, 224, 224, 3)).astype(np.float32)
    given = image if form in frameworks.CHANNELS_LAST else np.ascontiguousarray(image.transpose(0, 3, 1, 2))
    options = ModelOptions(threads=1, input_shape=(3, 224, 224) if form == "bigdl" else None)
    model = load(find_model(folders[form]), options)
    (scores,) = model.predict({model.inputs[0].name: given}).values()
    expected = frameworks.openvino(str(folders["openvino"]), 1)(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
    assert scores == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("form", ["onnx", "caffe", "torchscript"])
def test_the_plain_loop_of_a_framework_gives_what_our_engine_gives(form: str, tmp_path: Path) -> None:
    writers.write(small_network(), form, tmp_path)
    image = np.random.default_rng(0).uniform(-1, 1, (2, 3, 224, 224)).astype(np.float32)
    model = load(find_model(tmp_path), ModelOptions(threads=1))
    (scores,) = model.predict({model.inputs[0].name: image}).values()
    assert frameworks.NETWORKS[form](str(tmp_path), 1)(image) == pytest.approx(scores, abs=1e-5)


def test_the_ratio_is_to_the_faster_of_the_plain_loops() -> None:
    speeds = {"loop": [100.0], "loops": [120.0], "service": [180.0], "auto": [90.0], "native": [30.0]}
    about = compared({name: {"records_per_s": values} for name, values in speeds.items()})
    assert about["baseline"] == "loops"
    assert about["targets"]["service"]["records_per_s"]["ratio"] == 1.5
    assert about["gain"]["ratio"] == 3.0


def test_the_table_lists_what_is_not_installed_with_the_command_that_installs_it() -> None:
    speeds = {"loop": [100.0], "loops": [120.0], "service": [180.0], "auto": [90.0]}
    about = {"framework": "OpenVINO", **compared({name: {"records_per_s": value} for name, value in speeds.items()})}
    shown = formats_table({"measured": {"openvino": about}, "not_installed": {"torchscript": "pip install torch"}})
    rows = [line.split() for line in shown.splitlines()]
    assert rows[1] == ["openvino", "OpenVINO", "100", "120", "180", "1.50", "90", "-", "-"]
    assert shown.splitlines()[2] == "torchscript: not installed; pip install torch"


def test_a_format_whose_framework_is_missing_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = Writer("absent:write", "Absent", "", ("no_such_framework",), "pip install no_such_framework")
    monkeypatch.setitem(WRITERS, "onnx", missing)
    assert main(["--quick", "--workload", "formats", "--formats", "onnx"]) == 0
    assert "onnx: not installed; pip install no_such_framework\n" in capsys.readouterr().out


def test_an_unknown_format_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--formats", "onnx,mxnet"]) == 2
    assert (
        "Invalid value for '--formats': has no format 'mxnet', wanted are some of openvino, onnx,"
        in capsys.readouterr().err
    )
