"""Damaged files must be refused and never end the process: one child loads them all and says how each one went."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.conftest import DIGITS

LOAD_EACH = """
import sys
from beam_serving.errors import ModelLoadError
from beam_serving.models.base import ModelOptions
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load
for directory in sys.argv[1:]:
    shape = (3, 32, 32) if "bigdl" in directory else None
    try:
        load(find_model(directory), ModelOptions(input_shape=shape))
        print(directory, "loaded")
    except ModelLoadError as err:
        assert str(err).startswith(directory), err
        print(directory, "refused")
"""

FILES = [
    ("openvino", "model.xml", [0, 1, 100, 1000, 5000, 10_000]),
    ("openvino", "model.bin", [0, 1, 1000, 50_000, 102_327]),
    ("onnx", "model.onnx", [0, 1, 100, 1000, 50_000, 103_609]),
    ("tf_frozen", "frozen_graph.pb", [0, 1, 100, 1000, 50_000, 112_241]),
    ("tf_saved_model", "saved_model.pb", [0, 1, 100, 1000, 50_000]),
    ("tf_saved_model", "variables/variables.index", [0, 1, 100, 1645]),
    ("tflite", "model.tflite", [0, 1, 100, 1000, 50_000]),
    ("torchscript", "model.pt", [0, 1, 100, 1000, 50_000, 116_026]),
    ("caffe", "graph.prototxt", [0, 1, 100, 700, 1390]),
    ("caffe", "weight.caffemodel", [0, 1, 100, 50_000, 103_688]),
    ("bigdl", "model.model", [0, 1, 100, 50_000, 108_698]),
    ("bigdl_split", "model.bin", [0, 1, 100, 50_000, 103_707]),
]
OTHER = bytes(range(1, 256)) * 20


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What became of each file, cut off at its sizes and, last, with something else in it."""
    folder = tmp_path_factory.mktemp("damaged")
    directories: dict[str, list[Path]] = {}
    for name, file, sizes in FILES:
        whole = (DIGITS / name / file).read_bytes()
        for content in (*(whole[:size] for size in sizes), OTHER):
            directory = folder / f"{name}-{Path(file).name}-{len(content)}"
            shutil.copytree(DIGITS / name, directory)
            (directory / file).write_bytes(content)
            directories.setdefault(file, []).append(directory)
    command = [sys.executable, "-c", LOAD_EACH, *(str(path) for paths in directories.values() for path in paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines() if line.startswith(str(folder)))
    return {file: [said[str(path)] for path in paths] for file, paths in directories.items()}


@pytest.mark.parametrize("file", [file for _, file, _ in FILES])
def test_a_damaged_file_is_refused(outcomes: dict[str, list[str]], file: str) -> None:
    assert outcomes[file] == ["refused"] * len(outcomes[file])
