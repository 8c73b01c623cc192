"""The README, walked from top to bottom in one folder as a reader does: what it shows is what is printed."""

import os
import sys
from pathlib import Path

import pytest

from beam_serving.launch.embedded_redis import free_port
from tests.first_hour import walk_readme
from tests.pages import NOT_RUN
from tests.setup_py import ROOT

SHORTER = (
    (r"(?m)^pip install .*", NOT_RUN, "needs the index of packages: tests/first_hour.py"),
    (r"(?m)(beam_serving bench)", r"\1 --requests 50", "else it takes half a minute"),
)


@pytest.mark.timeout(600)
def test_the_readme_works_as_written_from_top_to_bottom(tmp_path: Path) -> None:
    folder = tmp_path / "walk"
    folder.mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    walked = walk_readme(folder, free_port(), {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}, SHORTER)
    (clients,) = (step.printed for block, step in walked.items() if "query_many" in block.text)
    assert [line[:2] for line in clients.splitlines() if line[:2] in ("a ", "b ", "c ")] == ["a ", "b ", "c "]
