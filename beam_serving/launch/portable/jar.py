"""The jars that are run: named by the operator, found in the cache, or built once with Maven.

An engine's is Beam's job server. The guard goes with each Java process: it keeps its ports to this machine and to the
user who runs it (`runners/guard`).
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from beam_serving.errors import ConfigError
from beam_serving.launch.portable.checksum import content_checksum
from beam_serving.owner import tied

_log = logging.getLogger(__name__)
_PACKAGE = Path(__file__).parents[2]
_GUARD_JAR = "guard.jar"
_CHECKSUM = "content.sha256"
OLDEST_JAVA = 11
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')
_SAY_EVERY_S = 10.0


@dataclass(frozen=True)
class Engine:
    """What a job server is made for, by the name that messages use."""

    name: str

    @property
    def section(self) -> str:
        """Its section of the configuration, and its folder in `runners`."""
        return self.name.lower()

    @property
    def pom(self) -> Path:
        """What builds its job server."""
        return runners_folder() / self.section / "pom.xml"


FLINK, SPARK = Engine("Flink"), Engine("Spark")


def runners_folder() -> Path:
    """Return `runners`: inside of a package that was installed from a wheel, beside it in a checkout."""
    installed = _PACKAGE / "runners"
    return installed if installed.is_dir() else _PACKAGE.parent / "runners"


def require_java(engine: Engine, launcher: str = "java") -> None:
    """Check that there is a Java that the engine runs on.

    Raises:
        ConfigError: there is none, or it is too old; says what to install.
    """
    remedy = "install Java 17, for example Debian's package openjdk-17-jre-headless"
    try:
        ended = subprocess.run([launcher, "-version"], capture_output=True, text=True, check=True, preexec_fn=tied())
    except (OSError, subprocess.CalledProcessError) as err:
        raise ConfigError(f"--runner={engine.name}Runner needs Java, and {launcher!r} cannot be run; {remedy}") from err
    found = _VERSION.search(ended.stderr + ended.stdout)
    if found and int(found[1]) < OLDEST_JAVA:
        needed = f"--runner={engine.name}Runner needs Java {OLDEST_JAVA} or newer"
        raise ConfigError(f"{needed}, this is Java {found[1]}; {remedy}")


def find_or_build(engine: Engine, configured: str | None) -> Path:
    """Return the jar: the one that was named, else the one in the cache, which Maven fills the first time.

    Raises:
        ConfigError: the one named is not there, or none can be built.
    """
    if configured:
        if not Path(configured).is_file():
            raise ConfigError(f"{engine.section}: job_server_jar: no such file: {configured}")
        return Path(configured)
    version = _version_of(engine)
    cached = _cache_folder() / f"{engine.section}-job-server-{version}.jar"
    if not cached.is_file():
        _build(f"{engine.name}'s job server", engine.pom.parent, cached)
    return cached


def guard_options(job_server: Path | None = None, all_ports: bool = True) -> list[str]:
    """Return the options of Java that start the guard: the one beside a jar that was named, else that of the cache.

    With `all_ports` none is left at an address of the network, also where one was asked for by name.

    Raises:
        ConfigError: there is none and none can be built.
    """
    guard = find_or_build_guard(job_server)
    return [f"-javaagent:{guard}{'=all' if all_ports else ''}"]


def find_or_build_guard(job_server: Path | None = None) -> Path:
    """Return the guard's jar, which Maven makes the first time.

    Raises:
        ConfigError: there is none and none can be built.
    """
    if job_server is not None and job_server.parent != _cache_folder():
        beside = job_server.absolute().with_name(_GUARD_JAR)
        if beside.is_file():
            return beside
    source = runners_folder() / "guard"
    files = (path for path in sorted(source.rglob("*")) if "target" not in path.relative_to(source).parts)
    sources = [path for path in files if path.suffix in (".java", ".xml")]
    if not sources:
        raise ConfigError(
            f"{source}, which builds the guard of Java's ports, is not there; put a built {_GUARD_JAR} "
            f"beside {job_server or 'the job server, and name that'}"
        )
    content = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    cached = _cache_folder() / f"guard-{content[:16]}" / _GUARD_JAR
    if not cached.is_file():
        _build("the guard of Java's ports", source, cached)
    return cached


def _version_of(engine: Engine) -> str:
    try:
        text = engine.pom.read_text(encoding="utf-8")
    except OSError as err:
        remedy = f"set {engine.section}: job_server_jar to a built one"
        raise ConfigError(f"{engine.pom}, which builds {engine.name}'s job server, is not there; {remedy}") from err
    found = re.search(r"<beam\.version>([\w.-]+)</beam\.version>", text)
    return found[1] if found else "unknown"


def _build(what: str, source: Path, cached: Path) -> None:
    """Have Maven build a folder of `runners`, and move the jar to its place in the cache."""
    maven = shutil.which("mvn")
    if maven is None:
        raise ConfigError(
            f"{what} is built with Maven the first time, and 'mvn' is not there; install Maven, for example Debian's "
            f"package maven, put a built jar at {cached}, or name one (job_server_jar)"
        )
    cached.parent.mkdir(parents=True, exist_ok=True)
    _log.info("building %s with Maven, once; it goes to %s", what, cached)
    # On the same file system as the cache: the jar is moved into it whole or not at all.
    with tempfile.TemporaryDirectory(prefix="build-", dir=cached.parent) as folder:
        work = Path(folder, "source")
        shutil.copytree(source, work, ignore=shutil.ignore_patterns("target"))
        _run_maven(what, [maven, "--batch-mode", "--strict-checksums", "--file", str(work / "pom.xml"), "package"])
        (built,) = (path for path in Path(work, "target").glob("*.jar") if not path.name.startswith("original-"))
        _require_checksum(what, built, source / _CHECKSUM)
        built.replace(cached)


def _require_checksum(what: str, built: Path, expected: Path) -> None:
    """Check that what Maven brought is what was looked at when the versions were chosen.

    Raises:
        ConfigError: it is not.
    """
    wanted = expected.read_text(encoding="ascii").split()[0]
    found = content_checksum(built)
    if found != wanted:
        raise ConfigError(
            f"{what}: the jar that Maven built holds something else than {expected} says ({found}); "
            "clear Maven's repository (~/.m2/repository) and try again, and do not use this one"
        )


def _run_maven(what: str, command: list[str]) -> None:
    started = logged_at = time.monotonic()
    artifacts = 0
    log_tail = "nothing"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=tied()
    ) as maven:
        assert maven.stdout is not None  # noqa: S101 - asked for one line above
        for line in maven.stdout:
            artifacts += "Downloaded from" in line
            if "[ERROR]" in line and log_tail == "nothing":
                log_tail = line.split("[ERROR]", 1)[1].strip()
            if line.startswith("[INFO] --- "):
                _log.info("Maven: %s", line.removeprefix("[INFO] --- ").split(" (")[0])
            elif time.monotonic() - logged_at > _SAY_EVERY_S:
                logged_at = time.monotonic()
                _log.info("Maven: %d files downloaded, %.0f s", artifacts, logged_at - started)
    if maven.returncode != 0:
        raise ConfigError(f"Maven cannot build {what}: {log_tail}")
    _log.info("Maven: done in %.0f s", time.monotonic() - started)


def _cache_folder() -> Path:
    # Imported here: `status` asks for runners, and needs nothing of models.
    from beam_serving.models.store import cache_folder

    return cache_folder()
