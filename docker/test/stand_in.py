"""Images in place of those that the Dockerfile and the compose file name: made from Debian's packages, not pulled.

They show that our steps work on a Debian 12 with Python 3.11 and beside a Redis. They do not have the public images'
bytes, nor the entry point of Redis' one, and so not
the digests by which these files name the public ones: builds here are told the names.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from engine import Engine
from machine import debian_mirror

_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_JAVA_CERTIFICATES = "/etc/ssl/certs/java/cacerts"
_TRUST = "/etc/beam-serving-test/cacerts"

_DEBIAN = "docker.io/library/debian:bookworm-slim"
PYTHON = "docker.io/library/python:3.11-slim-bookworm"
REDIS = "docker.io/library/redis:7.2-bookworm"
_APT = "RUN apt-get update -q=2 && apt-get install -q=2 --yes --no-install-recommends"
# As in the public image, so that sizes compare: apt keeps neither the packages nor an index of them.
_APT_CONF = """\
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""
_CLEAN = "rm -rf /var/lib/apt/lists/*"
_STEPS = {
    PYTHON: [
        f"{_APT} python3.11 python3.11-venv python3-pip && {_CLEAN} /usr/lib/python3.11/EXTERNALLY-MANAGED",
        "RUN ln -s /usr/bin/python3.11 /usr/local/bin/python && ln -s /usr/bin/python3.11 /usr/local/bin/python3",
    ],
    REDIS: [f"{_APT} redis-server && {_CLEAN}", "WORKDIR /data"],
}


def trusted() -> dict[Path, str]:
    """Return what this machine trusts, to mount while an image is built; behind a proxy that opens TLS it must be."""
    return {Path(_CERTIFICATES): _CERTIFICATES}


def trusted_by_maven(engine: Engine) -> dict[Path, str]:
    """Return the same for Java, whose file the build writes itself: at another place, of which Maven is told."""
    start = engine.folder / "mavenrc"
    start.write_text(f"MAVEN_OPTS=-Djavax.net.ssl.trustStore={_TRUST}\n", encoding="utf-8")
    store = Path(_JAVA_CERTIFICATES)
    return {store: _TRUST, start: "/etc/mavenrc"} if store.exists() else {}


def make_stand_ins(engine: Engine) -> None:
    """Make those images that are not there yet."""
    if not engine.has_image(_DEBIAN):
        print("making a Debian to build on (once)", flush=True)
        _make_debian(engine)
    for name, steps in _STEPS.items():
        if not engine.has_image(name):
            print(f"making a stand-in of {name} (once)", flush=True)
            _make(engine, name, steps)


def _make_debian(engine: Engine) -> None:
    with tempfile.TemporaryDirectory(prefix="beam-serving-debian-", dir=engine.folder) as folder:
        root = Path(folder, "root")
        bootstrap = ["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(root)]
        subprocess.run([*bootstrap, debian_mirror()], check=True, stdout=subprocess.DEVNULL)
        (root / "etc/apt/apt.conf.d/docker-clean").write_text(_APT_CONF, encoding="utf-8")
        packing = ["tar", "-C", str(root), "--exclude=*.deb", "--exclude=./var/lib/apt/lists/*"]
        subprocess.run([*packing, "-cf", f"{folder}/root.tar", "."], check=True)
        engine.run("import", f"{folder}/root.tar", _DEBIAN)


def _make(engine: Engine, name: str, steps: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="beam-serving-image-") as folder:
        text = "\n".join((f"FROM {_DEBIAN}", *steps, ""))
        Path(folder, "Dockerfile").write_text(text, encoding="utf-8")
        engine.run("build", "--tag", name, *engine.build_flags(trusted()), folder)
