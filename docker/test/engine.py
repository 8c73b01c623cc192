"""The container engine of the tests: podman, whose command line is docker's, with nothing shared with another one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DOCKER = Path(__file__).parents[1]
FOLDER_VARIABLE = "BEAM_SERVING_DOCKER_TEST"

# Where containers may themselves have been forbidden, these are what is left: no cgroups, and the host's network.
# Locks in memory would be shared with another podman. What cleans up after a container is told the storage's folder
# only, so `static_dir` must be where it looks by default.
_CONTAINERS = """\
[containers]
cgroups = "disabled"
netns = "host"
utsns = "host"
pids_limit = 0
default_sysctls = []
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
static_dir = "{folder}/storage/libpod"
volume_path = "{folder}/volumes"
tmp_dir = "{folder}/run/libpod"
"""
_STORAGE = """\
[storage]
driver = "overlay"
runroot = "{folder}/run/storage"
graphroot = "{folder}/storage"
"""
# A read-only container has no places to write but those that were asked for, as in docker.
_AS_DOCKER = """\
#!/bin/sh
[ "$1" = run ] && shift && set -- run --read-only-tmpfs=false "$@"
exec podman "$@"
"""
_REGISTRIES = 'unqualified-search-registries = ["docker.io"]\n'


@dataclass(frozen=True)
class Engine:
    """Podman with images, containers and settings below `folder`."""

    folder: Path

    def prepare(self) -> None:
        """Write the settings, and remove what an interrupted run has left."""
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        for name, text in (("containers", _CONTAINERS), ("storage", _STORAGE), ("registries", _REGISTRIES)):
            (self.folder / f"{name}.conf").write_text(text.replace("{folder}", str(self.folder)), encoding="utf-8")
        as_docker = self.folder / "docker"
        as_docker.write_text(_AS_DOCKER, encoding="utf-8")
        as_docker.chmod(0o755)
        self.run("rm", "--all", "--force")
        self.run("volume", "prune", "--force")

    def environment(self) -> dict[str, str]:
        """Return the environment in which `podman`, and scripts of ours that call it, use this engine."""
        own = {
            "DOCKER": str(self.folder / "docker"),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf"),
            "BUILDAH_ISOLATION": "chroot",
            # The format of OCI has no health check.
            "BUILDAH_FORMAT": "docker",
            # No timer runs it then: the tests do.
            "DISABLE_HC_SYSTEMD": "true",
        }
        return {**os.environ, **own}

    def run(self, *arguments: str) -> str:
        """Run a command of podman and return what it prints.

        Raises:
            RuntimeError: it failed; says how.
        """
        command = ["podman", *arguments]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, env=self.environment())
        if ended.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit code {ended.returncode}: {ended.stderr.strip()[-1000:]}")
        return ended.stdout

    def code(self, *arguments: str) -> int:
        """Run a command of podman and return its exit code."""
        return subprocess.run(
            ["podman", *arguments], check=False, capture_output=True, env=self.environment()
        ).returncode

    def script(self, name: str, *arguments: str) -> None:
        """Run a script of docker/ to its end, which must be a good one."""
        subprocess.run([str(DOCKER / name), *arguments], check=True, env=self.environment())

    def started(self, command: Sequence[str], log: Path, cwd: Path) -> subprocess.Popen[bytes]:
        """Start a command that uses this engine; what it says goes to `log`."""
        with log.open("ab") as file:
            return subprocess.Popen(
                command,
                cwd=cwd,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @staticmethod
    def build_flags(mounts: Mapping[Path, str]) -> list[str]:
        """Return the flags of a build here; `mounts` are files of this machine that only the build shall see."""
        flags = ["--network=host", "--pull=never"]
        return flags + [f"--volume={path}:{at}:ro" for path, at in mounts.items() if path.exists()]

    def has_image(self, name: str) -> bool:
        """Return whether there is an image of this name."""
        return self.code("image", "exists", name) == 0

    def image_bytes(self, name: str) -> int:
        """Return the size of an image's layers, unpacked."""
        return int(self.run("image", "inspect", "--format", "{{.Size}}", name))
