"""The rules by which `--fast` finds what it leaves out."""

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.needs import _SLOW, LEFT_OUT, ROOT, marks_of_file, marks_of_test
from tests.service import service


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("import torch.nn\n", {"torch"}),
        ("from keras import layers\n", {"tensorflow"}),
        ('tf = pytest.importorskip("tensorflow")\n', {"tensorflow"}),
        ("from tests.models.tensorflow_models import lite\n", {"tensorflow"}),
        ("import torchless\ndef model():\n    import torch\n", set()),
    ],
)
def test_a_file_has_the_marks_of_what_it_imports(text: str, marks: set[str], tmp_path: Path) -> None:
    path = tmp_path / "test_a.py"
    path.write_text(text, encoding="utf-8")
    assert marks_of_file(path) == marks


def starts() -> object:
    return service


def calls() -> object:
    return [starts() for _ in range(1)]


def loads() -> None:
    import torch  # noqa: F401 - it is not called


def harmless() -> None:
    return None


def marks(function: Callable[[], object], params: dict[str, Any] | None = None, **fixtures: Any) -> frozenset[str]:
    defined = {name: [types.SimpleNamespace(func=func)] for name, func in fixtures.items()}
    item: Any = types.SimpleNamespace(
        path=Path(__file__),
        function=function,
        _fixtureinfo=types.SimpleNamespace(name2fixturedefs=defined),
        callspec=types.SimpleNamespace(params=params or {}),
    )
    return marks_of_test(item)


def test_a_test_has_the_marks_of_what_it_and_its_fixtures_call() -> None:
    assert marks(harmless) == set()
    assert marks(calls) == {"service"}
    assert marks(harmless, running=calls) == {"service"}
    assert marks(harmless, job_server_jar=harmless) == {"java"}
    assert marks(harmless, {"model": loads}) == {"torch"}
    assert marks(harmless, {"form": "torch_export", "engine": "openvino"}) == {"torch"}


def test_the_list_of_slow_files_names_files(pytestconfig: pytest.Config) -> None:
    assert [name for name in _SLOW if not (ROOT / "tests" / name).is_file()] == []
    declared = {line.split(":")[0] for line in pytestconfig.getini("markers")}
    assert set(LEFT_OUT) <= declared
