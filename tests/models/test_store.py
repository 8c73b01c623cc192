"""Private copies of model directories."""

import fcntl
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from beam_serving.errors import ModelLoadError
from beam_serving.models import store
from beam_serving.models.store import cache_folder, derived_folder, exclusive, private_copy, read_json, write_json


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "beam_serving"


def model_in(directory: Path, weights: bytes = b"weights") -> Path:
    (directory / "variables").mkdir(parents=True, exist_ok=True)
    (directory / "model.pb").write_bytes(b"graph")
    (directory / "variables" / "data").write_bytes(weights)
    (directory / ".hidden").write_bytes(b"not of the model")
    return directory


def test_a_copy_has_the_visible_files_and_nobody_writes_to_them(tmp_path: Path, cache: Path) -> None:
    copy = private_copy(model_in(tmp_path / "model"))

    assert copy.path == cache / "models" / copy.content / "files"
    assert (copy.path / "variables" / "data").read_bytes() == b"weights"
    assert (copy.path / "variables" / "data").stat().st_mode & 0o777 == 0o400
    assert not (copy.path / ".hidden").exists()
    copy.close()


def test_the_same_content_has_one_copy_wherever_it_lies(tmp_path: Path, cache: Path) -> None:
    first = private_copy(model_in(tmp_path / "one"))
    again = private_copy(tmp_path / "one")
    other = private_copy(model_in(tmp_path / "two"))
    changed = private_copy(model_in(tmp_path / "two", b"new"))

    assert first.content == again.content == other.content != changed.content
    assert (first.path / "variables" / "data").read_bytes() == b"weights"
    assert (changed.path / "variables" / "data").read_bytes() == b"new"
    assert not list((cache / "models").glob(".new-*"))
    for copy in (first, again, other, changed):
        copy.close()


def test_the_name_of_a_file_is_content_too(tmp_path: Path) -> None:
    model_in(tmp_path / "one")
    model_in(tmp_path / "two")
    (tmp_path / "two" / "model.pb").rename(tmp_path / "two" / "other.pb")

    assert private_copy(tmp_path / "one").content != private_copy(tmp_path / "two").content


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    file = model_in(tmp_path / "model") / "model.pb"
    before, stat = private_copy(tmp_path / "model"), file.stat()
    file.write_bytes(b"other")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert private_copy(tmp_path / "model").content != before.content
    assert (before.path / "model.pb").read_bytes() == b"graph"


def test_a_private_copy_is_its_own(tmp_path: Path) -> None:
    copy = private_copy(model_in(tmp_path / "model"))

    again = private_copy(copy.path)

    assert (again.path, again.content) == (copy.path, copy.content)
    assert again.lock is not None
    assert derived_folder(copy.path / "model.pb") == copy.path.parent / "derived"
    assert derived_folder(tmp_path / "model" / "model.pb") is None


def test_files_that_change_all_the_time_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, count = model_in(tmp_path / "model"), 0
    copied = store._copy

    def copied_while_it_is_written(*given: object) -> None:
        nonlocal count
        count += 1
        (directory / "model.pb").write_bytes(b"x" * count)
        copied(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "_copy", copied_while_it_is_written)

    with pytest.raises(ModelLoadError, match="its files change while they are read; start when they are complete"):
        private_copy(directory)
    assert count == 3


def test_files_that_change_once_are_copied_as_they_are_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, copied = model_in(tmp_path / "model"), store._copy

    def copied_while_it_is_written(*given: object) -> None:
        (directory / "model.pb").write_bytes(b"complete")
        copied(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "_copy", copied_while_it_is_written)

    copy = private_copy(directory)

    assert (copy.path / "model.pb").read_bytes() == b"complete"
    assert copy.content == store._hash_of(copy.path, [Path("model.pb"), Path("variables/data")])


def test_copies_in_use_survive_and_those_without_a_user_go(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_UNUSED_BYTES", 0)
    used, unused = private_copy(model_in(tmp_path / "a", b"a")), private_copy(model_in(tmp_path / "b", b"b"))
    unused.close()

    private_copy(model_in(tmp_path / "c", b"c"))

    assert (used.path / "model.pb").exists()
    assert not unused.path.exists()
    assert len([path for path in (cache / "models").iterdir() if path.is_dir()]) == 2


def test_unused_copies_stay_while_they_are_small(tmp_path: Path) -> None:
    unused = private_copy(model_in(tmp_path / "a", b"a"))
    unused.close()

    private_copy(model_in(tmp_path / "b", b"b"))

    assert unused.path.exists()


def test_where_no_copy_can_be_made_the_directory_is_served_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a file"))

    with caplog.at_level(logging.WARNING):
        copy = private_copy(model_in(tmp_path / "model"))

    assert (copy.path, copy.lock) == (tmp_path / "model", None)
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path / 'model'}: no private copy can be made in {tmp_path / 'a file'}")
    copy.close()


def test_a_half_written_note_of_known_files_is_none(tmp_path: Path, cache: Path) -> None:
    first = private_copy(model_in(tmp_path / "model"))
    known = cache / "models" / "known.json"
    for text in ("", "{", "[]", '{"x": 1}', '"text"'):
        known.write_text(text)
        assert private_copy(tmp_path / "model").content == first.content
    assert first.content in json.loads(known.read_text())


@pytest.mark.parametrize("damage", ["shorter", "missing", "no lock", "a file"])
def test_a_damaged_copy_is_made_anew(tmp_path: Path, cache: Path, damage: str) -> None:
    first = private_copy(model_in(tmp_path / "model"))
    file, lock = first.path / "variables" / "data", first.path.parent / "lock"
    if damage == "shorter":
        file.chmod(0o600)
        file.write_bytes(b"wei")
    elif damage == "missing":
        file.unlink()
    elif damage == "no lock":
        lock.unlink()
    else:
        shutil.rmtree(first.path.parent)
        first.path.parent.write_bytes(b"no directory")

    again = private_copy(tmp_path / "model")

    assert again.content == first.content
    assert (again.path / "variables" / "data").read_bytes() == b"weights"
    assert sorted(path.name for path in (cache / "models").iterdir()) == sorted([first.content, "known.json"])
    first.close()
    again.close()


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "", "\0", '{"a": 1}{'])
def test_what_is_no_json_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert read_json(tmp_path / "a.json") is None


def test_the_cache_is_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "beam_serving"


def test_a_file_of_the_cache_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "x.json"
    assert read_json(path) is None
    write_json(path, {"a": [1]})
    assert read_json(path) == {"a": [1]}
    assert [one.name for one in path.parent.iterdir()] == ["x.json"]


def test_a_lock_keeps_others_out_while_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    with exclusive(path), path.open("wb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
