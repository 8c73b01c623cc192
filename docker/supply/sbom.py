"""Lists what is in the images as CycloneDX: `make sbom` writes build/sbom/serving.cdx.json and flink.cdx.json.

Python packages come from the lock files, by CycloneDX's tool for Python, and the jars inside Flink's job server from
Maven, by its plugin; both with hashes. The base image is named by its digest. Packages of Debian are not listed: their
versions are those of the day of the build, which a scan of the image tells.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from locked import BASE, EXTRAS, LOCKS, Locked, read

from beam_serving.models.store import cache_folder

ROOT = Path(__file__).parents[2]
IMAGES = ("serving", "flink")
_SPEC = "1.6"
_PYTHON = "3.11.16"
_MAVEN_PLUGIN = "org.cyclonedx:cyclonedx-maven-plugin:2.9.1:makeBom"
_MAVEN_FLAGS = ("-q", "--batch-mode", "--no-transfer-progress", f"-DschemaVersion={_SPEC}", "-DoutputFormat=json")
_CHECK = """\
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(str(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()) or "") or 0)
"""


def main(arguments: Sequence[str]) -> int:
    """Write the lists and return the exit code."""
    parser = argparse.ArgumentParser(description="List what is in the images, as CycloneDX.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "sbom", metavar="DIR", help="(%(default)s)")
    parser.add_argument("--image", choices=IMAGES, action="append", help="both where it is not given")
    parser.add_argument("--extras", default="", help="those that the image was built with, as torch,tensorflow")
    given = parser.parse_args(arguments)
    extras = [one for one in given.extras.split(",") if one]
    if unknown := sorted(set(extras) - set(EXTRAS)):
        parser.error(f"extra {unknown[0]!r} has no lock file; there are {', '.join(EXTRAS)}")
    given.out.mkdir(parents=True, exist_ok=True)
    for image in given.image or IMAGES:
        path = given.out / f"{image}.cdx.json"
        path.write_text(bill_of(image, extras), encoding="utf-8")
        print(path, flush=True)
    return 0


def bill_of(image: str, extras: Sequence[str] = ()) -> str:
    """Return the bill of materials of an image as JSON that CycloneDX's schema holds for.

    Raises:
        subprocess.CalledProcessError: a tool failed; it has said how.
    """
    tool = _tool()
    bill = _python_bill(tool, packages(extras))
    root = f"beam-serving:{'latest' if image == BASE else image}"
    bill["metadata"]["component"] = {"type": "container", "bom-ref": root, "name": "beam-serving", "version": image}
    parts = [bill, _jar_bill()] if image == "flink" else [bill]
    bill["components"] = [_base_image(), *(one for part in parts for one in part["components"])]
    bill["dependencies"] = [{"ref": root, "dependsOn": sorted(one["bom-ref"] for one in bill["components"])}]
    text = json.dumps(bill, indent=1, sort_keys=True) + "\n"
    subprocess.run([str(tool), "-c", _CHECK], check=True, input=text, text=True)
    return text


def packages(extras: Sequence[str] = ()) -> list[Locked]:
    """Return the locked packages that an image with these extras has, each once."""
    locked = {one.name: one for name in (BASE, *extras) for one in read(name) if one.needed_on((_PYTHON,))}
    return [locked[name] for name in sorted(locked)]


def _python_bill(tool: Path, locked: Sequence[Locked]) -> dict[str, Any]:
    command = [
        str(tool),
        "-m",
        "cyclonedx_py",
        "requirements",
        "--output-reproducible",
        "--no-validate",
        f"--spec-version={_SPEC}",
        "-",
    ]
    text = "".join(one.text for one in locked)
    ended = subprocess.run(command, check=True, input=text, stdout=subprocess.PIPE, text=True)
    bill: dict[str, Any] = json.loads(ended.stdout)
    for component in bill["components"]:
        del component["description"]  # the lines of the lock file once more
        component["bom-ref"] = component["purl"]
    return bill


def _jar_bill() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="beam-serving-sbom-") as folder:
        pom = ROOT / "runners" / "flink" / "pom.xml"
        flags = [*_MAVEN_FLAGS, f"-DoutputDirectory={folder}", f"--file={pom}"]
        subprocess.run(["mvn", *flags, _MAVEN_PLUGIN], check=True, stdout=sys.stderr)
        bill: dict[str, Any] = json.loads(Path(folder, "bom.json").read_text(encoding="utf-8"))
    for component in bill["components"]:
        component["hashes"] = [one for one in component["hashes"] if one["alg"] in ("SHA-256", "SHA-512")]
    return bill


def _base_image() -> dict[str, Any]:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^ARG PYTHON_IMAGE=([a-z]+):(\S+)@sha256:([0-9a-f]{64})$", dockerfile, re.MULTILINE)
    if found is None:
        raise ValueError("docker/Dockerfile: wanted is a line ARG PYTHON_IMAGE=name:tag@sha256:digest")
    name, tag, digest = found.groups()
    hashes = [{"alg": "SHA-256", "content": digest}]
    return {"type": "container", "bom-ref": f"{name}@{digest}", "name": name, "version": tag, "hashes": hashes}


def _tool() -> Path:
    """Return the Python that has CycloneDX's tool, from its own lock file and apart from what we depend on."""
    lock = LOCKS / "sbom.txt"
    folder = cache_folder() / f"sbom-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    python = folder / "bin" / "python"
    ready = folder / ".ready"
    if not ready.exists():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", f"--python={sys.executable}", str(folder)], check=True)
        flags = ["--quiet", "--require-hashes", "--only-binary=:all:", f"--python={python}"]
        subprocess.run([uv, "pip", "install", *flags, f"--requirement={lock}"], check=True)
        ready.touch()
    return python


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
