"""What a Keras file holds, told without Keras: its description, and that no part of it lies in another file.

A file is what its name says, as it is for Keras: `.keras` is a zip, `.h5` and `.hdf5` are HDF5, whatever else is in it.
Files of HDF5 can name other files for parts of themselves, by links, as raw storage or as virtual datasets.
"""

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from beam_serving.models.formats.checked_zip import ArchiveError, rewritten

_MEMBER = re.compile(r"(config|metadata)\.json|model[\w.]*\.(h5|json)|(assets/[\w./ -]*)", re.ASCII)
_LAYOUT = "model.weights.json"


class WeightsOnlyError(Exception):
    """The file holds weights without a model."""


def description(path: Path) -> Any:
    """Return the description of the model in a file.

    Raises:
        WeightsOnlyError: there is none.
        ArchiveError: the file is not what Keras writes.
        OSError, ValueError, ...: the file is damaged.
    """
    if path.suffix.lower() == ".keras":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    import h5py

    with h5py.File(path, "r") as file:
        _refuse_other_files(file)
        if "model_config" not in file.attrs:
            raise WeightsOnlyError
        return json.loads(file.attrs["model_config"])


def checked_copy(path: Path) -> IO[bytes]:
    """Return a copy of a `.keras` file in memory, of what Python found in it and looked at.

    Raises:
        ArchiveError, OSError, ValueError, ...: see `description`.
    """
    return rewritten(path, _check)


def _check(archive: zipfile.ZipFile) -> Callable[[str], bool]:
    import h5py

    for info in archive.infolist():
        if not info.is_dir() and not _MEMBER.fullmatch(info.filename):
            raise ArchiveError(f"holds {info.filename[:60]!r}, which no file of Keras has; save it again")
        if info.filename.endswith(".h5"):
            with h5py.File(io.BytesIO(archive.read(info)), "r") as file:
                _refuse_other_files(file)
    if _LAYOUT in archive.namelist():
        for name in _texts(json.loads(archive.read(_LAYOUT)).get("weight_map", {})):
            if not re.fullmatch(r"[\w.]+", name):
                raise ArchiveError(f"keeps weights in {name[:60]!r}; wanted is a part of the file itself")
    return lambda _: True


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(inner)


def _refuse_other_files(file: Any) -> None:
    """Look at each link and dataset of a file of HDF5, without following any out of it.

    Raises:
        ArchiveError: one lies in another file.
    """
    import h5py

    seen: set[Any] = set()
    waiting = [file]
    while waiting:
        group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        for name in group:
            kind = group.get(name, getclass=True, getlink=True)
            if kind is not h5py.HardLink and kind is not h5py.SoftLink:
                raise _elsewhere(f"{group.name.rstrip('/')}/{name}")
            if kind is h5py.SoftLink:
                continue
            one = group[name]
            if isinstance(one, h5py.Dataset) and (one.external or one.is_virtual):
                raise _elsewhere(one.name)
            if isinstance(one, h5py.Group):
                waiting.append(one)


def _elsewhere(name: str) -> ArchiveError:
    return ArchiveError(f"keeps {name[:100]!r} in another file; wanted is one file with all weights, save it again")
