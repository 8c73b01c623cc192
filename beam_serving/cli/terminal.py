"""What commands print, without anything that a terminal would obey."""

from __future__ import annotations

import sys
from typing import TextIO

from beam_serving.errors import printable_lines


def say(text: str, *, to: TextIO | None = None, flush: bool = False) -> None:
    """Print lines for a person or a program, by default to standard output."""
    print(printable_lines(text), file=to or sys.stdout, flush=flush)
