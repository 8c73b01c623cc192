"""What images are made of: pinned by digest and hash, locked as setup.py and constraints.txt say, and listed."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import locked
import pytest
import sbom
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.setup_py import declared, needed, wanted

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
FILES = sorted(path.stem for path in locked.LOCKS.glob("*.txt"))
OURS = ("serving", *locked.EXTRAS)
DIGEST = r"@sha256:[0-9a-f]{64}"


def names(file: str) -> set[str]:
    return {one.name for one in locked.read(file)}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


@pytest.fixture(scope="module")
def packaging() -> dict[str, Any]:
    """What setup.py says, asked of setuptools."""
    return declared()


@pytest.mark.parametrize("file", FILES)
def test_every_locked_package_has_one_version_and_hashes_and_no_place(file: str) -> None:
    text = (locked.LOCKS / f"{file}.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash=)", text, re.MULTILINE)
    entries = locked.read(file)
    assert entries
    assert len({one.name for one in entries}) == len(entries)
    for one in entries:
        assert one.version
        assert one.needed_on()
        assert one.hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in one.hashes)


@pytest.mark.parametrize("file", [*OURS, "build"])
def test_what_is_locked_has_the_versions_of_the_constraints(file: str) -> None:
    pinned = constraints()
    assert {one.name: one.version for one in locked.read(file)} == {name: pinned[name] for name in names(file)}


def test_what_every_image_has_is_what_setup_wants_and_nothing_else(packaging: dict[str, Any]) -> None:
    requirements = list(wanted([*packaging["install_requires"], *packaging["extras_require"]["serve"]]))
    versions = {one.name: one.version for one in locked.read("serving")}
    assert all(one.specifier.contains(versions[canonicalize_name(one.name)]) for one in requirements)
    always = {one.name for one in locked.read("serving") if one.needed_on(("3.11.16",))}
    assert always == needed(requirements)


@pytest.mark.parametrize("extra", locked.EXTRAS)
def test_a_file_of_an_extra_has_what_that_adds(extra: str, packaging: dict[str, Any]) -> None:
    requirements = list(wanted(packaging["extras_require"][extra]))
    versions = {one.name: one.version for file in ("serving", extra) for one in locked.read(file)}
    assert all(one.specifier.contains(versions[canonicalize_name(one.name)]) for one in requirements)
    assert needed(requirements) <= names("serving") | names(extra)
    assert not names("serving") & names(extra)


def test_what_builds_our_package_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert needed(map(Requirement, project["build-system"]["requires"])) == names("build")


def test_every_image_that_is_named_has_a_digest() -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE))
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) - stages == {"${PYTHON_IMAGE}"}
    assert re.search(rf"^ARG PYTHON_IMAGE=python:3.11-slim-bookworm{DIGEST}$", dockerfile, re.MULTILINE)
    composed = yaml.safe_load((DOCKER / "docker-compose.yml").read_text(encoding="utf-8"))
    pulled = [one["image"] for one in composed["services"].values() if "build" not in one]
    assert pulled
    assert all(re.fullmatch(rf"\$\{{[A-Z_]+:-[a-z]+:[0-9a-z.-]+{DIGEST}\}}", image) for image in pulled)


def test_no_step_of_an_image_installs_python_packages_without_hashes() -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    steps = [step for line in dockerfile.splitlines() if line.startswith("RUN") for step in line.split("&&")]
    installs = [step for step in steps if re.search(r"\bpip\b.*\b(install|wheel|download)\b", step)]
    assert len(installs) == 4
    for step in installs:
        assert "--no-index" in step or ("--require-hashes" in step and "--only-binary :all:" in step)


def test_the_list_of_an_image_has_what_its_lock_files_have() -> None:
    extras = locked.EXTRAS
    bill = json.loads(sbom.bill_of("serving", extras))
    base, *packages = bill["components"]
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert base["type"] == "container"
    assert f"@sha256:{base['hashes'][0]['content']}" in (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    listed = {
        (one["name"], one["version"]): {
            f"sha256:{each['content']}" for place in one["externalReferences"] for each in place["hashes"]
        }
        for one in packages
    }
    entries = [one for file in ("serving", *extras) for one in locked.read(file) if one.needed_on(("3.11.16",))]
    assert listed == {(one.name, one.version): set(one.hashes) for one in entries}
    assert {one["ref"] for one in bill["dependencies"]} == {bill["metadata"]["component"]["bom-ref"]}


def test_an_extra_without_a_lock_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sbom.main(["--out", str(tmp_path), "--extras", "gcp"])
    said = "extra 'gcp' has no lock file; there are heif, pandas, tensorflow, torch"
    assert capsys.readouterr().err.strip().endswith(said)


@pytest.mark.long
def test_the_list_of_the_image_with_flink_has_the_jars_of_its_job_server() -> None:
    pom = (ROOT / "runners" / "flink" / "pom.xml").read_text(encoding="utf-8")
    bill = json.loads(sbom.bill_of("flink"))
    jars = {one["name"]: one for one in bill["components"] if one.get("purl", "").startswith("pkg:maven/")}
    assert set(re.findall(r"<artifactId>(beam-runners-flink-\S+|slf4j-jdk14)</artifactId>", pom)) <= set(jars)
    assert len(jars) > 100
    assert all({each["alg"] for each in one["hashes"]} == {"SHA-256", "SHA-512"} for one in jars.values())
    python = {one["name"] for one in bill["components"] if one.get("purl", "").startswith("pkg:pypi/")}
    assert python == {one.name for one in sbom.packages()}


@pytest.mark.long
def test_the_lock_files_are_those_that_make_lock_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lock

    monkeypatch.setattr(lock, "LOCKS", tmp_path)
    assert lock.main() == 0
    for file in (*OURS, "build"):
        written = (tmp_path / f"{file}.txt").read_text(encoding="utf-8")
        assert written == (locked.LOCKS / f"{file}.txt").read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_locked_package_has_a_wheel_with_one_of_its_hashes(machine: str, tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    where = [f"--python-platform={machine}-manylinux_2_36", "--python-version=3.11", f"--target={tmp_path}"]
    files = [f"--requirement={locked.LOCKS / name}.txt" for name in (*OURS, "build")]
    flags = ["--dry-run", "--require-hashes", "--only-binary=:all:", *where, *files]
    ended = subprocess.run([uv, "pip", "install", *flags], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
