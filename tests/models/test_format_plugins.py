"""A model format of another package: an entry point names its row, and it is served like ours."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PLUGIN = """
import numpy as np
from beam_serving.models.base import Facts, TensorSpec
from beam_serving.models.formats.registry import Format

FORMAT = Format("matrix", "a matrix of NumPy", (".npy",), {"numpy": "matrix_format:load"}, own="numpy")


class Matrix:
    engine = "numpy"
    facts = Facts()

    def __init__(self, path):
        self._matrix = np.load(path, allow_pickle=False)
        rows, columns = self._matrix.shape
        self.inputs = (TensorSpec("x", (None, rows), np.dtype(np.float32)),)
        self.outputs = (TensorSpec("y", (None, columns), np.dtype(np.float32)),)

    def infer(self, arrays):
        return [arrays[0] @ self._matrix]

    def freed(self):
        return None

    def compile(self):
        pass

    def settle(self):
        pass


def load(files, options):
    return Matrix(files.model)
"""
PROGRAM = """
import sys
import numpy as np
from beam_serving.models.opening import open_model
from beam_serving.models.base import ModelOptions

model, verdict, _ = open_model(sys.argv[1], ModelOptions())
print(model.engine, verdict.plan.kind, model.predict({"x": np.ones((3, 2), np.float32)})["y"].tolist())
"""


def installed(folder: Path, target: str = "matrix_format:FORMAT", plugin: str = PLUGIN) -> dict[str, str]:
    """Install the plug-in as pip would; return the environment that sees it."""
    information = folder / "matrix_format-1.dist-info"
    information.mkdir(parents=True)
    (folder / "matrix_format.py").write_text(plugin, encoding="utf-8")
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: matrix-format\nVersion: 1\n", encoding="utf-8")
    (information / "entry_points.txt").write_text(f"[beam_serving.formats]\nmatrix = {target}\n", encoding="utf-8")
    return {"PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}", "XDG_CACHE_HOME": str(folder / "cache")}


def run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_format_of_another_package_is_found_tried_and_served(tmp_path: Path) -> None:
    environment = installed(tmp_path / "packages")
    directory = tmp_path / "model"
    directory.mkdir()
    np.save(directory / "weights.npy", np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))

    ended = run(PROGRAM, str(directory), **environment)

    assert ended.stdout == "numpy rows [[4.0, 6.0], [4.0, 6.0], [4.0, 6.0]]\n", ended.stderr


NO_FORMAT = "wanted is a beam_serving.models.formats.registry.Format whose name no other has"


def inspected(environment: dict[str, str]) -> list[str]:
    """Give what the command line says to the operator where a plug-in is wrong."""
    ended = run("import beam_serving.cli.main as cli; cli.main(['model', 'inspect', 'x'])", **environment)
    return ended.stderr.splitlines()


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("matrix_format:MISSING", "cannot be imported: AttributeError: module 'matrix_format' has no attribute"),
        ("no_such_module:FORMAT", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("matrix_format:load", NO_FORMAT),
    ],
)
def test_a_format_that_is_none_is_told_to_the_operator(tmp_path: Path, target: str, reason: str) -> None:
    (line,) = inspected(installed(tmp_path, target))

    assert f"the model format 'matrix' ({target}) of the package matrix-format " in line
    assert reason in line


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        ("FORMAT = (", "cannot be imported: SyntaxError: '(' was never closed (matrix_format.py, line 1)"),
        ("raise RuntimeError('no\\nlicence')", r"cannot be imported: RuntimeError: no\nlicence"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("class FORMAT:\n    pass", f"is <class 'matrix_format.FORMAT'>; {NO_FORMAT}"),
        ("FORMAT = 'a\\nb'", f"is 'a\\nb'; {NO_FORMAT}"),
        (
            "class Odd:\n    def __repr__(self): raise RuntimeError('no text')\nFORMAT = Odd()",
            f"is an object of type Odd; {NO_FORMAT}",
        ),
        (
            "from beam_serving.models.formats.registry import Format\nFORMAT = Format(['matrix'], 't', ('.npy',), {})",
            f"is Format(name=['matrix'], title='t', suffixes=('.npy',), loaders={{}}, weights_suffix='', "
            f"own='openvino'); {NO_FORMAT}",
        ),
    ],
)
def test_a_package_whose_format_cannot_be_had_is_one_line(tmp_path: Path, plugin: str, reason: str) -> None:
    (line,) = inspected(installed(tmp_path, plugin=plugin))

    assert "the model format 'matrix' (matrix_format:FORMAT) of the package matrix-format " in line
    assert line.endswith(reason)
