"""Where the job server's jar comes from. Java and Maven are small programs of the test here; see test_embedded.py."""

import logging
from pathlib import Path

import pytest
from beam_serving.flink.jar import POM, find_or_build, require_java

from beam_serving.errors import ConfigError


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a PATH with nothing on it but the system's own programs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    return tmp_path / "cache" / "beam_serving"


def test_a_missing_java_is_told_with_what_to_install() -> None:
    with pytest.raises(ConfigError) as caught:
        require_java("no-such-java")
    assert str(caught.value) == (
        "--runner=FlinkRunner needs Java, and 'no-such-java' cannot be run; "
        "install Java 17, for example Debian's package openjdk-17-jre-headless"
    )


@pytest.mark.parametrize(("version", "fits"), [("1.8.0_402", False), ("11.0.2", True), ("17.0.15", True), ("21", True)])
def test_java_must_be_new_enough(tmp_path: Path, version: str, fits: bool) -> None:
    java = program(tmp_path, "java", f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")
    if fits:
        require_java(str(java))
        return
    with pytest.raises(ConfigError, match="needs Java 11 or newer, this is Java 8; install Java 17"):
        require_java(str(java))


def test_the_jar_that_was_named_is_taken(tmp_path: Path) -> None:
    jar = tmp_path / "a.jar"
    jar.touch()
    assert find_or_build(str(jar)) == jar
    with pytest.raises(ConfigError, match=r"^flink: job_server_jar: no such file: /nowhere\.jar$"):
        find_or_build("/nowhere.jar")


def test_a_jar_in_the_cache_is_not_built_again(cache: Path) -> None:
    cache.mkdir(parents=True)
    jar = cache / "flink-job-server-2.62.0.jar"
    jar.touch()
    assert find_or_build(None) == jar


def test_the_jar_is_built_into_the_cache_with_a_word_on_each_phase(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build = 'mkdir "${3%/*}/target"; echo jar > "${3%/*}/target/job-server.jar"'
    program(tmp_path, "mvn", f'echo "[INFO] --- maven-shade-plugin:3.5.1:shade (default) @ x ---"; {build}')
    caplog.set_level(logging.INFO)
    jar = find_or_build(None)
    assert jar.read_text(encoding="utf-8") == "jar\n"
    assert [path.name for path in cache.iterdir()] == [jar.name]
    assert caplog.messages[:2] == [
        f"building Flink's job server with Maven, once; it goes to {jar}",
        "Maven: maven-shade-plugin:3.5.1:shade",
    ]


def test_a_build_that_fails_says_why_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    program(tmp_path, "mvn", "echo '[ERROR] Could not resolve dependencies'; exit 1")
    with pytest.raises(ConfigError, match=r"^Maven cannot build Flink's job server: Could not resolve dependencies$"):
        find_or_build(None)
    assert list(cache.iterdir()) == []


def test_a_missing_maven_is_told_with_what_to_install(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="'mvn' is not there; install Maven, for example Debian's package maven"):
        find_or_build(None)


def test_without_the_repository_a_jar_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not there; set flink: job_server_jar to a built one"):
        find_or_build(None, tmp_path / "pom.xml")


def test_the_repository_has_what_builds_it() -> None:
    assert "FlinkJobServerDriver" in POM.read_text(encoding="utf-8")
