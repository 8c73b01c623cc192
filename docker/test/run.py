"""Lints, builds and tries the images: `make docker-test`.

As root on Debian it does so for real, without a daemon: Debian's podman with storage, mounts and a network of its own,
on a base image that debootstrap makes, for there may be no registry to pull one from. Elsewhere it says what it left
out. What it makes is kept in ~/.cache/beam_serving/docker-test (or below XDG_CACHE_HOME) until `make clean`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import machine
from engine import FOLDER_VARIABLE, Engine
from lint import lint
from stand_in import PYTHON, make_stand_ins, trusted, trusted_by_maven

from beam_serving.models.store import cache_folder

HERE = Path(__file__).parent
FOLDER = cache_folder() / "docker-test"
_INSIDE = "--inside"


def main(arguments: Sequence[str]) -> int:
    """Run all of it and return the exit code; further arguments go to pytest."""
    if arguments and arguments[0] == _INSIDE:
        return _build_and_try(arguments[1:])
    if not lint():
        return 1
    if reasons := machine.lacks():
        print("left out: building the images, running them, docker-run.sh and docker-compose.yml with them.")
        print("\n".join(f"  because {reason}" for reason in reasons))
        return 0
    machine.install_tools()
    FOLDER.mkdir(parents=True, exist_ok=True)
    # One at a time, since they share a store; a first process that also waits for the orphans.
    alone = ["flock", "--no-fork", str(FOLDER), *machine.PRIVATE, "catatonit", "--"]
    return subprocess.run([*alone, sys.executable, __file__, _INSIDE, *arguments], check=False).returncode


def _build_and_try(arguments: Sequence[str]) -> int:
    machine.own_cgroups()
    engine = Engine(FOLDER)
    engine.prepare()
    make_stand_ins(engine)
    _build(engine)
    return _try(engine, arguments)


def _build(engine: Engine) -> None:
    """Build both images by the script that people use, one of them again, and say what they cost."""
    base = engine.image_bytes(PYTHON)
    on_stand_in = f"--build-arg=PYTHON_IMAGE={PYTHON}"
    serving = [on_stand_in, *engine.build_flags(trusted())]
    flink = ["flink", on_stand_in, *engine.build_flags(trusted() | trusted_by_maven(engine))]
    for tag, flags in (("latest", ["--no-cache", *serving]), ("latest", serving), ("flink", flink)):
        started = time.monotonic()
        engine.script("docker-build.sh", *flags)
        took_s, size = time.monotonic() - started, engine.image_bytes(f"beam-serving:{tag}")
        sizes = f"{size / 1e6:.0f} MB unpacked, {(size - base) / 1e6:.0f} MB of it ours"
        print(f"beam-serving:{tag}: {took_s:.1f} s, {sizes}", flush=True)
    engine.run("image", "prune", "--force")


def _try(engine: Engine, arguments: Sequence[str]) -> int:
    """Run the tests where all ports are theirs alone: no service of this machine is disturbed, none disturbs."""
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    environment = {**os.environ, FOLDER_VARIABLE: str(engine.folder)}
    # Below pytest's own temporary folder, which is its user's alone, the container's user could read nothing.
    with tempfile.TemporaryDirectory(prefix="beam-serving-docker-") as folder:
        Path(folder).chmod(0o755)
        options = ["-rs", "-o", "timeout=600", "-W", "ignore::pytest.PytestConfigWarning", f"--basetemp={folder}/tests"]
        tests = [sys.executable, "-m", "pytest", *options, *arguments, str(HERE)]
        return subprocess.run([*alone, *tests], check=False, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
