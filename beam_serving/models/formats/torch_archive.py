"""What a file of PyTorch holds, told without unpickling it: unpickling runs whatever code the file names."""

import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from beam_serving.models.formats.checked_zip import ZIP_ERRORS, ArchiveError, check_members, copy_or_reason

_PICKLE_START = b"\x80"
_MOST_PICKLE_BYTES = 1 << 20
# What a dictionary of tensors needs; anything else that the pickle names is a class to be built from code.
_TENSOR_MODULES = ("collections", "torch", "torch._utils", "torch.storage", "torch.serialization")

CODE = re.compile(r"^[^/]+/code/[\w./-]+\.py$", re.ASCII)
"""Source of TorchScript in an archive."""
WEIGHTS = re.compile(r"^[^/]+/(data|traced_inputs)/\d+$")
"""Contents of tensors that no code refers to."""
TORCHBIND = re.compile(r"(quantized|rnn|sparse|xnnpack|mkldnn)\.\w+")
"""Classes of torch itself, which hold packed weights."""

_MEMBER = re.compile(
    r"(data|constants|traced_inputs)(\.pkl|/\d+)|code/[\w./-]+\.py|version|byteorder|\.format_version"
    r"|\.storage_alignment|\.data/(serialization_id|version)",
    re.ASCII,
)
"""What torch reads of an archive to run it. The rest, such as notes for debugging, is left out when it is loaded."""
_OF_CLASS = re.compile(rb"__torch__(?:\.torch\.classes\.([\w.]*\n?\w*))?")
_EXPORT = "export it with torch.jit.trace(model, example).save('model.pt') or torch.jit.script(model).save('model.pt')"
_DAMAGED = "is no TorchScript archive: the file is damaged, incomplete or something else; export it again"
_WEIGHTS = f"holds a state dict, weights without an architecture; load it into its model and {_EXPORT}"
_MODULE = f"holds a pickled module, which runs code of its own when it is loaded; {_EXPORT}"
_PICKLE = f"is a pickle, which runs code of its own when it is loaded; {_EXPORT}"


def reason_to_refuse(path: Path) -> str | None:
    """Say why this file is not served, as the end of a sentence about it; None for a TorchScript archive.

    A TorchScript archive is a zip with `constants.pkl`; `torch.save` writes one with `data.pkl` alone.
    """
    try:
        with path.open("rb") as file:
            if file.read(1) == _PICKLE_START:
                return _PICKLE
        with zipfile.ZipFile(path) as archive:
            check_members(archive, path.stat().st_size)
            return _reason(archive)
    except ArchiveError as err:
        return f"{err}; {_EXPORT}"
    except ZIP_ERRORS:
        return _DAMAGED


def checked_copy(path: Path) -> IO[bytes]:
    """Return a copy of a TorchScript archive in memory, of what Python found in it and looked at.

    Torch has a zip reader of its own, which may find other parts in a file that was made for it.

    Raises:
        ValueError: it is not safe to load; the message is the end of a sentence about it.
    """
    return copy_or_reason(path, _check, _DAMAGED, _EXPORT)


def _check(archive: zipfile.ZipFile) -> Callable[[str], bool]:
    if reason := _reason(archive):
        raise ArchiveError(reason.removesuffix(f"; {_EXPORT}"))
    return lambda name: bool(_MEMBER.fullmatch(name.partition("/")[2]))


def _reason(archive: zipfile.ZipFile) -> str | None:
    members = _members(archive)
    if "constants.pkl" in members and "data.pkl" in members:
        if len({name.partition("/")[0] for name in archive.namelist()}) > 1:
            return f"holds parts in several directories; {_EXPORT}"
        return _reason_of_objects(archive, members)
    if "data.pkl" not in members:
        return _DAMAGED
    with archive.open(members["data.pkl"]) as pickled:
        return _MODULE if _names_classes(pickled.read(_MOST_PICKLE_BYTES)) else _WEIGHTS


def _reason_of_objects(archive: zipfile.ZipFile, members: dict[str, str]) -> str | None:
    """Look at the classes of the objects in an archive: torch makes these while it reads it, in C++ or in its code."""
    for part in ("constants.pkl", "data.pkl", "traced_inputs.pkl"):
        for found in _OF_CLASS.findall(archive.read(members[part]) if part in members else b""):
            bound = found.decode("ascii", "replace").replace("\n", ".")
            if bound and not TORCHBIND.fullmatch(bound):
                return f"holds an object of torch.classes.{bound}, which may do more than compute; {_EXPORT}"
            if not bound and part == "constants.pkl":
                return f"holds an object with code among its constants; {_EXPORT}"
    return None


def was_traced(path: Path) -> bool:
    """Return whether a TorchScript archive remembers the inputs that it was traced with."""
    with zipfile.ZipFile(path) as archive:
        return "traced_inputs.pkl" in _members(archive)


def _members(archive: zipfile.ZipFile) -> dict[str, str]:
    """Return the members by their names without the archive's own directory."""
    return {name.partition("/")[2]: name for name in archive.namelist()}


def _names_classes(pickled: bytes) -> bool:
    """Return whether a pickle builds more than dictionaries of tensors; `genops` only reads it."""
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and str(argument).split(" ")[0] not in _TENSOR_MODULES:
            return True
        if opcode.name == "STACK_GLOBAL" and strings[-2:-1] and strings[-2] not in _TENSOR_MODULES:
            return True
        if isinstance(argument, str):
            strings.append(argument)
    return False
