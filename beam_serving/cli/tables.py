"""Tables: as wide as they need be in a pipe or file, folded into the width of a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import StringIO
from typing import Literal

_WIDEST = 100_000


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in columns, a header first: the first column to the left, the others to the right."""
    return _table(rows, "right")


def listed(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows of words out in columns, a header first, all to the left."""
    return _table(rows, "left")


def _table(rows: Sequence[Sequence[str]], others: Literal["left", "right"]) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for place in range(len(rows[0])):
        table.add_column(justify=others if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    width = None if sys.stdout is not None and sys.stdout.isatty() else _WIDEST
    console = Console(file=StringIO(), width=width, color_system=None, legacy_windows=False)
    with console.capture() as written:
        console.print(table)
    return "\n".join(line.rstrip() for line in written.get().rstrip("\n").split("\n"))
