"""What commands print, without anything that a terminal would obey, and what becomes of it where nobody reads it.

A reader that has seen enough, as `head`, ends a command quietly, with the exit code of a process that a closed pipe
ends. What cannot be written for another reason, as to a full disk, is an error.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Generic, TextIO, TypeVar, cast

from beam_serving.errors import BeamServingError, printable_lines

if TYPE_CHECKING:
    from tqdm import tqdm

PIPE_CLOSED = 128 + signal.SIGPIPE
"""The exit code where the reader of the output is gone."""
_USUAL_COLUMNS = 80
_T = TypeVar("_T")


class PipeClosedError(BeamServingError):
    """Nobody reads what a command prints any more."""


class OutputLostError(BeamServingError):
    """What a command prints cannot be written."""


def say(text: str, *, to: TextIO | None = None, flush: bool = False) -> None:
    """Print lines for a person or a program, by default to standard output.

    Raises:
        PipeClosedError: nobody reads them.
        OutputLostError: they cannot be written. What was meant for standard error is dropped then.
    """
    with _beside_bars(to or sys.stdout), written(to or sys.stdout):
        print(printable_lines(text), file=to or sys.stdout, flush=flush)


def _beside_bars(to: TextIO | None) -> AbstractContextManager[None]:
    """Take bars of progress off the terminal while something is printed."""
    loaded = sys.modules.get("tqdm")
    return nullcontext() if loaded is None else loaded.tqdm.external_write_mode(file=to)


@contextmanager
def written(to: TextIO | None) -> Iterator[None]:
    """Tell what goes wrong while something is printed.

    Raises:
        PipeClosedError: nobody reads it.
        OutputLostError: it cannot be written.
    """
    try:
        yield
    except BrokenPipeError as err:
        if to is not sys.stderr:
            raise PipeClosedError("nobody reads the output") from err
    except OSError as err:
        if to is not sys.stderr:
            raise OutputLostError(f"standard output cannot be written ({err.strerror or err})") from err


def prepare() -> None:
    """Make the streams ready: what an encoding does not have is escaped, and the number of a closed one is taken."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file or connection would get the number, and what is printed.
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def finish() -> None:
    """Write what is still in memory.

    Raises:
        PipeClosedError: nobody reads it.
        OutputLostError: it cannot be written.
    """
    for stream in (sys.stderr, sys.stdout):
        if stream is not None:
            with written(stream):
                stream.flush()


def drop_output() -> None:
    """Let what could not be written go, so that Python does not try again when it ends."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def columns() -> int:
    """Return the width of the terminal, 80 where it does not say."""
    return shutil.get_terminal_size((_USUAL_COLUMNS, 1)).columns or _USUAL_COLUMNS


def is_terminal() -> bool:
    """Return whether standard output is looked at by a person."""
    return sys.stdout is not None and sys.stdout.isatty()


class _NoBar(Generic[_T]):
    """What is there of a bar where there is none."""

    def __init__(self, items: Iterable[_T] | None) -> None:
        self._items = items
        self.total: float | None = None
        self.n = 0.0

    def update(self, by: float = 1) -> None:
        """Count."""
        self.n += by

    def __iter__(self) -> Iterator[_T]:
        return iter(self._items or ())

    def __enter__(self) -> _NoBar[_T]:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def progress(items: Iterable[_T] | None = None, *, doing: str, total: int | None = None, unit: str = "") -> tqdm[_T]:
    """Return a bar of progress on standard error, which is silent where that is no terminal, and fits into one.

    Args:
        items: what is gone through; without it `update` says how far it is.
        doing: what is done, in a word.
        total: how many there are, where that is known.
        unit: what is counted.
    """
    try:
        from tqdm import tqdm  # loads slowly
    except ModuleNotFoundError:  # of the client alone
        return cast("tqdm[_T]", _NoBar(items))
    unit = f" {unit}" if unit else ""
    file = io.StringIO() if sys.stderr is None else sys.stderr
    return tqdm(items, desc=doing, total=total, unit=unit, leave=False, disable=None, dynamic_ncols=True, file=file)
