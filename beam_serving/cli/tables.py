"""Tables: as wide as they need be in a pipe or file, folded into the width of a terminal, in a narrow one as lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from typing import Literal

from beam_serving.cli.terminal import columns, is_terminal

_WIDEST = 100_000
_GAP = 2
_NAME = 10
_NARROWEST = 12
"""A column that is folded keeps that many characters; where it could not, the rows are lists."""

_Side = Literal["left", "right"]


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in columns, a header first: the first column to the left, the others to the right."""
    return _laid_out(rows, "right")


def listed(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows of words out in columns, a header first, all to the left."""
    return _laid_out(rows, "left")


def named(rows: Sequence[tuple[str, str]]) -> str:
    """Lay names and their values out, each pair in a line."""
    return _table([(f"{name:{_NAME}}", value) for name, value in rows], "left", _width())


def _width() -> int:
    return columns() if is_terminal() else _WIDEST


def _laid_out(rows: Sequence[Sequence[str]], others: _Side) -> str:
    width = _width()
    if _least_width(rows) <= width:
        return _table(rows, others, width)
    head, *body = rows
    lists = (
        _table([(name, cell) for name, cell in zip(head, row, strict=True) if cell], "left", width) for row in body
    )
    return "\n\n".join(lists) if body else _table([(name,) for name in head], "left", width)


def _least_width(rows: Sequence[Sequence[str]]) -> int:
    """Return the width below which a column would be folded to less than a few characters."""
    widest = [max(map(_cells(), column)) for column in zip(*rows, strict=True)]
    return sum(min(one, _NARROWEST) for one in widest) + _GAP * (len(widest) - 1)


def _cells() -> Callable[[str], int]:
    """Return what counts the places that a text takes."""
    try:
        from rich.cells import cell_len
    except ModuleNotFoundError:  # of the client alone
        return len
    return cell_len


def _plain(rows: Sequence[Sequence[str]], others: _Side) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ["<", *(">" if others == "right" else "<" for _ in widths[1:])]
    lines = (
        (" " * _GAP).join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _table(rows: Sequence[Sequence[str]], others: _Side, width: int) -> str:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError:
        return _plain(rows, others)

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
    for place in range(max(map(len, rows), default=0)):
        table.add_column(justify=others if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(file=StringIO(), width=width, color_system=None, legacy_windows=False)
    with console.capture() as output:
        console.print(table)
    return "\n".join(_stripped(output.get()))


def _stripped(text: str) -> Iterable[str]:
    return (line.rstrip() for line in text.rstrip("\n").split("\n"))
