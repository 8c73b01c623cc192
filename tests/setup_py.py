"""What setup.py says, asked of setuptools."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SOURCES = ("beam_serving", "runners", "setup.py", "pyproject.toml", "README.md", "LICENSE")
"""What the wheel is built of."""
ENVIRONMENT = {"python_version": "3.11", "python_full_version": "3.11.16", "sys_platform": "linux"}
_PROGRAM = (
    "import json, setuptools; setuptools.setup = lambda **given: print(json.dumps({k: given[k] for k in "
    "('install_requires', 'extras_require')})); exec(compile(open('setup.py').read(), 'setup.py', 'exec'), "
    "{'__file__': 'setup.py', '__name__': '__main__'})"
)


def declared() -> dict[str, Any]:
    """Return `install_requires` and `extras_require`."""
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(ended.stdout))


def wanted(requirements: Iterable[str], extras: Iterable[str] = ()) -> Iterator[Requirement]:
    """What has to be installed on Linux for requirements, of these extras."""
    for requirement in map(Requirement, requirements):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**ENVIRONMENT, "extra": extra}) for extra in ("", *extras)):
            yield requirement


def needed(requirements: Iterable[Requirement]) -> set[str]:
    """The names of requirements and of all that they need in turn, as what is installed here says."""
    found: dict[str, set[str]] = {}
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        new = requirement.extras - found.get(name, set()) if name in found else {*requirement.extras, ""}
        found.setdefault(name, set()).update(new)
        if new:
            waiting += wanted(distribution(name).requires or (), new)
    return set(found)


def copy_sources(folder: Path) -> None:
    """Copies what the wheel is built of, without what earlier builds left there."""
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "target"))
        else:
            shutil.copy(ROOT / name, folder)
