"""What tests want beyond the package's own requirements: so `--fast` leaves out what is slow or not installed.

Found by rule, as marks: `java` by a fixture; `torch` and `tensorflow` by the imports of a file or what a test calls;
`service` where a test or a fixture of it starts one. By hand is marked what a rule does not see; slow files are listed.
"""

import ast
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT = ("java", "long", "service", "slow", "tensorflow", "torch")
"""Marks of what `--fast` does not run."""
_FRAMEWORKS = {"torch": "torch", "tensorflow": "tensorflow", "keras": "tensorflow", "h5py": "tensorflow"}
_HELPERS = {"tests.models.tensorflow_models": "tensorflow"}
"""Helpers that import a framework once a test asks for it."""
_CALLED = {**_FRAMEWORKS, "service": "service", "Service": "service", "quick_run": "service", "java": "java"}
_FIXTURES = {"job_server_jar": "java"}
_PARAMETERS = ("torch", "tensorflow", "keras")
"""What a format or an engine is called by that needs the framework: `torchscript`, `torch_export`, ..."""
_SLOW = frozenset(
    {
        *("benchmarks/test_compare.py", "benchmarks/test_formats.py", "cli/test_detach.py"),
        *("test_current_directory.py", "test_docs.py", "test_own_pipeline.py", "test_own_steps.py", "test_readme.py"),
        *("models/test_encrypted.py", "models/test_handler.py", "models/test_onnx_backend.py", "models/test_rows.py"),
        *("models/test_verdicts.py", "client/test_time_limits.py", "test_sentinel.py"),
    }
)
"""Files that took more than 20 seconds, of which no other rule takes most away."""


@cache
def marks_of_file(path: Path) -> frozenset[str]:
    """Return the marks of all tests of a file: by the list of slow ones, and by what it imports itself."""
    slow = path.is_relative_to(ROOT / "tests") and path.relative_to(ROOT / "tests").as_posix() in _SLOW
    marks = {"slow"} if slow else set()
    for module in _imported(path):
        top = module.split(".")[0]
        marks |= {of[name] for of, name in ((_FRAMEWORKS, top), (_HELPERS, module)) if name in of}
    return frozenset(marks)


def marks_of_test(item: pytest.Item) -> frozenset[str]:
    """Return the marks of a test: those of its file, of its fixtures, and of what these and it call."""
    info: Any = getattr(item, "_fixtureinfo", None)
    if info is None:
        return marks_of_file(item.path)
    fixtures = {name: defined[-1].func for name, defined in info.name2fixturedefs.items() if defined}
    given = list(getattr(getattr(item, "callspec", None), "params", {}).values())
    functions = [getattr(item, "function", None), *fixtures.values(), *given]
    called = {name for function in functions if isinstance(function, types.FunctionType) for name in _called(function)}
    by_name = {of[name] for of, names in ((_CALLED, called), (_FIXTURES, fixtures)) for name in names if name in of}
    words = (word for value in given if isinstance(value, str) for word in _PARAMETERS if value.startswith(word))
    return marks_of_file(item.path) | by_name | {_FRAMEWORKS[word] for word in words}


@cache
def _called(function: types.FunctionType) -> frozenset[str]:
    """Return the names that a function uses, and those of the functions of tests among them, and so on."""
    functions, names = [function], set()
    for one in functions:
        own = set(_names(one.__code__))
        names |= own
        for name in own:
            found = one.__globals__.get(name)
            if (
                isinstance(found, types.FunctionType)
                and found.__module__.startswith("tests.")
                and found not in functions
            ):
                functions.append(found)
    return frozenset(names)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _imported(path: Path) -> Iterator[str]:
    """Yield what a module imports when it is imported itself: not what its functions do."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("pytest.importorskip("):
            yield from (one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant))
