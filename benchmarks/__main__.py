"""`python -m benchmarks`, from the folder that holds `benchmarks`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from beam_serving.cli.main import exit_code_of
from benchmarks.compare import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and return the exit code: 0 done, 1 a target failed, 2 wrong usage."""
    return exit_code_of(lambda: run(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    sys.exit(main())
