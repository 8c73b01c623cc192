"""The locked Python packages of the images: what stands in docker/locks/, one file for each set of packages."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = Path(__file__).parents[1] / "locks"
BASE = "serving"
EXTRAS = ("heif", "pandas", "tensorflow", "torch")
"""Extras that an image can be built with. Missing is gcp: a package that it needs is published as source only."""

_MACHINES = ("x86_64", "aarch64")
_PYTHONS = ("3.11.2", "3.11.16")
"""Debian 12's own and that of the base image; one package is needed on the former only."""


class Locked(NamedTuple):
    """One package of a lock file; `text` is its lines there."""

    requirement: Requirement
    hashes: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        """The name in its one canonical form."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """The version that it is pinned to.

        Raises:
            ValueError: it is pinned to none.
        """
        (specifier,) = self.requirement.specifier
        if specifier.operator != "==" or "*" in specifier.version:
            raise ValueError(f"{self.requirement}: wanted is one version, as name==1.2.3")
        return specifier.version

    def needed_on(self, pythons: tuple[str, ...] = _PYTHONS) -> bool:
        """Return whether an image of one of these Pythons has it, on one of the machines that images are built for."""
        marker = self.requirement.marker
        return marker is None or any(
            marker.evaluate({**_LINUX, "platform_machine": machine, "python_full_version": python})
            for machine, python in product(_MACHINES, pythons)
        )


_LINUX = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_version": "3.11",
    "sys_platform": "linux",
}


def parsed(text: str) -> list[Locked]:
    """Read the text of a lock file."""
    entries: list[Locked] = []
    lines: list[str] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        lines.append(line)
        if not line.endswith("\\"):
            entries.append(_entry(lines))
            lines = []
    return entries


def read(name: str) -> list[Locked]:
    """Read the lock file of a set of packages."""
    return parsed((LOCKS / f"{name}.txt").read_text(encoding="utf-8"))


def _entry(lines: list[str]) -> Locked:
    requirement, *hashes = " ".join(line.removesuffix("\\").strip() for line in lines).split(" --hash=")
    return Locked(Requirement(requirement), tuple(one.strip() for one in hashes), "\n".join(lines) + "\n")
