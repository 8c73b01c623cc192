"""The checksum of what a jar holds.

`python checksum.py JAR` prints it; `python checksum.py JAR FILE` compares it with the one that a file has.

It is of the names and contents in the jar, not of their times, order or compression, which differ from machine to
machine. Left out is what tells who built it, and when: lines of the manifest, and what Maven adds on our own project.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

_MANIFEST = "META-INF/MANIFEST.MF"
_BUILDER = (b"Archiver-Version:", b"Build-Jdk", b"Built-By:", b"Created-By:")
_OURS = "META-INF/maven/beam-serving/"
_PIECE_BYTES = 1024 * 1024


def content_checksum(jar: Path) -> str:
    """Return SHA-256 over the sorted names and contents of a jar.

    Raises:
        OSError: it cannot be read.
        zipfile.BadZipFile: it is no jar, or damaged.
    """
    whole = hashlib.sha256()
    with zipfile.ZipFile(jar) as opened:
        for entry in sorted(opened.infolist(), key=lambda one: one.filename):
            if entry.is_dir() or entry.filename.startswith(_OURS):
                continue
            whole.update(f"{entry.filename}\n{_checksum_of(opened, entry)}\n".encode())
    return whole.hexdigest()


def _checksum_of(jar: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str:
    one = hashlib.sha256()
    with jar.open(entry) as content:
        if entry.filename == _MANIFEST:
            # A long line goes on in the next one, after a space.
            lines = content.read().replace(b"\r\n", b"\n").replace(b"\n ", b"").splitlines()
            one.update(b"\n".join(sorted(line for line in lines if line and not line.startswith(_BUILDER))))
        while piece := content.read(_PIECE_BYTES):
            one.update(piece)
    return one.hexdigest()


def main() -> int:
    """Print the checksum or compare it, for builds without the package around."""
    jar, *files = map(Path, sys.argv[1:])
    found = content_checksum(jar)
    if not files:
        print(found)
        return 0
    (expected,) = files
    wanted = expected.read_text(encoding="ascii").split()[0]
    if found != wanted:
        print(f"error: {jar} holds {found}, wanted is {wanted} ({expected})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
