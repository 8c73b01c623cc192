"""Private copies of model directories, by the content of their files: what is served does not change under a service.

    <cache>/models/<hash>/files/...     the visible files of a model directory, read-only
    <cache>/models/<hash>/derived/...   what was made of them: a Keras model as a SavedModel
    <cache>/models/<hash>/lock          locked by every process that uses the copy
    <cache>/models/known.json           which files, by their stat data, have which hash
    <cache>/verdicts/<key>.json         how a model is served; see `beam_serving.models.trial.probing`

<cache> is `$XDG_CACHE_HOME/beam_serving`, else `~/.cache/beam_serving`; see `cache_folder`. All workers of a machine
map the same copy. Copies that nobody uses are removed, the oldest first, when they are more than 4 GiB together.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import IO, NamedTuple

from beam_serving.errors import ModelLoadError
from beam_serving.models.encrypted import files_in
from beam_serving.telemetry.context import service_context

_LOG = logging.getLogger(__name__)
_UNUSED_BYTES = 4 << 30
_TRIES = 3
_TICK_S = 0.1
_MOST_JSON_BYTES = 16 << 20


class PrivateCopy(NamedTuple):
    """A copy that stays while `lock` is open; `path` has the files, `content` is their hash."""

    path: Path
    content: str
    lock: IO[bytes] | None

    def close(self) -> None:
        """Let go of the copy, which may then be removed."""
        if self.lock is not None:
            self.lock.close()


def cache_folder() -> Path:
    """Return the folder for what can be made again; it may not exist.

    Where the user's cannot be written, as in a container with a read-only file system, it is one below the folder for
    temporary files that no other user can enter.
    """
    preferred = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beam_serving"
    if _is_ours(preferred):
        return preferred
    fallback = Path(tempfile.gettempdir()) / f"beam-serving-{os.getuid()}"
    return fallback if _is_ours(fallback, private=True) else preferred


def _is_ours(folder: Path, private: bool = False) -> bool:
    """Make a folder where there is none; tell whether we can write there and, of a `private` one, nobody else."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stat = folder.stat(follow_symlinks=False)
    except OSError:
        return False
    is_private = stat.st_uid == os.getuid() and not stat.st_mode & 0o077
    return os.access(folder, os.W_OK) and (is_private or not private)


def derived_folder(file: Path) -> Path | None:
    """Return the folder for what is made of a file of a private copy; None for other files."""
    store = cache_folder() / "models"
    if not file.is_relative_to(store):
        return None
    return store / file.relative_to(store).parts[0] / "derived"


def private_copy(directory: Path) -> PrivateCopy:
    """Copy a model directory, or find the copy of the same content; a private copy is its own.

    Where no copy can be made, on a file system that is full or read-only, the directory itself is served, with a
    warning.

    Raises:
        ModelLoadError: the directory cannot be read, has no files, or is being written to.
    """
    store = cache_folder() / "models"
    directory = directory.resolve()
    if directory.is_relative_to(store.resolve()):
        content = directory.relative_to(store.resolve()).parts[0]
        return PrivateCopy(directory, content, _lock(store / content))
    names = files_in(directory)
    for _ in range(_TRIES):
        before = _stat_of(directory, names)
        content = _known(store, before) or _hash_of(directory, names)
        try:
            copy = _copied(store, directory, names, content, before)
        except OSError as err:
            _LOG.warning(
                "%s: no private copy can be made in %s (%s); a file that changes while it is served ends its workers",
                directory,
                store,
                err.strerror or err,
            )
            return PrivateCopy(directory, content, None)
        if copy is not None:
            return copy
    raise ModelLoadError(f"{directory}: its files change while they are read; start when they are complete")


def _copied(
    store: Path, directory: Path, names: Sequence[Path], content: str, before: Mapping[str, list[int]]
) -> PrivateCopy | None:
    """Make the copy, or find it; None where the files changed meanwhile."""
    place = store / content
    if not _is_whole(place, names, before):
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_unused(store)
        building = Path(tempfile.mkdtemp(prefix=".new-", dir=store))
        try:
            _copy(directory, names, building / "files")
            if _hash_of(building / "files", names) != content:
                return None
            (building / "derived").mkdir()
            (building / "lock").touch()
            if not _is_whole(place, names, before):
                _put_aside(place, building)
            with contextlib.suppress(FileExistsError):
                _rename(building, place)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    if _stat_of(directory, names) != before:
        return None
    lock = _lock(place)
    if lock is None or not (place / "files").is_dir():
        return None
    _remember(store, before, content)
    return PrivateCopy(place / "files", content, lock)


