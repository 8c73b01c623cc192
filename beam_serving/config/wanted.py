"""What a key of the configuration takes and what it was given, in words for the operator."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from beam_serving.text_files import Expanded

_LONGEST = 60
_MOST_MEMBERS = 8
_DEEPEST = 3
_LARGEST_SHOWN = 10**18


def reason(error: ErrorDetails, field: FieldInfo) -> str:
    """Say what was wanted where pydantic found something else: in the words of our checks, else of the key."""
    return error["msg"].removeprefix("Value error, ") if error["type"] == "value_error" else wanted(field)


def wanted(field: FieldInfo) -> str:
    """Say what a key takes: in the words of its description, else by its type and limits."""
    if field.description:
        return field.description
    if get_origin(field.annotation) is Literal:
        return f"wants {_either([str(word) for word in get_args(field.annotation)])}"
    kinds = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
    (kind,) = (kind for kind in kinds if kind is not NoneType)
    if get_origin(kind) is Annotated:
        inner = FieldInfo.from_annotation(kind)
        inner.metadata += field.metadata
        return wanted(inner)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "wants keys with values below it, indented"
    if kind is bool:
        return "wants true or false"
    if kind in (int, float):
        return f"wants a {'whole ' if kind is int else ''}number{_limits(field)}"
    raise TypeError(f"a key of type {kind} wants a description")


def _limits(field: FieldInfo) -> str:
    found = {name: getattr(one, name) for one in field.metadata for name in ("ge", "gt", "le") if hasattr(one, name)}
    least = f" from {found['ge']}" if "ge" in found else f" above {found['gt']}" if "gt" in found else ""
    most = f" to {found['le']:.17g}" if "le" in found else ""
    return f"{least}{' up' if most and 'gt' in found else ''}{most}"


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def given(value: object) -> str:
    """Return a value as YAML would have it, cut short; one with variables in it as it stands in the file."""
    return _given(value, 0)


def _given(value: object, depth: int) -> str:
    if isinstance(value, Expanded):
        return repr(value.raw)
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST else f"{value[:_LONGEST]}...")
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value) if abs(value) < _LARGEST_SHOWN else "a number with many digits"
    if isinstance(value, float):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}.get(repr(value), repr(value))
    if isinstance(value, bytes | bytearray):
        return "binary data"
    if isinstance(value, list | tuple | set | dict):
        return _members(value, depth)
    return str(value)  # a date


def _members(value: list[Any] | tuple[Any, ...] | set[Any] | dict[Any, Any], depth: int) -> str:
    opened, closed = ("{", "}") if isinstance(value, dict | set) else ("[", "]")
    if depth == _DEEPEST and value:
        return f"{opened}...{closed}"
    shown: list[str] = []
    for member in value:
        if len(shown) == _MOST_MEMBERS:
            shown.append("...")
            break
        of = f": {_given(value[member], depth + 1)}" if isinstance(value, dict) else ""
        name = member if isinstance(value, dict) and isinstance(member, str) else _given(member, depth + 1)
        shown.append(f"{name}{of}")
    return f"{opened}{', '.join(shown)}{closed}"
