"""Every text file of the operator's is read alike, whatever system and editor wrote it."""

import codecs
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.config.schema import load_settings
from beam_serving.encryption.secrets import MODEL
from beam_serving.errors import ConfigError
from beam_serving.launch.portable.callers import read_secret
from beam_serving.models.labels import read_labels
from beam_serving.text_files import Expanded, NotReadableError, expanded, lines_of, read_text_file, text_of
from beam_serving.transport.connection import RedisAt

WRITTEN: dict[str, Callable[[str], bytes]] = {
    "plain": str.encode,
    "mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "cr": lambda text: text.replace("\n", "\r").encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16-be": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "notepad": lambda text: codecs.BOM_UTF16_LE + text.replace("\n", "\r\n").encode("utf-16-le"),
    "no last end": lambda text: text.removesuffix("\n").encode(),
    "blank lines behind": lambda text: f"{text}\n\n".encode(),
}

READERS: dict[str, tuple[str, Callable[[Path], object], object]] = {
    "configuration": (
        "model:\n  path: noop\n  engine: größe\n",
        lambda path: load_settings(path).model.engine,
        "größe",
    ),
    "labels": ("cat\nblåhaj\n", lambda path: read_labels(str(path)), ("cat", "blåhaj")),
    "labels in JSON": ('["cat", "blåhaj"]\n', lambda path: read_labels(str(path)), ("cat", "blåhaj")),
    "password": ("s3cret ü\n", lambda path: RedisAt(password_file=str(path)).password(), "s3cret ü"),
    "secret and salt": (
        "a secret of the tests ü\nand its salt\n",
        lambda path: (MODEL.read(str(path)).secret, MODEL.read(str(path)).salt),
        ("a secret of the tests ü", "and its salt"),
    ),
    "secret of a pool": (
        "a secret of the pool ü\n",
        lambda path: read_secret(str(path)),
        "a secret of the pool ü".encode(),
    ),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("how", WRITTEN)
def test_a_file_means_the_same_however_it_was_written(kind: str, how: str, tmp_path: Path) -> None:
    text, read, wanted = READERS[kind]
    path = tmp_path / "file"
    path.write_bytes(WRITTEN[how](text))
    path.chmod(0o600)
    assert read(path) == wanted


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a\xffb", "ab".encode("utf-16-le"), b"a\0b", b"\xed\xa0\x80"])
def test_what_is_no_text_is_refused_in_the_same_words(kind: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        READERS[kind][1](path)


@pytest.mark.parametrize("kind", READERS)
def test_a_file_that_is_not_there_is_told_with_the_reason(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        READERS[kind][1](tmp_path / "none")


@pytest.mark.parametrize("content", [b"two\nlines\n", b"two\r\nlines", codecs.BOM_UTF8 + b"a\n\nb"])
def test_a_password_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        RedisAt(password_file=str(tmp_path / "file")).password()
    assert str(caught.value) == f"redis: password_file {tmp_path}/file: wants one line, the password"


@given(
    some.text(some.characters(exclude_characters="\0\r", exclude_categories=["Cs"])),
    some.sampled_from(["plain", "mark", "utf-16"]),
)
def test_no_character_is_lost(text: str, how: str) -> None:
    if how == "plain" and text.startswith("\ufeff"):
        return  # that is the mark
    assert text_of(WRITTEN[how](text)) == text


@given(some.binary(max_size=40))
def test_whatever_the_bytes_are_they_are_text_or_refused(content: bytes) -> None:
    try:
        text = text_of(content)
    except NotReadableError as err:
        text = str(err)
    assert not set(text) & {"\r", "\0"}
    assert lines_of(text)[-1:] != [""]


def test_lines_end_where_editors_end_them_and_nowhere_else() -> None:
    assert lines_of("a\u2028b\x0c\x85\n\nc\n\n") == ["a\u2028b\x0c\x85", "", "c"]
    assert lines_of("") == []


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match="Is a directory"):
        read_text_file(tmp_path)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("${HOST}:6379", "redis-1:6379"),
        ("${HOST}${HOST}", "redis-1redis-1"),
        ("${NONE:-x y}", "x y"),
        ("${NONE:-}", ""),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY}", ""),
        ("${HOST:-x}", "redis-1"),
        ("$${HOST}", "${HOST}"),
        ("$HOST $ $$", "$HOST $ $$"),
        ("$${${HOST}", "${redis-1"),
        ("${SELF}", "${SELF}"),
    ],
)
def test_a_variable_has_its_value(text: str, wanted: str) -> None:
    found = expanded(text, {"HOST": "redis-1", "EMPTY": "", "SELF": "${SELF}"})
    assert found == wanted
    assert found.raw == text


@pytest.mark.parametrize("text", ["${", "${}", "${a b}", "${A", "${1A}", "${A-x}", "${A:x}", "x${A:-b", "$${A} ${"])
def test_what_is_no_variable_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^has a \$\{ that is neither"):
        expanded(text, {"A": "value"})


def test_a_variable_that_is_not_there_is_named_with_the_remedies() -> None:
    with pytest.raises(ValueError, match="the environment has no variable NONE; set it, or write") as caught:
        expanded("${NONE}", {})
    assert str(caught.value) == (
        "the environment has no variable NONE; set it, or write ${NONE:-default} ($${ stands for ${)"
    )


@given(some.text())
def test_a_text_without_the_sign_stays(text: str) -> None:
    without = text.replace("$", "")
    assert expanded(without, {}) == without
    assert expanded(f"$${{{without}", {}) == f"${{{without}"


def test_the_raw_text_is_no_part_of_the_value() -> None:
    assert Expanded("a", "${A}") == "a"
    assert hash(Expanded("a", "${A}")) == hash("a")


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(NotReadableError, match="it is larger than 64 MiB"):
        read_text_file("/dev/zero")
