"""The docstrings of public names say what their arguments are and what comes back."""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pydantic
import pytest

from tests.test_exports import PACKAGES

SEAMS = (
    *("beam_serving.launch.runner", "beam_serving.launch.deployed", "beam_serving.protocol.codec"),
    *("beam_serving.models.base", "beam_serving.io.readers"),
)
"""Modules whose public classes and functions others write code against."""
CALLED_BY_BEAM = ("expand", "display_data")
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):\n", re.MULTILINE)
ENTRY = re.compile(r"^    \*{0,2}(\w+): \S", re.MULTILINE)


def public_names() -> Iterator[str]:
    """As `module:name`: what is behind them is imported by the tests alone, since it may load a framework."""
    for package in PACKAGES:
        yield from (f"{package}:{name}" for name in importlib.import_module(package).__all__)
    for seam in SEAMS:
        for name, value in vars(importlib.import_module(seam)).items():
            if not name.startswith("_") and getattr(value, "__module__", None) == seam:
                yield f"{seam}:{name}"
    yield from ("beam_serving.io.consumer:Reading", "beam_serving.io.sink:DeadLetters")


NAMES = list(public_names())


def functions_of(public: str) -> dict[str, Callable[..., Any]]:
    """A public function, or a class with its public methods; of an exception the argument is its message."""
    module, _, name = public.partition(":")
    value: object = getattr(importlib.import_module(module), name)
    if inspect.isfunction(value):
        return {name: value}
    if not inspect.isclass(value) or issubclass(value, BaseException):
        return {}
    methods = {
        f"{name}.{own}": member.__func__ if isinstance(member, classmethod | staticmethod) else member
        for own, member in vars(value).items()
        if not own.startswith("_") and own not in CALLED_BY_BEAM
    }
    return {name: value, **{own: method for own, method in methods.items() if inspect.isfunction(method)}}


def is_protocol(value: object) -> bool:
    return bool(getattr(value, "_is_protocol", False))


def is_record(value: object) -> bool:
    """Whether its arguments are its attributes."""
    is_values = dataclasses.is_dataclass(value) or hasattr(value, "_fields") or is_protocol(value)
    return is_values or (inspect.isclass(value) and issubclass(value, pydantic.BaseModel))


def parameters_of(value: Callable[..., Any]) -> list[str]:
    """The names to document: of a protocol, which nobody calls, those of its attributes."""
    if is_protocol(value):
        return list(inspect.get_annotations(value))
    return [name for name in inspect.signature(value).parameters if name not in ("self", "cls")]


def sections_of(value: object) -> dict[str, str]:
    """The sections of a docstring by their names, and its summary."""
    summary, *rest = SECTION.split(inspect.getdoc(value) or "")
    return {"summary": summary, **dict(zip(rest[::2], rest[1::2], strict=True))}


def documented_in(value: object) -> list[str]:
    return ENTRY.findall(sections_of(value).get("Attributes" if is_record(value) else "Args", ""))


def says_what_it_returns(function: Callable[..., Any]) -> bool:
    sections = sections_of(function)
    is_told = not sections.keys().isdisjoint(("Returns", "Yields"))
    return is_told or sections["summary"].startswith(("Return ", "Yield "))


@pytest.mark.parametrize("public", NAMES)
def test_public_names_document_their_arguments(public: str) -> None:
    functions = functions_of(public)
    documented = {name: documented_in(value) for name, value in functions.items()}
    assert documented == {name: parameters_of(value) for name, value in functions.items()}


@pytest.mark.parametrize("public", NAMES)
def test_public_functions_say_what_they_return(public: str) -> None:
    functions = {name: value for name, value in functions_of(public).items() if not inspect.isclass(value)}
    returning = {
        name: value
        for name, value in functions.items()
        if inspect.signature(value).return_annotation not in (None, "None")
    }
    assert [name for name, value in returning.items() if not says_what_it_returns(value)] == []


def test_the_public_functions_are_found() -> None:
    """So that the tests above leave nothing out by a mistake in how they look for it."""
    found = {name for public in NAMES for name in functions_of(public)}
    wanted = {
        *("InputQueue", "InputQueue.enqueue", "AsyncOutputQueue.query", "to_pandas", "handler_for", "DeadLetters.of"),
        *("Plan.run", "EngineModel", "EngineModel.infer", "Codec", "Readers", "Reading", "ImageRules", "Deployed.stop"),
    }
    assert wanted <= found
    assert "Batch.expand" not in found
