"""Where the job server's jar comes from. Java and Maven are small programs here; the engines' tests have real ones."""

import logging
import zipfile
from pathlib import Path

import pytest

from beam_serving.errors import ConfigError
from beam_serving.launch.portable import jar as jar_module
from beam_serving.launch.portable.checksum import content_checksum
from beam_serving.launch.portable.jar import (
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


def jar_of(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED, year: int = 2000) -> Path:
    with zipfile.ZipFile(path, "w", compression) as jar:
        for name, content in entries.items():
            jar.writestr(zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0)), content, compression)
    return path


def same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def pinned(engine: Engine) -> str:
    return engine.pom.with_name("content.sha256").read_text(encoding="ascii").strip()


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
    engine: Engine, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = jar_of(tmp_path / "made.jar", {"a": b"1"})
    monkeypatch.setenv("JAR", str(made))
    monkeypatch.setattr(jar_module, "content_checksum", lambda jar: pinned(engine) if same(jar, made) else "other")
    build = 'mkdir "${4%/*}/target"; cp "$JAR" "${4%/*}/target/job-server.jar"'
    program(tmp_path, "mvn", f'echo "[INFO] --- maven-shade-plugin:3.5.1:shade (default) @ x ---"; {build}')
    caplog.set_level(logging.INFO)
    jar = find_or_build(engine, None)
    assert same(jar, made)
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
    monkeypatch.setattr(jar_module, "runners_folder", lambda: tmp_path)
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
    monkeypatch.setattr(jar_module, "runners_folder", lambda: tmp_path)
    program(tmp_path, "mvn", 'mkdir "${4%/*}/target"; cp "$JAR" "${4%/*}/target/guard.jar"')
    built = []
    for content in ("<a/>", "<b/>", "<a/>"):
        (source / "pom.xml").write_text(content, encoding="utf-8")
        made = jar_of(tmp_path / "made.jar", {"a": content.encode()})
        monkeypatch.setenv("JAR", str(made))
        (source / "content.sha256").write_text(f"{content_checksum(made)}\n", encoding="ascii")
        built.append(find_or_build_guard())
        assert built[-1].name == "guard.jar"
        assert same(built[-1], made)
    assert built[0] == built[2] != built[1]


def test_the_guard_beside_a_job_server_that_was_named_is_taken(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jar_module, "runners_folder", lambda: tmp_path / "nowhere")
    (tmp_path / "opt").mkdir()
    named, guard = tmp_path / "opt" / "server.jar", tmp_path / "opt" / "guard.jar"
    with pytest.raises(ConfigError, match=r"put a built guard\.jar beside .*/opt/server\.jar$"):
        guard_options(named)
    guard.touch()
    assert guard_options(named) == [f"-javaagent:{guard}=all"]
    assert guard_options(named, all_ports=False) == [f"-javaagent:{guard}"]


def test_a_build_that_holds_something_else_is_refused_and_leaves_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAR", str(jar_of(tmp_path / "made.jar", {"org/apache/A.class": b"evil"})))
    program(tmp_path, "mvn", 'mkdir "${4%/*}/target"; cp "$JAR" "${4%/*}/target/job-server.jar"')
    with pytest.raises(ConfigError, match=r"Maven built holds something else than .*/content\.sha256 says"):
        find_or_build(FLINK, None)
    assert list(cache.iterdir()) == []


MANIFEST = b"Manifest-Version: 1.0\r\nMain-Class: a.very.long.na\r\n me\r\n"


@pytest.mark.parametrize(
    ("entries", "equal"),
    [
        ({"a": b"1", "b": b"2"}, True),
        ({"b": b"2", "a": b"1"}, True),
        ({"a": b"1", "b": b"2", "META-INF/maven/beam-serving/x/pom.properties": b"#today"}, True),
        ({"a": b"1", "b": b"3"}, False),
        ({"a": b"1"}, False),
        ({"a": b"1", "b": b"2", "c": b""}, False),
        ({"a": b"1", "b": b"2", "META-INF/maven/org.other/x/pom.properties": b"#today"}, False),
    ],
)
def test_a_checksum_is_of_names_and_contents(entries: dict[str, bytes], equal: bool, tmp_path: Path) -> None:
    manifest = {"META-INF/MANIFEST.MF": MANIFEST}
    first = content_checksum(jar_of(tmp_path / "1.jar", {**manifest, "a": b"1", "b": b"2"}))
    told = {"META-INF/MANIFEST.MF": b"Build-Jdk: 21\nCreated-By: Maven\n" + MANIFEST.replace(b"\r\n", b"\n")}
    assert (
        content_checksum(jar_of(tmp_path / "2.jar", {**entries, **told}, zipfile.ZIP_STORED, 2020)) == first
    ) is equal


def test_another_main_class_is_another_content(tmp_path: Path) -> None:
    names = (MANIFEST, MANIFEST.replace(b"very", b"evil"))
    sums = {content_checksum(jar_of(tmp_path / "1.jar", {"META-INF/MANIFEST.MF": name})) for name in names}
    assert len(sums) == 2


@pytest.mark.java
def test_the_guard_that_is_run_is_the_one_that_was_looked_at() -> None:
    wanted = (jar_module.runners_folder() / "guard" / "content.sha256").read_text(encoding="ascii").strip()
    assert content_checksum(find_or_build_guard()) == wanted
