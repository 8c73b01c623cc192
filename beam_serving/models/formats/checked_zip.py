"""Archives that a model comes in, written anew from what was checked of them.

A file may hold two directories of its parts, or have something in front of it or behind it, so that two readers find
different parts in it. Each reader finds the same in an archive that Python wrote from what Python found.
"""

import io
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

ZIP_ERRORS = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)
"""What zipfile raises over archives that are damaged, encrypted or compressed in ways it does not know."""
_MOST_TIMES = 100
_ALWAYS_BYTES = 256 << 20


class ArchiveError(ValueError):
    """An archive is not what the tools of its format write; the message is the end of a sentence about it."""


def check_members(archive: zipfile.ZipFile, file_bytes: int) -> None:
    """Make sure that an archive has parts of plain and different names, and of a size that fits it.

    Args:
        archive: the archive.
        file_bytes: the size of its file.

    Raises:
        ArchiveError: it has not.
    """
    names: set[str] = set()
    for info in archive.infolist():
        parts = PurePosixPath(info.filename).parts
        if (
            info.filename.startswith("/")
            or ".." in parts
            or "\\" in info.filename
            or info.orig_filename != info.filename
        ):
            raise ArchiveError(f"holds {info.orig_filename[:60]!r}, which is no name of a part of it")
        # Some readers take capital and small letters for the same.
        if info.filename.casefold() in names:
            raise ArchiveError(f"holds two parts of one name, {info.filename[:60]!r}")
        names.add(info.filename.casefold())
    whole = sum(info.file_size for info in archive.infolist())
    if whole > _ALWAYS_BYTES + _MOST_TIMES * file_bytes:
        raise ArchiveError(f"would unpack to {whole} bytes, which is more than {_MOST_TIMES} times its size")


def rewritten(path: Path, check: Callable[[zipfile.ZipFile], Callable[[str], bool]]) -> IO[bytes]:
    """Return an archive with the checked parts of another one, in memory.

    Beside the model this takes the memory of its file once more while it is loaded, and 0.3 s for 100 MB.

    Args:
        path: the file.
        check: raises where the archive is not to be loaded; gives which parts, by their names, belong to the new one.

    Raises:
        ArchiveError: it is not to be loaded.
        OSError, ...: `ZIP_ERRORS`, it is no whole archive.
    """
    copy = _memory()
    with zipfile.ZipFile(path) as archive:
        check_members(archive, path.stat().st_size)
        is_wanted = check(archive)
        with zipfile.ZipFile(copy, "w") as plain:
            for name in filter(is_wanted, archive.namelist()):
                plain.writestr(zipfile.ZipInfo(name), archive.read(name))
    copy.flush()
    copy.seek(0)
    return copy


def copy_or_reason(
    path: Path,
    check: Callable[[zipfile.ZipFile], Callable[[str], bool]],
    damaged: str,
    remedy: str,
    errors: tuple[type[Exception], ...] = (),
) -> IO[bytes]:
    """Return `rewritten` of an archive, or say what is wrong with it in the words of its format.

    Args:
        path: the file.
        check: see `rewritten`.
        damaged: what is said of a file that is no whole archive.
        remedy: what is said behind every other reason.
        errors: what `check` raises, beside `ZIP_ERRORS`, over parts that are damaged.

    Raises:
        ValueError: it is not to be loaded; the message is the end of a sentence about it.
    """
    no_archive: tuple[type[Exception], ...] = (*ZIP_ERRORS, *errors)
    try:
        return rewritten(path, check)
    except ArchiveError as err:
        raise ValueError(f"{err}; {remedy}") from err
    except no_archive as err:
        raise ValueError(damaged) from err


def name_of(copy: IO[bytes]) -> str | IO[bytes]:
    """Return what a framework opens an archive in memory by: a path where it has one, which saves two copies more."""
    return copy if isinstance(copy, io.BytesIO) else f"/proc/self/fd/{copy.fileno()}"


def _memory() -> IO[bytes]:
    if not hasattr(os, "memfd_create"):
        return io.BytesIO()
    return os.fdopen(os.memfd_create("model", os.MFD_CLOEXEC), "w+b")
