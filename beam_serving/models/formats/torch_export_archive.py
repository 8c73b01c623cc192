"""What a `.pt2` file holds, told without loading it: torch.export.load unpickles, evaluates and executes parts of it.

Allowed is only what `torch.export.save` writes for a plain model: tensors as raw bytes, a graph of operators as JSON.
In torch 2.15, weights and constants may be pickles, a compiled model is a shared library, symbolic sizes are given to
`sympy.sympify`, which evaluates them, and names of the graph become Python source. Here each of these is looked at
before. The sample inputs are a pickle in every file; `torch_export` loads them with `weights_only` first.
"""

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from beam_serving.models.formats.checked_zip import ZIP_ERRORS, ArchiveError, check_members, copy_or_reason
from beam_serving.models.formats.torch_pure import is_pure

SAMPLE_INPUTS = "data/sample_inputs/model.pt"
_GRAPH = "models/model.json"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_MEMBER = re.compile(
    rf"{_GRAPH}|{'|'.join(_CONFIGS)}|{SAMPLE_INPUTS}|data/weights/weight_\d+|data/constants/tensor_\d+"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
)
_MOST_JSON_BYTES = 1 << 28
_NAME = re.compile(r"[\w.$]{0,1000}", re.ASCII)
_PLAIN = re.compile(r"[\w.$*+:@/<> -]{0,1000}", re.ASCII)
"""What stands in no quotes of Python, and in none ends them: names of weights and arguments become source of it."""
_TEXTS = ("as_string", "as_strings", "guards_code")
"""Keys of texts: those that operators are given, which torch writes as Python does, and code that is never run."""
_TREES = ("in_spec", "out_spec", "context")
"""Keys of JSON inside texts."""
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|quantized|torchvision)\.\w+\.[A-Za-z]\w*"
    r"|torch\.ops\.higher_order\.(cond|while_loop|map_impl|scan|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|math\.[a-z]\w*|torch\.sym_[a-z]+"
)
_WORD = re.compile(
    r"[a-z]{1,4}\d{1,6}|int_oo|oo|True|False|integer|positive|nonnegative|real|finite"
    r"|Symbol|Integer|Rational|Add|Mul|Pow|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|ModularIndexing|Max|Min|Abs|Where"
    r"|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Equality|Unequality|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan"
    r"|IntTrueDiv|FloatTrueDiv|PowByNatural|ToFloat|Identity"
)
_EXPRESSION = re.compile(r"[\w\s+\-*/(),<>=]{1,1000}", re.ASCII)
_NO_PLAIN_JSON = (KeyError, TypeError, AttributeError)
_POWERS = 3
_DAMAGED = "is no archive of torch.export: the file is damaged, incomplete or something else; export it again"
_REMEDY = "export a plain model with torch.export.save, or use torch.jit.trace(model, example).save('model.pt')"


def reason_to_refuse(path: Path) -> str | None:
    """Say why this file is not served, as the end of a sentence about it; None where it is safe to load."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive, path.stat().st_size)
            return _reason(archive)
    except ArchiveError as err:
        return f"{err}; {_REMEDY}"
    except (*ZIP_ERRORS, *_NO_PLAIN_JSON):
        return _DAMAGED


def checked_copy(path: Path) -> IO[bytes]:
    """Return a copy of an archive in memory that is safe to load.

    Torch has a zip reader of its own, which may find other parts in a file that was made for it, and the file may
    change. A copy with what Python found in it is looked at and loaded. Beside the weights, this takes their memory
    once more while they are loaded, and 0.3 s for 100 MB.

    Raises:
        ValueError: it is not safe to load; the message is the end of a sentence about it.
    """
    return copy_or_reason(path, _check, _DAMAGED, _REMEDY, _NO_PLAIN_JSON)


def _check(archive: zipfile.ZipFile) -> Callable[[str], bool]:
    if reason := _reason(archive):
        raise ArchiveError(reason.removesuffix(f"; {_REMEDY}"))
    return lambda _: True


def sample_inputs(archive_file: IO[bytes]) -> bytes:
    """Return the pickled sample inputs; empty where there are none."""
    with zipfile.ZipFile(archive_file) as archive:
        members = _members(archive)
        return archive.read(members[SAMPLE_INPUTS]) if SAMPLE_INPUTS in members else b""


def _reason(archive: zipfile.ZipFile) -> str | None:
    members = _members(archive)
    if _GRAPH not in members:
        return _DAMAGED
    if odd := [name for name in members if not _MEMBER.fullmatch(name)]:
        return f"holds {odd[0]!r}, which may run code of its own when it is loaded; {_REMEDY}"
    for name in _CONFIGS:
        config = _json(archive, members[name])["config"] if name in members else {}
        if any(entry["use_pickle"] is not False for entry in config.values()):
            return f"holds pickled tensors, which run code of their own when they are loaded; {_REMEDY}"
    for name in (_GRAPH, *_CONFIGS):
        for what in _suspicious(_json(archive, members[name])) if name in members else ():
            return f"holds {what}, which may run code of its own when it is loaded; {_REMEDY}"
    return None


def _members(archive: zipfile.ZipFile) -> dict[str, str]:
    """Return the members by their names without the archive's own directory, which is one for all."""
    names = archive.namelist()
    if len({name.partition("/")[0] for name in names}) > 1:
        raise ValueError("members in several directories")
    return {name.partition("/")[2]: name for name in names}


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > _MOST_JSON_BYTES:
        raise ValueError(f"{name} is too large")
    return json.loads(archive.read(name))


def _suspicious(value: object, key: str = "") -> Iterator[str]:
    """Find what torch would evaluate or write into source of Python, and what is not of the plain form."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in ("default_factory_module", "__enum__"):
                yield f"the type {name}"
            if not _PLAIN.fullmatch(name):
                yield f"the name {name[:60]!r}"
            if name != "metadata" or not _is_of_node(value):
                yield from _suspicious(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _suspicious(inner, key)
    elif isinstance(value, str):
        yield from _suspicious_text(value, key)


def _is_of_node(value: dict[str, object]) -> bool:
    """Return whether these are the parts of a node, whose `metadata` are notes."""
    return isinstance(value.get("target"), str) and isinstance(value.get("metadata"), dict)


def _suspicious_text(value: str, key: str) -> Iterator[str]:
    if key == "expr_str":
        if not _is_arithmetic(value):
            yield f"the size {value[:60]!r}"
    elif key in ("target", "as_operator"):
        if not _is_known(value):
            yield f"the operator {value[:60]!r}"
    elif key in _TREES:
        if value:
            yield from _suspicious(json.loads(value))
    elif key not in _TEXTS and not (_NAME if key in ("name", "as_name") else _PLAIN).fullmatch(value):
        yield f"the name {value[:60]!r}"


def _is_known(target: str) -> bool:
    space, _, name = target.removeprefix("torch.ops.").partition(".")
    is_operator = target.startswith("torch.ops.") and space != "higher_order"
    return bool(_TARGET.fullmatch(target)) and (not is_operator or is_pure(f"{space}::{name}"))


def _is_arithmetic(text: str) -> bool:
    """Return whether an expression has only numbers, symbols such as `s77` and known functions.

    Powers of powers are no sizes, but may take all time and memory there is to be worked out.
    """
    text = re.sub(r"Symbol\('(\w+)'", r"Symbol(\1", text)
    words = re.findall(r"[A-Za-z_]\w*", text)
    powers = len(re.findall(r"\*\*|\bPow", text))
    return powers < _POWERS and bool(_EXPRESSION.fullmatch(text)) and all(map(_WORD.fullmatch, words))
