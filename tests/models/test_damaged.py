"""Damaged files must be refused and never end the process: each case runs in a child, which says how it went."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LOAD_EACH = """
import sys
from beam_serving.errors import ModelLoadError
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load
for directory in sys.argv[1:]:
    try:
        load(find_model(directory))
        print("loaded")
    except ModelLoadError as err:
        assert str(err).startswith(directory), err
        print("refused")
"""

FILES = [
    ("openvino", "model.xml", [0, 1, 100, 1000, 5000, 10_000]),
    ("openvino", "model.bin", [0, 1, 1000, 50_000, 102_327]),
    ("tf_frozen", "frozen_graph.pb", [0, 1, 100, 1000, 50_000, 112_241]),
    ("torchscript", "model.pt", [0, 1, 100, 1000, 50_000, 116_026]),
    ("caffe", "graph.prototxt", [0, 1, 100, 700, 1390]),
    ("caffe", "weight.caffemodel", [0, 1, 100, 50_000, 103_688]),
]


def outcomes(directories: list[Path]) -> list[str]:
    command = [sys.executable, "-c", LOAD_EACH, *map(str, directories)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def damaged(directory: Path, copy: Path, file: str, content: bytes) -> Path:
    shutil.copytree(directory, copy)
    (copy / file).write_bytes(content)
    return copy


@pytest.mark.parametrize(("name", "file", "sizes"), FILES, ids=[one[1] for one in FILES])
def test_an_incomplete_file_is_refused(digits: Path, tmp_path: Path, name: str, file: str, sizes: list[int]) -> None:
    whole = (digits / name / file).read_bytes()

    directories = [damaged(digits / name, tmp_path / str(size), file, whole[:size]) for size in sizes]

    assert outcomes(directories) == ["refused"] * len(sizes)


def test_something_else_under_the_name_of_a_model_is_refused(digits: Path, tmp_path: Path) -> None:
    other = bytes(range(1, 256)) * 20

    directories = [damaged(digits / name, tmp_path / file, file, other) for name, file, _ in FILES]

    # Weights of OpenVINO are plain numbers: any file that is long enough is one.
    assert outcomes(directories) == ["refused"] * len(FILES)
