"""What a file of PyTorch holds, told without unpickling it: unpickling runs whatever code the file names."""

import pickletools
import zipfile
import zlib
from pathlib import Path

_PICKLE_START = b"\x80"
_MOST_PICKLE_BYTES = 1 << 20
# What a dictionary of tensors needs; anything else that the pickle names is a class to be built from code.
_TENSOR_MODULES = ("collections", "torch", "torch._utils", "torch.storage", "torch.serialization")

_EXPORT = "export it with torch.jit.trace(model, example).save('model.pt') or torch.jit.script(model).save('model.pt')"
_DAMAGED = "is no TorchScript archive: the file is damaged, incomplete or something else; export it again"
_WEIGHTS = f"holds a state dict, weights without an architecture; load it into its model and {_EXPORT}"
_MODULE = f"holds a pickled module, which runs code of its own when it is loaded; {_EXPORT}"
_PICKLE = f"is a pickle, which runs code of its own when it is loaded; {_EXPORT}"


def reason_to_refuse(path: Path) -> str | None:
    """Says why this file is not served, as the end of a sentence about it; None for a TorchScript archive.

    A TorchScript archive is a zip with `constants.pkl`; `torch.save` writes one with `data.pkl` alone.
    """
    try:
        with path.open("rb") as file:
            if file.read(1) == _PICKLE_START:
                return _PICKLE
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
            if "constants.pkl" in members and "data.pkl" in members:
                return None
            if "data.pkl" not in members:
                return _DAMAGED
            with archive.open(members["data.pkl"]) as pickled:
                return _MODULE if _names_classes(pickled.read(_MOST_PICKLE_BYTES)) else _WEIGHTS
    # What zipfile raises over archives that are damaged, encrypted or compressed in ways it does not know: a refusal.
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
        return _DAMAGED


def was_traced(path: Path) -> bool:
    """Tells whether a TorchScript archive remembers the inputs that it was traced with."""
    with zipfile.ZipFile(path) as archive:
        return "traced_inputs.pkl" in _members(archive)


def _members(archive: zipfile.ZipFile) -> dict[str, str]:
    """Gives the members by their names without the archive's own directory."""
    return {name.partition("/")[2]: name for name in archive.namelist()}


def _names_classes(pickled: bytes) -> bool:
    """Tells whether a pickle builds more than dictionaries of tensors; `genops` only reads it."""
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and str(argument).split(" ")[0] not in _TENSOR_MODULES:
            return True
        if opcode.name == "STACK_GLOBAL" and strings[-2:-1] and strings[-2] not in _TENSOR_MODULES:
            return True
        if isinstance(argument, str):
            strings.append(argument)
    return False
