"""Nothing of the folder that a program is started in is imported, by it or by what it starts."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import yaml

from beam_serving.launch.worker import worker_environment
from beam_serving.transport.connection import RedisAt
from tests.service import USUAL
from tests.test_faults import queue_records, results

PACKAGE = Path(__file__).parents[1] / "beam_serving"
SHADOWED = (
    *("apache_beam", "cv2", "grpc", "google", "numpy", "openvino", "pydantic", "redis", "yaml"),
    *("argparse", "json", "logging", "multiprocessing", "pathlib", "queue", "socket", "subprocess", "typing"),
)
"""Not what `python -m` itself imports before it runs anything of ours: see docs/ports.md."""
TRAP = """
import os, sys
with open(os.path.join(os.path.dirname(__file__), "ran"), "a") as told:
    print(__name__, sys.argv, file=told)
raise SystemExit("imported from the current directory")
"""


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """A folder in which each of these modules tells that it was run."""
    folder = tmp_path / "trapped"
    folder.mkdir()
    for name in SHADOWED:
        (folder / f"{name}.py").write_text(TRAP, encoding="utf-8")
    return folder


def installed() -> dict[str, str]:
    """Gives an environment in which the package is found wherever a process is started."""
    return {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("runner", ["DirectRunner", "FlinkRunner"])
def test_a_service_runs_nothing_of_its_folder(runner: str, at: RedisAt, client: redis.Redis, trapped: Path) -> None:
    config = {
        "name": "tested",
        "model": {"path": "noop"},
        "data": {"src": str(at), "streams": USUAL},
        "params": {"workers": 1},
    }
    (trapped / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    queue_records(client, 1000)
    command = [sys.executable, "-m", "beam_serving", f"--runner={runner}", "--drain"]
    ended = subprocess.run(
        command, cwd=trapped, env=installed(), capture_output=True, text=True, check=False, timeout=300
    )
    ran = trapped / "ran"
    assert not ran.exists(), ran.read_text(encoding="utf-8")
    assert ended.returncode == 0, ended.stderr
    assert results(client) == 1000


@pytest.mark.parametrize(
    ("given", "kept"),
    [(":/a", "/a"), ("/a:", "/a"), ("/a::/b", "/a:/b"), (":", ""), ("", ""), (None, None)],
)
def test_an_empty_entry_of_the_path_is_not_the_current_directory(
    given: str | None, kept: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTHONPATH", given)
    environment = worker_environment()
    assert environment.get("PYTHONPATH") == kept
    assert environment["PYTHONSAFEPATH"] == "1"


def test_each_python_that_we_start_is_told_to_stay_out_of_its_directory() -> None:
    """A list that begins with the interpreter goes on with -P."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.List) and node.elts and ast.unparse(node.elts[0]) == "sys.executable":
                found[f"{path.relative_to(PACKAGE)}:{node.lineno}"] = [ast.unparse(one) for one in node.elts[1:2]]
    assert len(found) >= 3
    assert set(map(tuple, found.values())) == {("'-P'",)}, found
