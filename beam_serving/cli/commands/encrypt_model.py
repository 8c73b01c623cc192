"""Encrypts the directory of a model: a copy that only those with the secret can serve."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from beam_serving.encryption.gcm import Key, key_of
from beam_serving.encryption.secrets import MODEL
from beam_serving.errors import ConfigError, ModelLoadError
from beam_serving.models.base import ModelOptions
from beam_serving.models.detect import ModelFiles
from beam_serving.models.encrypted import check_stays_in_memory, decrypted_files, files_in, look_at


def encrypt_model(source: Path, target: Path, options: ModelOptions, secret_file: str | None) -> list[Path]:
    """Write all files of a model's directory encrypted into `target`, which appears whole or not at all.

    `options` say how the files are encrypted now. Gives their names.

    Raises:
        ConfigError: the secret is missing or weak, the source holds no model that can be served so, or the target is
            there already or cannot be written.
    """
    secret = MODEL.read_to_encrypt(secret_file)
    if target.exists():
        raise ConfigError(f"{target} exists already; name a new directory")
    files = look_at(source, options)
    check_stays_in_memory(files, source)
    names = files_in(source)
    _check_weights_inside(files, names, source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
            made = Path(folder) / "model"
            made.mkdir(mode=0o755)
            _write(source, made, names, options, key_of(secret))
            look_at(made, ModelOptions(encryption="gcm", secret_file=secret_file))
            os.rename(made, target)
    except OSError as err:
        raise ConfigError(f"{target}: cannot be written ({err.strerror})") from err
    return names


def _write(source: Path, made: Path, names: Sequence[Path], options: ModelOptions, key: Key) -> None:
    with decrypted_files(source, options) as folder:
        for name in names:
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("rb") as plain, (made / name).open("wb") as sealed:
                try:
                    key.seal_file(plain, sealed, name.as_posix())
                except ValueError as err:
                    raise ModelLoadError(f"{source / name}: {err}") from err
                sealed.flush()
                shutil.copymode(source / name, made / name)


def _check_weights_inside(files: ModelFiles, names: Sequence[Path], source: Path) -> None:
    """Refuse an ONNX model with weights in other files: its engines would want to see these on a disk.

    Raises:
        ModelLoadError: it names one.
    """
    if files.format != "onnx":
        return
    content = files.model.read_bytes()
    for name in names:
        if name.as_posix() != files.model.name and name.as_posix().encode() in content:
            remedy = "save it with save_as_external_data=False, or convert it to OpenVINO's own format"
            raise ModelLoadError(
                f"{source / name}: holds weights of {files.model.name}, which cannot be encrypted; {remedy}"
            )
