"""What images can be built with here: a machine with Debian and root, and some of its packages."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

_PACKAGES = {
    "podman": "podman",
    "crun": "crun",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "catatonit": "catatonit",
}
_CGROUPS = Path("/sys/fs/cgroup")
# Mounts and processes of what runs under it are seen by nobody else, and end with it.
PRIVATE = ("unshare", "--pid", "--kill-child", "--mount-proc")


def lacks() -> list[str]:
    """Return the reasons why no image can be built here."""
    reasons = []
    if not _is_debian():
        reasons.append("this is not Debian, whose packages the base image is made of")
    if os.geteuid() != 0:
        reasons.append("this is not root, and mounts and containers of its own are only root's")
    elif subprocess.run([*PRIVATE, "true"], check=False).returncode != 0:
        reasons.append("root may not mount here, as in a container without privileges")
    return reasons


def _is_debian() -> bool:
    try:
        return platform.freedesktop_os_release()["ID"] == "debian"
    except OSError:
        return False


def install_tools() -> None:
    """Install the packages that are not there."""
    missing = [package for program, package in _PACKAGES.items() if shutil.which(program) is None]
    if missing:
        print(f"installing Debian's {', '.join(missing)}", flush=True)
        subprocess.run(["apt-get", "update", "--quiet=2"], check=True)
        subprocess.run(["apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends", *missing], check=True)


def debian_mirror() -> str:
    """Return the address where this machine gets Debian's packages from."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split("\n", 1)[0]


def own_cgroups() -> None:
    """Replace the cgroup file systems by the one kind that crun knows; only in a mount namespace of our own."""
    subprocess.run(["umount", "--recursive", "--lazy", str(_CGROUPS)], check=False, capture_output=True)
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(_CGROUPS)], check=True)
