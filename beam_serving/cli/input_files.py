"""Requests out of files: images, arrays of NumPy, rows of JSON lines and CSV; in folders, by patterns, or by name.

The kind of a file is told by its suffix. A file with another one is an image where it is named itself.
What a folder holds beside known kinds is skipped, and what cannot be read is told: neither stops the rest.
"""

from __future__ import annotations

import binascii
import csv
import json
import lzma
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from glob import escape, glob, has_magic
from io import TextIOWrapper
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from beam_serving.errors import ConfigError
from beam_serving.text_files import encoding_of

_PHOTOS = "jpg jpeg jpe jfif png bmp dib webp tif tiff gif avif heic heif jp2 j2k jpx"
_OTHER_IMAGES = "pbm pgm ppm pnm pam pfm sr ras hdr pic exr"
IMAGES = frozenset(f".{suffix}" for suffix in f"{_PHOTOS} {_OTHER_IMAGES}".split())
ARRAYS = frozenset((".npy", ".npz"))
JSON_LINES = frozenset((".jsonl", ".ndjson"))
TABLES = frozenset((".csv", ".tsv"))
KNOWN = IMAGES | ARRAYS | JSON_LINES | TABLES
STANDARD_INPUT = "-"
_URI = "uri"
_DIGITS = 40
_PICKLED = (
    "holds Python objects, which are never loaded, since that could run anything; save numbers or texts: "
    "array.astype('float32'), array.astype('U')"
)

_BROKEN = (
    *(ValueError, EOFError, KeyError, SyntaxError, OverflowError, TypeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, TokenError),
)
"""What NumPy and `zipfile` raise of a file that is none of theirs; a RuntimeError of one that is encrypted, or is
compressed in a way that they do not know."""

Inputs = Mapping[str, Any]
"""What a request carries: an image file, a tensor or a text by the name of its input; "" is the only one."""


class NotUsableError(ValueError):
    """A file or a row of one cannot be sent; `str()` is the reason alone."""


class Source(NamedTuple):
    """A file that is to be sent, and the uri of its request, or what the uris of its rows begin with."""

    path: str
    uri: str


class Row(NamedTuple):
    """One request of a file, read, or the reason why it is none. `place` names it for messages."""

    uri: str
    place: str
    inputs: Inputs | NotUsableError


class Found(NamedTuple):
    """The files that are to be sent, and those that are not with the reason."""

    sources: list[Source]
    skipped: list[tuple[str, str]]

    def requests(self, *, by_row: bool) -> int | None:
        """Return how many requests they are, None where a file may hold several."""
        several = JSON_LINES | TABLES | (ARRAYS if by_row else frozenset())
        if any(one.path == STANDARD_INPUT or _suffix(one.path) in several for one in self.sources):
            return None
        return len(self.sources)


def find(given: Sequence[str], *, recursive: bool) -> Found:
    """Look for files: each that is named, those in a folder that are of a known kind, and those that match a pattern.

    The uri of a file is its name; in a folder, or where a pattern says `**`, the way to it from there. Where two would
    be the same, each is the path as it was given.

    Raises:
        ConfigError: something is not there, or a pattern matches nothing.
    """
    named: list[Source] = []
    skipped: list[tuple[str, str]] = []
    for one in given:
        if one == STANDARD_INPUT:
            named.append(Source(one, "stdin"))
        elif os.path.isdir(one):
            _look_into(one, recursive, named, skipped)
        elif os.path.isfile(one):
            named.append(Source(one, os.path.basename(one)))
        elif os.path.exists(one):
            raise ConfigError(f"{one}: is no file")
        elif has_magic(one):
            _match(one, recursive, named, skipped)
        else:
            raise ConfigError(f"{one}: there is no such file")
    first: dict[str, Source] = {}
    again = [source.path for source in named if first.setdefault(os.path.abspath(source.path), source) is not source]
    skipped += [(path, "was named before") for path in again]
    count = Counter(source.uri for source in first.values())
    sources = [
        source if count[source.uri] == 1 else Source(source.path, Path(source.path).as_posix())
        for source in first.values()
    ]
    return Found(sources, skipped)


