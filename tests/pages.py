"""The blocks of a page of documentation, and a walk through them from top to bottom, as a reader goes.

A block behind a line that ends with the name of a file is that file; Python and commands are run where the reader would
run them, in one shell; what a block behind "prints" and a comment behind `print(...)` say has to be what is printed.
"""

import ast
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_BLOCK = re.compile(r"^    .*\n(?:^    .*\n|^\n(?=\n*    ))*", re.MULTILINE)
_FILE = re.compile(r"(?:^| )`([\w./]+\.(?:jsonl|py|txt|yaml))`(?:, beside `config\.yaml`)?:?$")
_COMMAND = re.compile(r"^\(?(?:[A-Z_]+=\S+ )?(?:beam-serving|cd|docker/?|kill|make|mkdir|pip|printf|python|umask)\b")
_SHOWN = re.compile(r"^ *print\(.*\) +# (.*)$", re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")
_MARK = "@@@"
NOT_RUN = ": not run"
"""What a substitution puts in the place of a command that is left out."""


class Block(NamedTuple):
    """What is indented in a page, without the indentation, and the last line of text before it."""

    page: str
    line: int
    text: str
    before: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is, if it is one."""
        found = _FILE.search(self.before)
        return found[1] if found else None

    @property
    def kind(self) -> str:
        """`file`, `output`, `python`, `json`, `shell`, or `figure`: what is only looked at."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        if self.file:
            return "file"
        if re.search(r"\bprints\b[^.]*$", self.before):
            return "output"
        if is_python(self.text):
            return "python"
        if all(map(_is_json, lines)):
            return "json"
        return "shell" if all(map(_COMMAND.match, lines)) else "figure"

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def is_python(text: str) -> bool:
    """Whether a block is Python that does something; YAML may look like annotations, a formula like an expression."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.Call) for node in ast.walk(tree))


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def blocks_of(page: Path) -> list[Block]:
    """Returns the blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page.name,
            text[: found.start()].count("\n") + 1,
            "\n".join(line[4:] for line in found.group().splitlines()),
            text[: found.start()].rstrip().rpartition("\n")[2],
        )
        for found in _BLOCK.finditer(text)
    ]


class Step(NamedTuple):
    """What came of a block: its time, what it printed, and the size of the measured folders after it, in MB of 10^6."""

    seconds: float
    printed: str
    megabytes: Sequence[float]


class Walk:
    """A reader in a shell, and what the shell says to each block.

    Args:
        folder: where the reader begins.
        substitutions: patterns, what stands in the place of what they match in commands and in Python, and why.
        environment: variables of the shell.
        check: a command that is run whenever a `config.yaml` is written.
        measured: folders whose sizes are told.
    """

    def __init__(
        self,
        folder: Path,
        substitutions: Sequence[tuple[str, str, str]] = (),
        environment: Mapping[str, str] = os.environ,
        check: str = "",
        measured: Sequence[Path] = (),
    ) -> None:
        self._folder = folder
        self._substitutions = substitutions
        self._environment = dict(environment)
        self._check = check
        sizes = "".join(f" $(du -sb '{one}' | cut -f1)" for one in measured)
        self._mark = f"echo; echo {_MARK}$(date +%s.%N){sizes}"
        self.used: set[str] = set()

    def go(self, blocks: Sequence[Block]) -> dict[Block, Step]:
        """Runs the blocks; returns what came of each.

        Raises:
            AssertionError: one failed, or printed something else than the page says.
        """
        out, err = (self._folder.with_name(f"{self._folder.name}.{name}") for name in ("out", "err"))
        with out.open("w", encoding="utf-8") as said, err.open("w", encoding="utf-8") as complained:
            done = subprocess.run(
                ["bash", "-c", "\n".join(self._script(blocks, out))],
                cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=said, stderr=complained,
                check=False,
            )  # fmt: skip
        parts = out.read_text(encoding="utf-8").split(_MARK)[1:]
        last = blocks[max(min(len(parts), len(blocks)) - 1, 0)]
        assert done.returncode == 0, f"{last} ended with {done.returncode}:\n{last.text}\n{err.read_text()[-3000:]}"
        heads = [[float(number) for number in part.partition("\n")[0].split()] for part in parts]
        walked = {
            block: Step(after[0] - before[0], part.partition("\n")[2], [size / 1e6 for size in after[1:]])
            for block, before, after, part in zip(blocks, heads, heads[1:], parts, strict=False)
        }
        assert list(walked) == list(blocks)
        _compare(walked)
        return walked

    def _script(self, blocks: Sequence[Block], out: Path) -> Iterator[str]:
        yield "set -eu"
        # What serves in the background ends before its Redis does. A number may be that of another process by now.
        yield f"""leave() {{
            for pid in $(sed -n 's/.*ready, pid \\([0-9]*\\),.*/\\1/p' '{out}'); do
                case "$(readlink /proc/$pid/cwd || :)" in
                    '{self._folder}'*) kill $pid && tail --pid=$pid -f /dev/null || : ;;
                esac
            done
            kill $(jobs -p) && wait || :
        }}"""
        yield "trap leave EXIT"
        for block in blocks:
            yield self._mark
            yield from self._run(block)
        yield self._mark

    def _run(self, block: Block) -> Iterator[str]:
        if block.file:
            yield from _here(f"cat > '{block.file}'", block.text)
            yield self._check if block.file == "config.yaml" else ""
        elif block.kind == "python":
            yield from _here("python -", self._substituted(block.text))
        elif block.kind == "shell":
            yield from map(self._substituted, block.text.splitlines())

    def _substituted(self, text: str) -> str:
        for pattern, replacement, _ in self._substitutions:
            text, count = re.subn(pattern, replacement, text)
            if count:
                self.used.add(pattern)
        return text


def _here(command: str, text: str) -> Iterator[str]:
    yield f"{command} <<'END OF BLOCK'"
    yield from text.splitlines()
    yield "END OF BLOCK"


def _compare(walked: Mapping[Block, Step]) -> None:
    """Compares what was printed with what the page says; output of commands that were left out cannot be."""
    shown: list[str] = []
    for block, (_, printed, _) in walked.items():
        if block.kind == "output":
            wanted, found = block.text.splitlines(), shown
        else:
            wanted, found = _SHOWN.findall(block.text) if block.kind == "python" else [], printed.splitlines()
            shown = found
        if block.kind == "output" and not any(map(str.strip, found)):
            continue
        rest = iter(found)
        for line in wanted:
            assert any(says(line, one) for one in rest), (
                f"{block} shows {line!r}, and this was printed:\n{printed or found}"
            )


def says(wanted: str, line: str) -> bool:
    """Whether a line is the one that is shown, whose numbers may have fewer digits, and whose blanks may be others."""
    if _NUMBER.sub("#", wanted).split() != _NUMBER.sub("#", line).split():
        return False
    pairs = zip(_NUMBER.findall(wanted), _NUMBER.findall(line), strict=True)
    return all(float(short) == round(float(full), len(short.partition(".")[2])) for short, full in pairs)
