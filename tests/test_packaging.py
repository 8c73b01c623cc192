"""What is imported is declared: setup.py names it, also where another package would bring it along."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from beam_serving.cli.main import SERVICE_MODULES
from tests.setup_py import ROOT, declared

SHIPPED = [*(ROOT / "beam_serving").rglob("*.py"), *(ROOT / "runners").rglob("*.py")]
PACKAGES = {
    "cv2": "opencv-python-headless",
    "google.protobuf": "protobuf",
    "grpc": "grpcio",
    "pyflink": "apache-flink-libraries",
    "yaml": "PyYAML",
}
"""Whose name is not that of the import."""
BROUGHT_ALONG = {"triton"}
"""What torch brings on some systems; it is looked for and never asked for."""
NOT_SHIPPED = {"dev", "docker", "all"}
"""Extras for the project's own tests: what is imported must not come from them."""


def imported(path: Path) -> Iterator[str]:
    """Yields the modules that a file imports, those among them that it looks for by name when it runs."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "find_spec")):
            yield from (one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str))


def package_of(module: str) -> str:
    named = next((name for name in PACKAGES if f"{module}.".startswith(f"{name}.")), None)
    return canonicalize_name(PACKAGES[named] if named else module.split(".")[0])


def test_each_package_that_is_imported_is_declared() -> None:
    told = declared()
    extras = {name: needs for name, needs in told["extras_require"].items() if name not in NOT_SHIPPED}
    needs = [*told["install_requires"], *(need for of_extra in extras.values() for need in of_extra)]
    known = {canonicalize_name(Requirement(need).name) for need in needs}
    wanted: dict[str, set[str]] = {}
    for path in SHIPPED:
        for module in imported(path):
            if module.split(".")[0] not in {*sys.stdlib_module_names, "beam_serving"}:
                wanted.setdefault(package_of(module), set()).add(str(path.relative_to(ROOT)))
    assert {package: by for package, by in wanted.items() if package not in known | BROUGHT_ALONG} == {}
    assert len(wanted) > 20


def test_what_a_client_needs_is_no_more_than_numpy_a_redis_client_and_click() -> None:
    needs = {canonicalize_name(Requirement(need).name) for need in declared()["install_requires"]}
    assert needs == {"click", "hiredis", "numpy", "redis"}


def test_each_extra_of_the_service_brings_the_service() -> None:
    extras = declared()["extras_require"]
    of_clients = {"encryption", "legacy", "pandas"}
    for name, needs in extras.items():
        assert name in of_clients or set(extras["serve"]) <= set(needs), name


def test_the_command_line_knows_the_modules_that_a_client_does_not_have() -> None:
    extra = {canonicalize_name(Requirement(need).name) for need in declared()["extras_require"]["serve"]}
    assert {package_of(module) for module in SERVICE_MODULES - {"google"}} | {"protobuf"} == extra


def test_redis_stays_below_a_major_version_that_nobody_has_tried() -> None:
    (redis,) = (need for need in map(Requirement, declared()["install_requires"]) if need.name == "redis")
    assert redis.specifier.contains("8.1.0")
    assert not redis.specifier.contains("9.0.0")