def _look_into(folder: str, recursive: bool, named: list[Source], skipped: list[tuple[str, str]]) -> None:
    """Take the files of known kinds in a folder and, where asked, in those below it; links to folders are not followed.

    Raises:
        ConfigError: the folder cannot be read.
    """
    for entry in _entries(folder, lambda err: skipped.append((str(err.filename), f"cannot be read ({err.strerror})"))):
        path = entry.path
        if entry.name.startswith("."):
            skipped.append((path, "is hidden"))
        elif entry.is_dir():
            if not recursive:
                skipped.append((path, "is a folder; --recursive takes what is in it"))
            elif entry.is_symlink():
                skipped.append((path, "is a link to a folder"))
            else:
                below: list[Source] = []
                _look_into(path, recursive, below, skipped)
                named += [Source(source.path, f"{entry.name}/{source.uri}") for source in below]
        elif _suffix(path) in KNOWN and entry.is_file():
            named.append(Source(path, entry.name))
        else:
            skipped.append((path, "is of no known kind; name it to send it as an image"))


def _entries(folder: str, on_error: Callable[[OSError], None]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as err:
        on_error(err)
        return []


def _match(pattern: str, recursive: bool, named: list[Source], skipped: list[tuple[str, str]]) -> None:
    """Take the files that a pattern matches, as a shell would.

    Raises:
        ConfigError: there are none.
    """
    found = sorted(dict.fromkeys(_matches(pattern)))
    if not found:
        raise ConfigError(f"{pattern}: matches no file")
    parts = Path(pattern).parts
    fixed = os.path.join("", *parts[: next(place for place, part in enumerate(parts) if has_magic(part))])
    for path in found:
        if os.path.isfile(path):
            named.append(Source(path, Path(os.path.relpath(path, fixed or ".")).as_posix()))
        elif os.path.isdir(path) and "**" not in pattern:
            _look_into(path, recursive, named, skipped)


def _matches(pattern: str) -> Iterator[str]:
    """Yield what a pattern matches; `**` is a folder and all below it but hidden ones and links, which lead round."""
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from glob(pattern)
        return
    place = parts.index("**")
    head, tail = os.path.join("", *parts[:place]), os.path.join("", *parts[place + 1 :]) or "*"
    for root in glob(head) if head else ["."]:
        for folder, below, _ in os.walk(root):
            below[:] = [name for name in below if not name.startswith(".")]
            yield from _matches(os.path.join("" if folder == "." else escape(os.path.normpath(folder)), tail))


def rows_of(source: Source, *, by_row: bool = False, by_column: bool = False) -> Iterator[Row]:
    """Read the requests of a file, one after the other.

    Args:
        source: the file.
        by_row: whether each row along the first axis of arrays is a request.
        by_column: whether each column of a table is an input of its own; otherwise the numbers of a row are one tensor.
    """
    path, suffix = source.path, _suffix(source.path)
    try:
        if path == STANDARD_INPUT or suffix in JSON_LINES:
            yield from _of_lines(source, _parsed)
        elif suffix in TABLES:
            yield from _of_table(source, by_column)
        elif suffix in ARRAYS:
            yield from _of_arrays(source, tensors_of(path), by_row)
        else:
            yield Row(source.uri, path, {"": _content(path)})
    except NotUsableError as err:
        yield Row(source.uri, path, err)


def tensors_of(path: str | Path) -> dict[str, np.ndarray]:
    """Read the tensor of an `.npy`, whose name is "", or those of an `.npz` by their names; nothing is unpickled.

    Raises:
        NotUsableError: it cannot be read, or holds something else.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            tensors = {name: loaded[name] for name in loaded.files}
    except OSError as err:
        raise NotUsableError(f"cannot be read ({err.strerror or err})") from err
    except MemoryError as err:
        raise NotUsableError("holds more than fits into memory") from err
    except _BROKEN as err:
        if "Object arrays" in str(err) or _is_pickle(path):
            raise NotUsableError(_PICKLED) from err
        # What is of no kind that NumPy knows, it takes for a pickle.
        reason = "it has no such header" if "pickle" in str(err) else _first_line(err)
        raise NotUsableError(f"holds no tensors that NumPy reads ({reason})") from err
    if not tensors:
        raise NotUsableError("holds no tensor, wanted is one for each input of the model")
    if strange := next((name for name, tensor in tensors.items() if not isinstance(tensor, np.ndarray)), None):
        raise NotUsableError(f"holds no tensors that NumPy reads ({strange!r} is none)")
    return tensors


def _is_pickle(path: str | Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(1) == b"\x80"
    except OSError:
        return False


def _of_arrays(source: Source, tensors: Mapping[str, np.ndarray], by_row: bool) -> Iterator[Row]:
    if not by_row:
        yield Row(source.uri, source.path, tensors)
        return
    counts = {len(tensor) if tensor.ndim else None for tensor in tensors.values()}
    if len(counts) != 1 or None in counts:
        shapes = ", ".join(f"{name} {list(tensor.shape)}".lstrip() for name, tensor in tensors.items())
        raise NotUsableError(f"has no rows, or not as many in each array ({shapes})")
    for number in range(counts.pop() or 0):
        inputs = {name: tensor[number] for name, tensor in tensors.items()}
        yield Row(f"{source.uri}:{number}", f"{source.path}:{number}", inputs)


def _of_lines(source: Source, parsed: Callable[[str, str], tuple[str, Inputs]]) -> Iterator[Row]:
    for number, line in _numbered(_lines(source.path)):
        place = f"{source.path}:{number}"
        if not line.strip():
            continue
        try:
            uri, inputs = parsed(line, source.path)
        except NotUsableError as err:
            yield Row(f"{source.uri}:{number}", place, err)
        else:
            yield Row(uri or f"{source.uri}:{number}", place, inputs)


def _parsed(line: str, path: str) -> tuple[str, Inputs]:
    """Read a line of JSON: inputs by name and, where it is there, the uri; or the only input.

    Raises:
        NotUsableError: it is something else.
    """
    try:
        value = json.loads(line)
    except json.JSONDecodeError as err:
        raise NotUsableError(f"is no JSON ({err.msg} at column {err.pos + 1})") from err
    except (ValueError, RecursionError) as err:
        reason = "nested too deep" if isinstance(err, RecursionError) else "a number with too many digits"
        raise NotUsableError(f"is no JSON that is read ({reason})") from err
    if not isinstance(value, dict):
        return "", {"": _input("", value, path)}
    uri = value.pop(_URI, "")
    if not isinstance(uri, str | int) or isinstance(uri, bool):
        raise NotUsableError(f"its {_URI} is {json.dumps(uri)[:_DIGITS]}, wanted is text")
    if not value:
        raise NotUsableError('has no input, wanted is {"NAME OF AN INPUT": VALUE}')
    return str(uri), {name: _input(name, one, path) for name, one in value.items()}


def _input(name: str, value: Any, path: str) -> Any:
    """Return numbers and texts as they are, and of `{"path": ...}` and `{"b64": ...}` the image file."""
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(where := value.get("path"), str):
            return _content(_below("." if path == STANDARD_INPUT else os.path.dirname(path) or ".", where))
        if len(value) == 1 and isinstance(text := value.get("b64"), str):
            try:
                return binascii.a2b_base64(text, strict_mode=True)
            except ValueError as err:
                raise NotUsableError(f"input {name!r} is no base64 ({err})") from err
    elif isinstance(value, str | int | float | list) and not isinstance(value, bool):
        return value
    wanted = 'numbers or texts in lists, or of an image {"path": "cat.jpg"} or {"b64": "..."}'
    raise NotUsableError(f"input {name!r} is {json.dumps(value)[:_DIGITS]}, wanted is {wanted}")


def _below(folder: str, where: str) -> str:
    """Return the path of an image that a row names: rows come from anywhere, and are to send no other file.

    Raises:
        NotUsableError: it is not in the folder of the rows, or below it.
    """
    try:
        path = os.path.realpath(os.path.join(folder, where))
    except ValueError as err:
        raise NotUsableError(f"cannot be read ({err})") from err
    if os.path.commonpath([path, root := os.path.realpath(folder)]) != root:
        raise NotUsableError(f"the image {where[:_DIGITS]!r} is not in the folder of its rows, or below it")
    return path


def _of_table(source: Source, by_column: bool) -> Iterator[Row]:
    lines = _lines(source.path)
    first = next(lines, "")
    sign = "\t" if _suffix(source.path) == ".tsv" else ";" if first.count(";") > first.count(",") else ","
    rows = csv.reader((line for part in ([first], lines) for line in part), delimiter=sign, strict=True)
    head: list[str] | None = None
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if head is None and not all(map(_is_number, row)):
                head = [name.strip() for name in row]
                if "" in head or len(set(head)) != len(head):
                    raise NotUsableError(
                        f"its first line wants a name for each column, each once ({first.strip()[:80]!r})"
                    )
                continue
            place = f":{rows.line_num}"
            if head is None and by_column:
                raise NotUsableError("has no line of names, and each column wants one")
            try:
                uri, inputs = _cells(row, head or [str(number) for number in range(len(row))], by_column)
            except NotUsableError as err:
                yield Row(f"{source.uri}{place}", f"{source.path}{place}", err)
            else:
                yield Row(uri or f"{source.uri}{place}", f"{source.path}{place}", inputs)
    except csv.Error as err:
        raise NotUsableError(f"line {rows.line_num} is no row ({err})") from err


def _cells(row: Sequence[str], head: Sequence[str], by_column: bool) -> tuple[str, Inputs]:
    if len(row) != len(head):
        raise NotUsableError(f"has {len(row)} cells, wanted is one for each of {len(head)} columns")
    cells = dict(zip(head, row, strict=True))
    uri = cells.pop(_URI, "")
    if by_column:
        return uri, {name: _number(cell) if _is_number(cell) else cell for name, cell in cells.items()}
    for name, cell in cells.items():
        if not _is_number(cell):
            remedy = "--by-column sends each column as an input of its own"
            raise NotUsableError(f"column {name!r} has {cell[:_DIGITS]!r}, wanted is a number; {remedy}")
    return uri, {"": [_number(cell) for cell in cells.values()]}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str) -> int | float:
    digits = cell.strip().removeprefix("-")
    return int(cell) if digits.isascii() and digits.isdecimal() and len(digits) < _DIGITS else float(cell)


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    return enumerate(lines, 1)


def _lines(path: str) -> Iterator[str]:
    """Yield the lines of a text file as it is read, by the rule of `text_files`.

    Raises:
        NotUsableError: it cannot be read, or is no text.
    """
    try:
        with _opened(path) as file:
            encoding = encoding_of(file.peek(2)[:2])  # type: ignore[attr-defined]
            yield from TextIOWrapper(file, encoding)
    except UnicodeError as err:
        raise NotUsableError("is not UTF-8 text") from err
    except OSError as err:
        raise NotUsableError(f"cannot be read ({err.strerror})") from err


def _opened(path: str) -> BinaryIO:
    # Standard input is not closed: a copy of it is.
    return open(os.dup(0) if path == STANDARD_INPUT else path, "rb")


def _content(path: str) -> bytes:
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as err:
        raise NotUsableError(f"cannot be read ({getattr(err, 'strerror', None) or err})") from err
    if not content:
        raise NotUsableError("is empty")
    return content


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _first_line(err: BaseException) -> str:
    return str(err).partition("\n")[0]
