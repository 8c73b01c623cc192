"""What the package promises to those who install it."""

import ast
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest

import beam_serving
from beam_serving.cli import legacy_names as old_names
from beam_serving.cli import main as cli
from beam_serving.launch.portable import sdk_worker
from beam_serving.launch.portable.options import WORKER_PROGRAM

REPOSITORY = Path(__file__).parents[1]
PACKAGES = (
    "beam_serving",
    "beam_serving.client",
    "beam_serving.models",
    "beam_serving.transforms",
    "beam_serving.protocol",
)


@pytest.fixture(scope="module")
def setup_arguments() -> dict[str, Any]:
    """The arguments of `setup` in setup.py that are written out there."""
    tree = ast.parse((REPOSITORY / "setup.py").read_text(encoding="utf-8"))
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "setup"]
    written: dict[str, Any] = {}
    for keyword in call.keywords:
        try:
            written[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    return written


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_type_checkers_see_the_public_names_that_are_there() -> None:
    tree = ast.parse(Path(beam_serving.__file__).read_text(encoding="utf-8"))
    (seen,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in seen.body if isinstance(node, ast.ImportFrom)]
    names = {(alias.name, alias.asname, node.module) for node in imports for alias in node.names}
    modules = {name: f"beam_serving.{module}" for module, some in beam_serving._MODULES.items() for name in some}
    assert names == {(name, name, modules[name]) for name in beam_serving.__all__}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_has_a_docstring(package: str) -> None:
    module = importlib.import_module(package)
    missing = [name for name in module.__all__ if callable(getattr(module, name)) and not getattr(module, name).__doc__]
    assert missing == []


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'beam_serving.models' has no attribute 'zzz'$"):
        _ = importlib.import_module("beam_serving.models").zzz


def test_the_console_scripts_are_the_command_line_the_worker_of_a_cluster_and_the_old_names(
    setup_arguments: dict[str, Any],
) -> None:
    scripts = dict(script.split("=") for script in setup_arguments["entry_points"]["console_scripts"])
    found = {name: getattr(importlib.import_module(at.split(":")[0]), at.split(":")[1]) for name, at in scripts.items()}
    assert found == {
        "beam-serving": cli.main,
        WORKER_PROGRAM: sdk_worker.main,
        "cluster-serving-init": old_names.init,
        "cluster-serving-restart": old_names.restart,
        "cluster-serving-shutdown": old_names.stop,
        "cluster-serving-start": old_names.start,
        "cluster-serving-stop": old_names.stop,
    }


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_is_there(command: str) -> None:
    assert callable(importlib.import_module(f"beam_serving.cli.commands.{command.replace('-', '_')}").main)


def test_the_version_is_the_same_everywhere(setup_arguments: dict[str, Any]) -> None:
    assert setup_arguments["version"] == beam_serving.__version__


def test_types_and_the_demo_are_installed_with_the_code(setup_arguments: dict[str, Any]) -> None:
    patterns = setup_arguments["package_data"]["beam_serving"]
    package = REPOSITORY / "beam_serving"
    installed = {path for pattern in patterns for path in package.glob(pattern)}
    assert package / "py.typed" in installed
    demo = {path for path in (package / "demo").rglob("*") if path.is_file()}
    assert demo <= installed


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in (REPOSITORY / "beam_serving").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
