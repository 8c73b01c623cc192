"""The Python blocks of README and docs: those of docs/models.md run as they stand, and all pass `mypy --strict`."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "tests/models/fixtures/digits/caffe"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
CONFIGURATION = """
[mypy]
mypy_path = {root}
[mypy-beam_serving.*]
follow_imports = silent
[mypy-apache_beam.*]
follow_imports = skip
[mypy-pipelines_blocks]
disallow_subclassing_any = False
"""
"""Errors within packages are silent, as those of installed ones are. Of Beam's classes mypy knows little: their methods
have no types."""


def indented_blocks(page: Path) -> list[str]:
    """Gives the blocks of a page without their indentation."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page.read_text(encoding="utf-8"), re.MULTILINE)
    return ["\n".join(line[4:] for line in block.splitlines()) for block in blocks]


def is_python(text: str) -> bool:
    """Whether a block is Python that does something; YAML may look like annotations, a formula like an expression."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.Call) for node in ast.walk(tree))


def python_blocks(page: Path) -> list[str]:
    """Gives the indented blocks that import something."""
    return [text for text in indented_blocks(page) if re.search(r"^(from|import) ", text, re.MULTILINE)]


@pytest.mark.parametrize("block", python_blocks(ROOT / "docs/models.md"))
def test_a_block_runs_as_it_stands(block: str, tmp_path: Path) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 2


def test_a_block_that_names_python_is_python() -> None:
    """So that none is left out because it does not parse."""
    for page in PAGES:
        for text in indented_blocks(page):
            if re.search(r"^(from \w[\w.]* import|import \w|class |def |with |\w+ = \w+\(|(\w+\.)+\w+\()", text, re.M):
                assert is_python(text), f"{page.name}:\n{text}"


def test_all_blocks_pass_mypy_strict(tmp_path: Path) -> None:
    """Blocks of a page go on from those before."""
    programs = {}
    for page in PAGES:
        if blocks := [text for text in indented_blocks(page) if is_python(text)]:
            program = tmp_path / f"{page.stem.lower()}_blocks.py"
            program.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
            programs[page.name] = program
    assert {"README.md", "encryption.md", "models.md", "pipelines.md"} <= set(programs)
    (tmp_path / "mypy.ini").write_text(CONFIGURATION.format(root=ROOT), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini", *map(str, programs.values())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_query_with_a_time_gives_a_result_and_one_without_may_give_none(tmp_path: Path) -> None:
    (tmp_path / "mypy.ini").write_text(CONFIGURATION.format(root=ROOT), encoding="utf-8")
    (tmp_path / "typed.py").write_text(
        "from beam_serving import AsyncOutputQueue, OutputQueue\n\n"
        "async def ask(results: OutputQueue, queue: AsyncOutputQueue) -> None:\n"
        '    reveal_type(results.query("a", timeout_s=5))\n'
        '    reveal_type(results.query("a", None))\n'
        '    reveal_type(results.query("a"))\n'
        '    reveal_type(await queue.query("a", timeout_s=5))\n'
        '    reveal_type(await queue.query("a"))\n'
        '    reveal_type(results.query("a", timeout_s=5).top[0].label)\n',
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini", "typed.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    reply = "beam_serving.protocol.results.Reply"
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert revealed == [reply, reply, f"{reply} | None", reply, f"{reply} | None", "str | None"], done.stdout
