"""A folder whose files are in memory only: nothing of them is on a disk, and nothing is left when the process dies.

Each file is a memfd (Linux, memfd_create(2)), anonymous memory that ends with its last user. The folder, which only
this user may enter, has links to them through /proc, because the engines find a model by names and by what lies beside.
Memory may be swapped out as any other.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from beam_serving.errors import ModelLoadError


class MemoryFolder:
    """A folder to put files into; `path` is where they are found while it is open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: list[int] = []

    def create(self, name: Path) -> BinaryIO:
        """Make a file, `name` relative to the folder, and return it for writing. It outlives the closing of that."""
        held = os.memfd_create(name.name, os.MFD_CLOEXEC)
        self._files.append(held)
        target = self.path / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.symlink_to(f"/proc/{os.getpid()}/fd/{held}")
        return os.fdopen(os.dup(held), "wb")

    def close(self) -> None:
        """Let go of the memory, where nobody has mapped it."""
        while self._files:
            os.close(self._files.pop())


@contextmanager
def memory_folder() -> Iterator[MemoryFolder]:
    """Yield an empty folder, which is gone afterwards. What an engine has mapped of its files stays with the engine.

    Raises:
        ModelLoadError: this is not Linux.
    """
    if sys.platform != "linux":
        raise ModelLoadError(f"encrypted models are served on Linux only, this is {sys.platform}")
    path = Path(tempfile.mkdtemp(prefix="beam-serving-model-"))  # mode 0700
    folder = MemoryFolder(path)
    try:
        yield folder
    finally:
        folder.close()
        shutil.rmtree(path)
