"""SECURITY.md names tests that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = re.findall(r"`([\w/.]+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("What was found")[2])


def test_the_files_that_it_names_are_there() -> None:
    files = [name for name in NAMES if name.endswith(".py")]
    assert len(files) > 20
    assert [name for name in files if not (ROOT / "tests" / name).exists() and not (ROOT / name).exists()] == []


def test_the_tests_that_it_names_are_there() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    tests = [name.removesuffix("...") for name in NAMES if name.startswith("test_") and not name.endswith(".py")]
    assert len(tests) > 8
    assert [name for name in tests if f"def {name}" not in source] == []
