"""The quick start of the README: it starts a Redis and a service of its own, and each image gets its class."""

import re
import subprocess
import sys
from pathlib import Path

from tests.pages import blocks_of, says
from tests.setup_py import ROOT


def test_each_image_gets_its_class(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "beam_serving", "quickstart"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    shown = r"^image: digit_(\d)\.png, classification-result: class: (\d)'s prob: "
    found = re.findall(shown, done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stderr
    assert len(found) >= 7, done.stdout
    assert all(digit == answer for digit, answer in found)
    (block,) = (one.text for one in blocks_of(ROOT / "README.md") if one.before == "`make run` prints")
    assert any(says(block, line) for line in done.stdout.splitlines())
