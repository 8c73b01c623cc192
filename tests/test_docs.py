"""The docs: every block is run as a reader does, or it is said who runs it; all Python passes `mypy --strict`.

The README is walked in tests/test_readme.py.
"""

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from beam_serving.config.schema import Settings
from beam_serving.launch.beam_flags import check_beam_flags
from beam_serving.transport.connection import RedisAt
from tests.cli.commands import all_commands
from tests.pages import NOT_RUN, Block, Walk, blocks_of, is_python

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "beam_serving/demo"
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

WALKED = ("encryption.md", "files.md", "models.md", "moving.md", "operating.md", "pipelines.md")
OF_CLUSTERS = {"flink.md": "Java and clusters: tests/flink", "spark.md": "Java and clusters: tests/spark"}
"""Pages whose commands are not run here, and who runs them."""
FIGURES = {
    "README.md: Redis stream": "a drawing",
    'architecture.md: [project.entry-points."beam_serving.formats"] matrix': "read below",
    'architecture.md: supervisor["supervisor: launch/supervisor.py<br>settings,': "a drawing",
    "architecture.md: client([client]) --": "a drawing",
    "limits.md: max_request_bytes +": "a formula",
    "moving.md: - from": "a change of a line",
    "operating.md: [Unit] Description=Model": "a unit of systemd, test_operating_page.py",
    "protocol.md: XADD <stream>": "tests/protocol",
    "protocol.md: XADD serving_stream": "tests/protocol",
    "protocol.md: cluster-serving_<stream>:<uri>": "a key",
    "protocol.md: value [[281,0.8312],[282,0.0917]]": "tests/protocol",
    "redis.md: ACL SETUSER": "tests/rights.py",
}
"""Blocks that are nothing to run, by their first words, and who looks at them."""
ELSEWHERE = (
    (
        r"(?m)^python -m beam_serving model encrypt old/.*",
        NOT_RUN,
        "files of Cluster Serving: cli/test_encrypt_model.py",
    ),
)
"""Commands of the pages that are walked which are not run here, and who runs them."""
OLD = "model:\n  path: model\ndata:\n  image_shape: 3,32,32\n"
"""What a reader who moves from Cluster Serving has: a configuration of 0.9."""


def name_of(block: Block) -> str:
    return f"{block.page}: {' '.join(block.text.split()[:2])}"


def fragment_of(block: Block) -> dict[str, object] | None:
    """A part of a configuration, for which the text says where it belongs, with that around it."""
    try:
        value = yaml.safe_load(block.text)
    except yaml.YAMLError:
        return None
    if not isinstance(value, dict):
        return None
    return value if value.keys() <= Settings.model_fields.keys() else {"data": value}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", WALKED)
@pytest.mark.usefixtures("client")
def test_a_page_works_as_written_from_top_to_bottom(name: str, at: RedisAt, tmp_path: Path) -> None:
    """In the folder of a service: with a configuration, a model, a picture, and what an older server had."""
    folder = tmp_path / "walk"
    shutil.copytree(DEMO, folder)
    shutil.copytree(DEMO / "model", folder / "my_model")
    shutil.copy(DEMO / "images/digit_7.png", folder / "cat.jpg")
    (folder / "old.yaml").write_text(OLD, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BEAM_SERVING__")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "BEAM_SERVING__DATA__SRC": str(at),
    }
    here = (r'"redis-host"', f'"{at}"', "a host of the reader")
    walk = Walk(folder, (*ELSEWHERE, here), environment, check="python -m beam_serving config check config.yaml")
    blocks = blocks_of(ROOT / "docs" / name)
    walked = walk.go([block for block in blocks if block.kind != "figure"])
    if name == "models.md":
        (lines,) = (step.printed.strip().splitlines() for block, step in walked.items() if block.kind == "python")
        assert len(lines) == 2


def test_what_is_not_run_is_known() -> None:
    blocks = [block for page in PAGES for block in blocks_of(page)]
    figures = [block for block in blocks if block.kind == "figure"]
    assert {name_of(block) for block in figures if fragment_of(block) is None} == set(FIGURES)
    with_something = {block.page for block in blocks if block.kind != "figure"}
    assert with_something == {*WALKED, *OF_CLUSTERS, "README.md"}


def test_parts_of_a_configuration_are_taken() -> None:
    figures = [block for page in PAGES for block in blocks_of(page) if block.kind == "figure"]
    fragments = [found for block in figures if (found := fragment_of(block))]
    assert len(fragments) >= 2
    for fragment in fragments:
        Settings.model_validate({"model": {"path": "noop"}, **fragment})


def test_a_block_that_names_python_is_python() -> None:
    """So that none is left out because it does not parse."""
    for page in PAGES:
        for block in blocks_of(page):
            if re.search(
                r"^(from \w[\w.]* import|import \w|class |def |with |\w+ = \w+\(|(\w+\.)+\w+\()", block.text, re.M
            ):
                assert is_python(block.text), f"{block}:\n{block.text}"


def test_all_blocks_pass_mypy_strict(tmp_path: Path) -> None:
    """Blocks of a page go on from those before."""
    programs = {}
    for page in PAGES:
        if blocks := [block.text for block in blocks_of(page) if is_python(block.text)]:
            program = tmp_path / f"{page.stem.lower()}_blocks.py"
            program.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
            programs[page.name] = program
    assert {"README.md", "encryption.md", "models.md", "pipelines.md"} <= set(programs)
    (tmp_path / "mypy.ini").write_text(CONFIGURATION.format(root=ROOT), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini", *map(str, programs.values())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def commands_of(block: Block) -> Iterator[list[str]]:
    """The words of each command of ours in a block, without the program."""
    for line in block.text.splitlines() if block.kind == "shell" else ():
        words = shlex.split(line, comments=True)
        program = next((word for word in words if word in ("beam-serving", "beam_serving")), None)
        if program:
            first = words.index(program) + 1
            yield list(itertools.takewhile(lambda word: word not in ("&", "&&", ">"), words[first:]))


def test_every_command_takes_the_arguments_that_it_is_shown_with() -> None:
    """Also of those that are run elsewhere, or not as they stand."""
    known = {tuple(words): command for words, command in all_commands()}
    shown = [(block, words) for page in PAGES for block in blocks_of(page) for words in commands_of(block)]
    assert len(shown) > 40
    for block, words in shown:
        name = next(tuple(words[:count]) for count in (2, 1, 0) if tuple(words[:count]) in known)
        with known[name].make_context(f"{block}: {' '.join(words)}", words[len(name) :]) as ctx:
            own = [flag for option in known[name].params for flag in option.opts]
            check_beam_flags(ctx.params.get("for_beam", ()), own)


def test_the_entry_point_of_a_format_can_be_read() -> None:
    texts = [block.text for block in blocks_of(ROOT / "docs/architecture.md")]
    (package,) = (text for text in texts if text.startswith("[project"))
    assert tomllib.loads(package)["project"]["entry-points"] == {
        "beam_serving.formats": {"matrix": "matrix_format:FORMAT"}
    }


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
