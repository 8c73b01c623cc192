"""Where the job server's jar comes from. Java and Maven are small programs here; the engines' tests have real ones."""

import logging
from pathlib import Path

import pytest

from beam_serving.errors import ConfigError
from beam_serving.portable import jar as jar_module
from beam_serving.portable.jar import (
    FLINK,
    SPARK,
    Engine,
    find_or_build,
    find_or_build_guard,
    guard_options,
    require_java,
)

ENGINES = pytest.mark.parametrize("engine", [FLINK, SPARK], ids=lambda engine: engine.section)


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


@ENGINES
def test_a_missing_java_is_told_with_what_to_install(engine: Engine) -> None:
    with pytest.raises(ConfigError) as caught:
        require_java(engine, "no-such-java")
    assert str(caught.value) == (
        f"--runner={engine.name}Runner needs Java, and 'no-such-java' cannot be run; "
        "install Java 17, for example Debian's package openjdk-17-jre-headless"
    )


@pytest.mark.parametrize(("version", "fits"), [("1.8.0_402", False), ("11.0.2", True), ("17.0.15", True), ("21", True)])
def test_java_must_be_new_enough(tmp_path: Path, version: str, fits: bool) -> None:
    java = program(tmp_path, "java", f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")
    if fits:
        require_java(FLINK, str(java))
        return
    with pytest.raises(ConfigError, match="needs Java 11 or newer, this is Java 8; install Java 17"):
        require_java(FLINK, str(java))


@ENGINES
def test_the_jar_that_was_named_is_taken(engine: Engine, tmp_path: Path) -> None:
    jar = tmp_path / "a.jar"
    jar.touch()
    assert find_or_build(engine, str(jar)) == jar
    with pytest.raises(ConfigError, match=rf"^{engine.section}: job_server_jar: no such file: /nowhere\.jar$"):
        find_or_build(engine, "/nowhere.jar")


@ENGINES
def test_a_jar_in_the_cache_is_not_built_again(engine: Engine, cache: Path) -> None:
    cache.mkdir(parents=True)
    jar = cache / f"{engine.section}-job-server-2.62.0.jar"
    jar.touch()
    assert find_or_build(engine, None) == jar


@ENGINES
def test_the_jar_is_built_into_the_cache_with_a_word_on_each_phase(
    engine: Engine, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build = 'mkdir "${4%/*}/target"; echo jar > "${4%/*}/target/job-server.jar"'
    program(tmp_path, "mvn", f'echo "[INFO] --- maven-shade-plugin:3.5.1:shade (default) @ x ---"; {build}')
    caplog.set_level(logging.INFO)
    jar = find_or_build(engine, None)
    assert jar.read_text(encoding="utf-8") == "jar\n"
    assert [path.name for path in cache.iterdir()] == [jar.name]
    assert caplog.messages[:2] == [
        f"building {engine.name}'s job server with Maven, once; it goes to {jar}",
        "Maven: maven-shade-plugin:3.5.1:shade",
    ]


def test_a_build_that_fails_says_why_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    program(tmp_path, "mvn", "echo '[ERROR] Could not resolve dependencies'; exit 1")
    with pytest.raises(ConfigError, match=r"^Maven cannot build Flink's job server: Could not resolve dependencies$"):
        find_or_build(FLINK, None)
    assert list(cache.iterdir()) == []


def test_a_missing_maven_is_told_with_what_to_install(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="'mvn' is not there; install Maven, for example Debian's package maven"):
        find_or_build(FLINK, None)


@ENGINES
def test_without_the_repository_a_jar_must_be_named(
    engine: Engine, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jar_module, "_RUNNERS", tmp_path)
    with pytest.raises(ConfigError, match=f"is not there; set {engine.section}: job_server_jar to a built one"):
        find_or_build(engine, None)


@ENGINES
def test_the_repository_has_what_builds_it(engine: Engine) -> None:
    assert f"{engine.name}JobServerDriver" in engine.pom.read_text(encoding="utf-8")


def test_the_guard_is_built_once_for_each_content_of_its_source(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "guard"
    source.mkdir()
    monkeypatch.setattr(jar_module, "_GUARD", source)
    program(tmp_path, "mvn", 'mkdir "${4%/*}/target"; cp "$4" "${4%/*}/target/guard.jar"')
    built = []
    for content in ("<a/>", "<b/>", "<a/>"):
        (source / "pom.xml").write_text(content, encoding="utf-8")
        built.append(find_or_build_guard())
        assert built[-1].name == "guard.jar"
        assert built[-1].read_text(encoding="utf-8") == content
    assert built[0] == built[2] != built[1]


def test_the_guard_beside_a_job_server_that_was_named_is_taken(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jar_module, "_GUARD", tmp_path / "nowhere")
    (tmp_path / "opt").mkdir()
    named, guard = tmp_path / "opt" / "server.jar", tmp_path / "opt" / "guard.jar"
    with pytest.raises(ConfigError, match=r"put a built guard\.jar beside .*/opt/server\.jar$"):
        guard_options(named)
    guard.touch()
    assert guard_options(named) == [f"-javaagent:{guard}=all"]
    assert guard_options(named, all_ports=False) == [f"-javaagent:{guard}"]
