"""Makes the lock files of the images anew: `make lock`, after each change of setup.py or constraints.txt.

`docker/locks/serving.txt` holds what every image has, a file named after an extra what that adds, `build.txt` what
builds our own package and `sbom.txt` the tool of sbom.py. Hashes are of all files that a version was published with,
so of both x86_64 and aarch64; what only other systems need is left out.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from locked import BASE, EXTRAS, LOCKS, Locked, parsed

ROOT = Path(__file__).parents[2]
_SERVE = "--extra=serve"
_SBOM_TOOL = "cyclonedx-bom>=7,<8"
# No address of an index is written: an image is built with whatever index its builder has.
_COMPILE = ("pip", "compile", "--quiet", "--universal", "--python-version=3.11", "--generate-hashes", "--no-header")
_OUTPUT = ("--no-annotate", "--no-strip-markers", "--no-emit-index-url", "--no-emit-find-links")


def main() -> int:
    """Write all lock files and return the exit code."""
    constrained = ("--constraint=constraints.txt", "setup.py")
    base = _compiled((*constrained, _SERVE))
    _write(BASE, base)
    there = {one.text for one in base}
    for extra in EXTRAS:
        _write(extra, [one for one in _compiled((*constrained, _SERVE, f"--extra={extra}")) if one.text not in there])
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    _write("build", _compiled(("--constraint=constraints.txt", "-"), wanted))
    _write("sbom", _compiled(("-",), [_SBOM_TOOL]))
    return 0


def _compiled(arguments: Sequence[str], wanted: Iterable[str] = ()) -> list[Locked]:
    """Resolve what setup.py or `wanted` asks for, and return what Linux needs of it."""
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), *_COMPILE, *_OUTPUT, *arguments]
    ended = subprocess.run(command, check=True, cwd=ROOT, input="\n".join(wanted), stdout=subprocess.PIPE, text=True)
    return [one for one in parsed(ended.stdout) if one.needed_on()]


def _write(name: str, entries: Iterable[Locked]) -> None:
    head = "# Made by `make lock`: not to be edited.\n"
    (LOCKS / f"{name}.txt").write_text(head + "".join(one.text for one in entries), encoding="utf-8")
    print(f"docker/locks/{name}.txt", flush=True)


if __name__ == "__main__":
    sys.exit(main())
