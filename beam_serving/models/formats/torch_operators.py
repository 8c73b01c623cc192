"""Which operators a model of torch may have: those known to compute and to do nothing else.

TorchScript is a language of its own. Its code runs with the first call, and some of it while the file is read: default
values of arguments, constants of classes, and `__setstate__`. So the code is read as text first, for names that torch
knows and `torch_pure` does not; then torch compiles all of it without running any, and each operator is looked up.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from functools import cache
from typing import IO

import torch

from beam_serving.models.formats.torch_archive import CODE, TORCHBIND, WEIGHTS
from beam_serving.models.formats.torch_facts import nodes_of
from beam_serving.models.formats.torch_pure import SPACES, is_pure

_OPS = re.compile(r"(?<!\.)\bops\b(?:\.(\w+)\.)?")
_CLASS = re.compile(rb"c(__torch__[\w.]*)\n(\w+)\n")
_BOUND_CLASS = re.compile(r"__torch__\.torch\.classes\.([\w.]*)")
_NAMED = re.compile(r'[^"\']*(?:getattr\([^\'\\]*)?, "[^"\\]*"')
"""The arguments of `getattr` as torch writes them: a text could hide a name, "from\\x5ffile" or "from_" "file"."""
_REMEDY = "export the part of the model that computes"


def reason_to_refuse(archive_file: IO[bytes]) -> str | None:
    """Say why the code of a TorchScript archive is not run, as the end of a sentence about its file.

    Args:
        archive_file: an archive as `torch_archive.checked_copy` gives it.

    Raises:
        Exception: what torch raises over code that it cannot compile.
    """
    with zipfile.ZipFile(archive_file) as archive:
        names = archive.namelist()
        for name in filter(CODE.search, names):
            text = archive.read(name).decode("utf-8")
            for operator in _named_in(text):
                return _not_run(operator)
        functions = _compiled(archive)
    for function in functions:
        for operator in _impure(function.graph):
            return _not_run(operator)
    return None


def _not_run(operator: str) -> str:
    return (
        f"has the operator {operator}, which is not known to compute only; a served model must not do more; {_REMEDY}"
    )


def _named_in(text: str) -> Iterator[str]:
    """Find, in code that is not compiled yet, what could be an operator that is not allowed."""
    yield from (f"aten::{word}" for word in re.findall(r"\w+", text) if word in _impure_names())
    for found in _OPS.finditer(text):
        if found[1] not in SPACES:
            yield f"ops.{found[1] or ''}"
    for found in re.finditer(r"\bgetattr\b(?=(.*))", text):
        line = found[0] + found[1]
        if not _NAMED.fullmatch(_arguments(line)):
            yield f"{line[:60]!r}"


def _arguments(line: str) -> str:
    """Return what stands in the first brackets of a line of code; "" where they are not closed in it."""
    depth, start = 0, line.find("(") + 1
    for place, character in enumerate(line):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == ")" and depth == 0:
            return line[start:place]
    return ""


@cache
def _impure_names() -> frozenset[str]:
    names = (schema.name.partition("::") for schema in torch._C._jit_get_all_schemas())
    impure = {name for space, _, name in names if space in ("aten", "prim") and not is_pure(f"{space}::{name}")}
    # Of these, code has other meanings; where they are operators, they are found once the code is compiled.
    return frozenset(impure - {name for name in impure if name[0].isupper()} - {"profile"})


def _compiled(archive: zipfile.ZipFile) -> list[torch._C.ScriptFunction]:
    """Compile the code of an archive and run none of it: a copy without an object is read, and thus refused."""
    classes = {
        found
        for name in archive.namelist()
        if name.endswith(".pkl") and not name.endswith("constants.pkl")
        for found in _CLASS.findall(archive.read(name))
    }
    catalogue = b"\x80\x02](" + b"".join(b"c%s\n%s\n" % one for one in sorted(classes) if _is_code(one)) + b"e."
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as plain:
        for name in archive.namelist():
            if not WEIGHTS.search(name):
                plain.writestr(name, catalogue if name.endswith("/data.pkl") else archive.read(name))
    unit = torch._C.CompilationUnit()
    try:
        torch._C.import_ir_module_from_buffer(unit, copy.getvalue(), torch.device("cpu"), {}, False)
    except RuntimeError as err:
        if "Expected Object but got GenericList" not in str(err):
            raise
    return list(unit.get_functions())


def _is_code(name: tuple[bytes, bytes]) -> bool:
    return not name[0].startswith(b"__torch__.torch.classes.")


def _impure(graph: torch.Graph) -> Iterator[str]:
    for node in nodes_of(graph):
        if not is_pure(node.kind()):
            yield node.kind()
    for found in _BOUND_CLASS.findall(str(graph)):
        if not TORCHBIND.fullmatch(found):
            yield f"torch.classes.{found}"
