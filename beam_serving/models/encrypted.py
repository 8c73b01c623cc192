"""Encrypted model folders: decrypted into memory while they are loaded, and never written in clear.

encryption   the files of the folder
none         are the model's
gcm          as `beam-serving model encrypt` wrote them: any change of a byte or a name is an error
cbc          as Cluster Serving wanted them: see `beam_serving.encryption.cbc`
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from beam_serving.encryption.cbc import open_old_file
from beam_serving.encryption.gcm import FILE_MARK, keys_of
from beam_serving.encryption.secrets import MODEL, Secret
from beam_serving.errors import ModelLoadError
from beam_serving.models.base import ModelOptions
from beam_serving.models.detect import ModelFiles, find_model
from beam_serving.models.formats.registry import NOOP, format_of
from beam_serving.models.memory_folder import MemoryFolder, memory_folder

Opener = Callable[[IO[bytes], IO[bytes], str], None]


class _Opened(NamedTuple):
    """A model and the folder that it is found in, which is not the one that was asked for while it is decrypted."""

    files: ModelFiles
    folder: Path


@contextmanager
def opened_model(directory: Path | str, options: ModelOptions) -> Iterator[ModelFiles]:
    """Find the one model in a directory, as `find_model` does, and decrypt it where the options say so.

    What is decrypted is gone when the block ends: load it inside. Messages of what is raised in the block name the
    files of the directory.

    Raises:
        ModelLoadError: see `find_model`; or it is encrypted otherwise than the options say.
        ConfigError: the secret is missing, or weak where that is not allowed.
    """
    with _opened(Path(directory), options) as opened:
        yield opened.files


def look_at(directory: Path | str, options: ModelOptions) -> ModelFiles:
    """Find the model in a directory, check that it can be decrypted, and name its files as they lie there.

    Raises:
        ModelLoadError, ConfigError: see `opened_model`.
    """
    with _opened(Path(directory), options) as (files, folder):
        if files.format == NOOP:
            return files
        there = [path and Path(directory) / path.relative_to(folder) for path in (files.model, files.weights)]
        return ModelFiles(files.format, there[0] or files.model, there[1])


@contextmanager
def decrypted_files(directory: Path, options: ModelOptions) -> Iterator[Path]:
    """Yield the folder with the files of a directory in clear: itself, or one in memory that is gone afterwards.

    Raises:
        ModelLoadError: a file cannot be decrypted, or is encrypted where the options say that none is.
        ConfigError: the secret is missing, or weak where that is not allowed.
    """
    if options.encryption == "none":
        _refuse_sealed(directory)
        yield directory
        return
    opener = _opener(options.encryption, MODEL.read(options.secret_file, allow_weak=options.allow_weak_secret))
    with memory_folder() as folder:
        for name in files_in(directory):
            _open(opener, directory, name, folder)
        yield folder.path


@contextmanager
def _opened(directory: Path, options: ModelOptions) -> Iterator[_Opened]:
    if NOOP in (options.engine, str(directory)):
        yield _Opened(find_model(directory, options.engine), directory)
        return
    with decrypted_files(directory, options) as folder:
        try:
            files = find_model(folder, options.engine)
            if options.encryption != "none":
                check_stays_in_memory(files, directory)
            yield _Opened(files, folder)
        except ModelLoadError as err:
            if folder == directory:
                raise
            raise ModelLoadError(str(err).replace(str(folder), str(directory))) from err


def files_in(directory: Path) -> list[Path]:
    """Return the files of a model's directory, relative to it; what starts with a dot does not count.

    Raises:
        ModelLoadError: it cannot be read, or there are none.
    """
    try:
        found = sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    except OSError as err:
        raise ModelLoadError(f"{directory}: cannot be read ({err.strerror}); wanted is a model directory") from err
    visible = [name for name in found if not any(part.startswith(".") for part in name.parts)]
    if not visible:
        raise ModelLoadError(f"{directory}: there is no file in it; wanted is a directory with an encrypted model")
    return visible


def is_sealed(path: Path) -> bool:
    """Return whether a file is one that `model encrypt` wrote.

    Raises:
        ModelLoadError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(FILE_MARK)) == FILE_MARK
    except OSError as err:
        raise ModelLoadError(f"{path}: cannot be read ({err.strerror})") from err


def check_stays_in_memory(files: ModelFiles, directory: Path) -> None:
    """Refuse a format whose loader writes files of its own, in clear.

    Raises:
        ModelLoadError: it is a Keras file, which another process exports first.
    """
    if files.format == "keras":
        remedy = "encrypt the directory that model.export('directory') writes"
        raise ModelLoadError(f"{directory}: {format_of(files.format).title} is written in clear to be loaded; {remedy}")


def _opener(encryption: str, secret: Secret) -> Opener:
    if encryption == "gcm":
        return keys_of(secret).open_file
    return lambda sealed, plain, _: open_old_file(secret, sealed, plain)


def _open(opener: Opener, directory: Path, name: Path, folder: MemoryFolder) -> None:
    try:
        with (directory / name).open("rb") as sealed, folder.create(name) as plain:
            opener(sealed, plain, name.as_posix())
    except ValueError as err:
        raise ModelLoadError(f"{directory / name}: {err}") from err
    except OSError as err:
        raise ModelLoadError(f"{directory / name}: cannot be decrypted into memory ({err.strerror})") from err


def _refuse_sealed(directory: Path) -> None:
    """Tell what to set, where otherwise an engine would say that it cannot read the model."""
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if path.is_file() and not path.name.startswith(".") and is_sealed(path):
            raise ModelLoadError(f"{path}: is encrypted; set model: encryption: gcm")
