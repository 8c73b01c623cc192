"""Text files of the operator's: configuration, labels, passwords, secrets are read by one rule, whoever wrote them.

UTF-8 with or without a byte order mark, or UTF-16 with one, as Windows writes; lines end as each system ends them.
In a configuration `${NAME}` stands for a variable of the environment.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from pathlib import Path

_NO_TEXT = "not UTF-8 text"
_MOST_BYTES = 64 << 20
_VARIABLE = re.compile(r"\$(?P<escaped>\$\{)|\$\{(?:(?P<name>[A-Za-z_]\w*)(?P<default>:-[^}]*)?\})?", re.ASCII)


class NotReadableError(ValueError):
    """A file cannot be read as text; `str()` is the reason alone, for the message of whoever wanted it."""


class Expanded(str):
    """A text with the values of variables in it, which are for nobody to see: `raw` is the text of the file."""

    __slots__ = ("raw",)
    raw: str

    def __new__(cls, text: str, raw: str) -> Expanded:
        """Take the text and what stood in its place."""
        made = super().__new__(cls, text)
        made.raw = raw
        return made


def read_text_file(path: str | Path) -> str:
    r"""Read a whole file; its lines end with `\n`.

    Args:
        path: the file.

    Raises:
        NotReadableError: it cannot be read, or is no text.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise NotReadableError(f"it is larger than {_MOST_BYTES >> 20} MiB")
        return text_of(content)
    except OSError as err:
        raise NotReadableError(err.strerror or str(err)) from err


def text_of(content: bytes) -> str:
    r"""Return the text that the bytes of a file are, without a byte order mark and with lines that end with `\n`.

    Args:
        content: all bytes of the file.

    Raises:
        NotReadableError: they are neither UTF-8 nor, with its mark, UTF-16.
    """
    try:
        text = content.decode(encoding_of(content))
    except UnicodeDecodeError as err:
        raise NotReadableError(_NO_TEXT) from err
    if "\0" in text:
        raise NotReadableError(_NO_TEXT)  # also UTF-16 without its mark
    return text.replace("\r\n", "\n").replace("\r", "\n")


def encoding_of(begin: bytes) -> str:
    """Return what the bytes of a file are decoded by, for those that read a large one piece by piece.

    Args:
        begin: its first two bytes, or more.
    """
    return "utf-16" if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def lines_of(text: str) -> list[str]:
    """Return the lines of a text; empty ones at its end, where editors leave them, do not count.

    Args:
        text: as `read_text_file` returns it.
    """
    lines = text.split("\n")
    while lines and not lines[-1]:
        lines.pop()
    return lines


def expanded(text: str, environment: Mapping[str, str]) -> Expanded:
    """Put values in the place of `${NAME}` and `${NAME:-default}`; `$${` stands for `${`.

    Args:
        text: what has variables in it.
        environment: their values; the default is for one that is not there, or empty.

    Raises:
        ValueError: one is not there and has no default, or what begins with `${` has another form; no value is shown.
    """

    def value(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "${"
        name, default = found["name"], found["default"]
        if name is None:
            raise ValueError(
                f"has a ${{ that is neither ${{NAME}} nor ${{NAME:-default}}; $${{ stands for it ({text!r})"
            )
        if default is not None:
            return environment.get(name) or default[2:]
        if name not in environment:
            raise ValueError(
                f"the environment has no variable {name}; set it, or write ${{{name}:-default}} ($${{ stands for ${{)"
            )
        return environment[name]

    return Expanded(_VARIABLE.sub(value, text), text)
