"""The Python blocks of docs/models.md run as they stand."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "tests/models/fixtures/digits/caffe"


def python_blocks(page: Path) -> list[str]:
    """Gives the indented blocks that import something."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page.read_text(encoding="utf-8"), re.MULTILINE)
    texts = ["\n".join(line[4:] for line in block.splitlines()) for block in blocks]
    return [text for text in texts if re.search(r"^(from|import) ", text, re.MULTILINE)]


@pytest.mark.parametrize("block", python_blocks(ROOT / "docs/models.md"))
def test_a_block_runs_as_it_stands(block: str, tmp_path: Path) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 2
