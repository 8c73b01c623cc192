"""The structure of the code: imports point one way, Beam's type checks stay on, nothing runs what a client sends."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "beam_serving"
MODULES = sorted(PACKAGE.rglob("*.py"))

FLOORS = (
    ("errors", "owner", "records", "text_files"),
    ("transport", "encryption"),
    ("config", "protocol", "telemetry"),
    ("client", "models", "io"),
    ("transforms", "export"),
    ("pipeline",),
    ("launch",),
    ("cli", "__main__"),
)
"""Who may import whom: each room may import the rooms of the floors before its own, and itself."""
ROOMS = [room for floor in FLOORS for room in floor]

CIPHERS = "cryptography.hazmat.primitives.ciphers"
"""The Redis library imports the package around it."""
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def part_of(path: Path) -> str:
    """Gives the part of the package that a module belongs to: its top folder or its own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    """Yields the full names that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    if path == PACKAGE / "__init__.py":
        return  # the public names, which it imports when they are used: see the test below
    below = FLOORS[: next(floor for floor, rooms in enumerate(FLOORS) if part in rooms)]
    allowed = {part, "__version__", *(room for rooms in below for room in rooms)}
    if part == "__main__":
        allowed.add("cli")
    ours = {name.split(".")[1] for name in imported(tree_of(path)) if name.startswith("beam_serving.")}
    assert ours <= allowed


def test_the_package_itself_imports_nothing_of_ours() -> None:
    program = "import beam_serving, sys; print([name for name in sys.modules if name.startswith('beam_serving.')])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_the_house_has_no_room_that_has_no_floor() -> None:
    assert {part_of(path) for path in MODULES} - {"__init__"} == set(ROOMS)
    assert len(FLOORS) <= 8


def test_nothing_of_the_package_imports_the_benchmark() -> None:
    tops = {name.split(".")[0] for path in MODULES for name in imported(tree_of(path))}
    assert not tops & {"benchmarks", "tests"}


def test_the_client_knows_only_errors_records_transport_encryption_and_the_protocol() -> None:
    for path in (PACKAGE / "client").glob("*.py"):
        ours = {name.split(".")[1] for name in imported(tree_of(path)) if name.startswith("beam_serving.")}
        assert ours <= {"client", "encryption", "errors", "records", "text_files", "transport", "protocol"}, path.name


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        (
            "beam_serving.client",
            ["apache_beam", "cv2", "openvino", "orjson", "pyarrow", "pydantic", "tensorflow", "torch", "yaml", CIPHERS],
        ),
        (
            "beam_serving.cli.probe, beam_serving.config.whereabouts, beam_serving.telemetry.report",
            ["apache_beam", "numpy", "pydantic", "pyarrow", "rich"],
        ),
        *(
            (f"beam_serving.cli.commands.{command}", ["apache_beam", "cv2", "numpy", "openvino", "pyarrow", "rich"])
            for command in ("list", "serve", "status", "stop")
        ),
        ("beam_serving.cli.commands.results", ["apache_beam", "cv2", "openvino", "pyarrow", "rich"]),
        (
            "beam_serving.cli.main, beam_serving.launch.supervisor",
            ["apache_beam", CIPHERS, "cv2", "openvino", "tensorflow", "torch", "pyarrow"],
        ),
        (
            "beam_serving.protocol",
            ["apache_beam", CIPHERS, "cv2", "openvino", "redis", "tensorflow", "torch", "yaml"],
        ),
    ],
)
def test_what_need_not_be_loaded_is_not(modules: str, unwanted: list[str]) -> None:
    program = f"import sys, {modules}; print(sorted(set({unwanted}) & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_annotations_of_beam_steps_are_not_postponed(path: Path) -> None:
    tree = tree_of(path)
    bases = {
        ast.unparse(base).split("[")[0].split(".")[-1]
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    }
    if bases & {"DoFn", "PTransform", "RestrictionProvider", "CombineFn"}:
        assert "__future__.annotations" not in set(imported(tree))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_fits_in_the_head(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_runs_what_it_reads(path: Path) -> None:
    tree = tree_of(path)
    assert not {name.split(".")[0] for name in imported(tree)} & FORBIDDEN_MODULES
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {ast.unparse(call.func) for call in calls} & FORBIDDEN_CALLS
    allowed_pickles = [
        keyword
        for call in calls
        for keyword in call.keywords
        if keyword.arg == "allow_pickle"
        if ast.unparse(keyword.value) != "False"
    ]
    assert allowed_pickles == []
    loads = [call for call in calls if ast.unparse(call.func) == "torch.load"]
    assert all("weights_only=True" in ast.unparse(call) for call in loads)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_class_of_ours_inherits_from_another_but_errors(path: Path) -> None:
    classes = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]
    if path.name == "errors.py":
        assert classes
        return
    ours = {node.name for node in classes}
    bases = {ast.unparse(base) for node in classes for base in node.bases} - {"_Section"}
    assert not bases & ours


def test_what_commands_print_goes_through_one_place() -> None:
    """Which escapes what a terminal would obey."""
    for path in MODULES:
        if part_of(path) == "cli" and path.name != "terminal.py":
            calls = [ast.unparse(node.func) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
            assert not {"print", "sys.stdout.write", "sys.stderr.write"} & set(calls), path
