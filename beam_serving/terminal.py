"""What comes from outside, as it may stand in a log or on a terminal: without anything that these would obey."""

from __future__ import annotations

import sys
from typing import TextIO


def printable(text: str) -> str:
    r"""Escape what has no shape of its own: control characters, escape sequences, marks that turn the direction.

    Line ends are among them, so that nothing can look like a line of ours: `"a\nb"` becomes `"a\\nb"`. A tab stays.
    """
    if text.isprintable():
        return text
    return "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    return char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode()


def printable_lines(text: str) -> str:
    """Escape the lines of a text, each by itself."""
    return "\n".join(map(printable, text.split("\n")))


def say(text: str, *, to: TextIO | None = None, flush: bool = False) -> None:
    """Print lines for a person or a program, by default to standard output."""
    print(printable_lines(text), file=to or sys.stdout, flush=flush)
