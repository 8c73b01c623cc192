"""The encryption of Cluster Serving's JVM by a JVM: javax.crypto, run from one source file."""

import subprocess
from pathlib import Path

PROGRAM = Path(__file__).parent / "generator" / "Encrypt.java"


def java(*arguments: str | Path) -> None:
    """Runs the program; see there for what it can do."""
    subprocess.run(["java", PROGRAM, *map(str, arguments)], check=True, capture_output=True)
