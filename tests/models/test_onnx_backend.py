"""What the backend tests of ONNX give here: what they expect, or an error with the reason."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.onnx_backend import Outcome, counted

ROOT = Path(__file__).parents[2]
SAMPLE = 150
GOOD = {"right", "framework", "random", "refused"}


def run(engine: str, *count: str) -> list[Outcome]:
    """Run the tests in a process that has loaded no framework, so that it can start others as copies of itself."""
    command = [sys.executable, "-m", "tests.models.onnx_backend", engine, *count]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [Outcome(*json.loads(line)) for line in done.stdout.splitlines()]


def check(results: list[Outcome]) -> None:
    print(counted(results))
    assert [result for result in results if result.outcome not in GOOD] == []
    assert [result for result in results if result.outcome == "refused" and len(result.why) < 20] == []


@pytest.mark.parametrize("engine", ["onnxruntime", "auto"])
def test_a_sample_of_the_tests_of_onnx(engine: str) -> None:
    results = run(engine, str(SAMPLE))

    check(results)
    assert len(results) == 2 * SAMPLE
    assert sum(result.outcome == "right" for result in results) > 0.8 * len(results)
    assert any(result.plan == "rows" and result.outcome == "right" for result in results)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", ["onnxruntime", "auto"])
def test_all_tests_of_onnx(engine: str) -> None:
    results = run(engine)

    check(results)
    assert len(results) > 4000