def _is_whole(place: Path, names: Sequence[Path], stat: Mapping[str, list[int]]) -> bool:
    """Return whether a copy has a lock and all files in the sizes of the originals: disks lose them, and people."""
    try:
        sizes = [(place / "files" / name).stat().st_size for name in names]
    except OSError:
        return False
    return (place / "lock").is_file() and sizes == [size for _, size, *_ in stat.values()]


def _put_aside(place: Path, building: Path) -> None:
    """Remove a damaged copy; who has mapped its files keeps them."""
    damaged = building.with_name(f"{building.name}-damaged")
    try:
        place.rename(damaged)
    except FileNotFoundError:
        return
    if damaged.is_dir():
        shutil.rmtree(damaged, ignore_errors=True)
    else:
        damaged.unlink()


def _rename(building: Path, place: Path) -> None:
    try:
        building.rename(place)
    except OSError as err:
        if place.is_dir():
            raise FileExistsError(str(place)) from err
        raise


def _copy(directory: Path, names: Sequence[Path], target: Path) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(directory / name, target / name)
        (target / name).chmod(0o400)


def _stat_of(directory: Path, names: Sequence[Path]) -> dict[str, list[int]]:
    """Tell what changes when a file is written to: nobody sets the time of a change of status back."""
    found = {}
    for name in names:
        try:
            stat = (directory / name).stat()
        except OSError as err:
            raise ModelLoadError(f"{directory / name}: cannot be read ({err.strerror})") from err
        found[str(directory / name)] = [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    return found


def _hash_of(directory: Path, names: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for name in names:
        try:
            with (directory / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        except OSError as err:
            raise ModelLoadError(f"{directory / name}: cannot be read ({err.strerror})") from err
        whole.update(name.as_posix().encode() + b"\0" + digest)
    return whole.hexdigest()[:32]


def _known(store: Path, stat: Mapping[str, list[int]]) -> str | None:
    known = read_json(store / "known.json")
    for content, files in known.items() if isinstance(known, dict) else ():
        if files == stat:
            return str(content)
    return None


def _remember(store: Path, stat: Mapping[str, list[int]], content: str) -> None:
    known = read_json(store / "known.json")
    kept = {
        name: files for name, files in (known if isinstance(known, dict) else {}).items() if (store / name).is_dir()
    }
    if kept.get(content) != stat:
        write_json(store / "known.json", {**kept, content: stat})


def _lock(place: Path) -> IO[bytes] | None:
    """Lock a copy for use and note when; None where it has just been removed."""
    try:
        file = (place / "lock").open("rb")
    except FileNotFoundError:
        return None
    except OSError as err:
        _LOG.debug("cannot lock %s: %s", place, err)
        return None
    fcntl.flock(file, fcntl.LOCK_SH)
    with contextlib.suppress(OSError):
        os.utime(place / "lock")
    return file


def _remove_unused(store: Path) -> None:
    """Remove the copies that nobody has locked, but for the latest that are 4 GiB together."""
    copies = sorted(
        (path for path in store.iterdir() if (path / "lock").exists()),
        key=lambda path: -(path / "lock").stat().st_mtime,
    )
    unused_bytes = 0
    for path in copies:
        with (path / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            unused_bytes += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            if unused_bytes > _UNUSED_BYTES:
                shutil.rmtree(path, ignore_errors=True)


def read_json(path: Path) -> object:
    """Read a file of the cache, or one beside a model; None where it is not there, not whole, too large or no file."""
    try:
        # Opening a named pipe would wait for somebody who writes to it, and a device may have no end.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            return json.loads(file.read(_MOST_JSON_BYTES).decode())
    except (OSError, ValueError, RecursionError):
        return None


def write_json(path: Path, value: object) -> None:
    """Write a file of the cache at once, so that nobody reads half of it; a cache that cannot be written is none."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            json.dump(value, file)
        Path(file.name).replace(path)
    except OSError as err:
        _LOG.debug("cannot write %s: %s", path, err)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file, so that of several processes one computes and the others find the result.

    Raises:
        ModelLoadError: this service was asked to stop before the others were done.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = path.open("wb")
    except OSError as err:
        _LOG.debug("cannot lock %s: %s", path, err)
        yield
        return
    with file:
        while not _locked(file):
            if service_context().stop.wait(_TICK_S):
                raise ModelLoadError(f"{path.stem}: another process is at it, and the service was asked to stop")
        yield


def _locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
