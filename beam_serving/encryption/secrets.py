"""Where a secret and its salt come from: environment variables or a file of two lines, never the configuration.

A weak secret (`beam_serving.encryption.strength`) is refused wherever it is given. What was encrypted with one before
can be read where the operator says so (`allow_weak_secret`); nothing new is encrypted with it.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from beam_serving.encryption.strength import MAKE_ONE, OF_EVERY_OLD_SERVER, weakness
from beam_serving.errors import ConfigError
from beam_serving.text_files import NotReadableError, lines_of, text_of

_log = logging.getLogger(__name__)
_LONGEST_FILE_BYTES = 4096


@dataclass(frozen=True)
class Secret:
    """What a key is made of; neither part is ever shown.

    Raises:
        TypeError: a part is no `str`.
        ValueError: a part cannot be UTF-8, as an environment variable of other bytes.
    """

    secret: str = field(repr=False)
    salt: str = field(repr=False)

    def __post_init__(self) -> None:
        for what, part in (("secret", self.secret), ("salt", self.salt)):
            if not isinstance(part, str):
                raise TypeError(f"{what} is {type(part).__name__}, wanted is str")
            if any("\ud800" <= sign <= "\udfff" for sign in part):
                raise ValueError(f"{what} is not UTF-8 text")


@dataclass(frozen=True)
class Place:
    """Where the secret for one purpose is looked for: its file if one is named, else its two variables."""

    secret_variable: str
    salt_variable: str
    file_key: str
    allow_key: str

    def __str__(self) -> str:
        return f"set {self.secret_variable} and {self.salt_variable}, or {self.file_key} to a file of two lines"

    def read(self, file: str | None, *, allow_weak: bool = False) -> Secret:
        """Read secret and salt to decrypt with; `file` is what the configuration names.

        Raises:
            ConfigError: there are none, others may write the file, they are weak and that is not allowed, or they are
                those that everybody knows; the message does not repeat them.
        """
        lines = _lines_of(file, self.file_key) if file else None
        if lines is not None:
            secret, salt = lines
        else:
            secret, salt = os.environ.get(self.secret_variable, ""), os.environ.get(self.salt_variable, "")
        if not secret or not salt:
            raise ConfigError(f"{'secret' if not secret else 'salt'} for decryption is missing; {self}")
        if (secret, salt) == OF_EVERY_OLD_SERVER:
            raise ConfigError(f"secret and salt are those built into Cluster Serving, which all know; {self}")
        try:
            given = Secret(secret, salt)
        except ValueError as err:
            raise ConfigError(f"{err}; {self}") from err
        if not allow_weak and (reason := reason_not_to_use(given)):
            raise ConfigError(f"{reason}; {self}; what is encrypted with it already is read with {self.allow_key}")
        return given

    def read_to_encrypt(self, file: str | None) -> Secret:
        """Read secret and salt to encrypt something new with.

        Raises:
            ConfigError: see `read`; a weak secret is never allowed.
        """
        given = self.read(file, allow_weak=True)
        if reason := reason_not_to_use(given):
            raise ConfigError(f"{reason}; {self}")
        return given


MODEL = Place(
    "BEAM_SERVING_MODEL_SECRET",
    "BEAM_SERVING_MODEL_SALT",
    "model: secret_file",
    "model: allow_weak_secret: true (--allow-weak-secret of the command model)",
)
RECORDS = Place(
    "BEAM_SERVING_RECORD_SECRET",
    "BEAM_SERVING_RECORD_SALT",
    "data: secret_file",
    "data: allow_weak_secret: true",
)


def reason_not_to_use(secret: Secret) -> str | None:
    """Say why nothing new is encrypted with this secret and how to make one, or return None.

    However many the rounds of PBKDF2: they hold up an attacker who guesses by a fraction of a second a try.
    """
    reason = weakness(secret.secret, secret.salt)
    return reason and f"{reason}; {MAKE_ONE}"


def warn_of_readers(files: Iterable[tuple[str, str | None]]) -> None:
    """Warn of files with secrets that every user of the machine may use; `files` are pairs of key and path.

    It is no more than a warning: orchestrators mount secrets so, where no other users are. A file that is not there is
    for those to tell who need it.
    """
    for key, path in files:
        if not path:
            continue
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            _log.warning("%s %s: every user may read or write it (mode %04o); chmod 600 it", key, path, mode & 0o7777)


def _lines_of(file: str, key: str) -> tuple[str, str]:
    try:
        with Path(file).open("rb") as opened:
            _refuse_writers(opened.fileno(), f"{key} {file}")
            content = opened.read(_LONGEST_FILE_BYTES + 1)
        lines = lines_of(text_of(content))
    except (OSError, NotReadableError) as err:
        reason = err.strerror if isinstance(err, OSError) else err
        raise ConfigError(f"{key} {file}: {reason}") from err
    if len(lines) != 2 or not all(lines) or len(content) > _LONGEST_FILE_BYTES:
        raise ConfigError(f"{key} {file}: wants two lines, the secret and the salt")
    return lines[0], lines[1]


def _refuse_writers(descriptor: int, subject: str) -> None:
    """Refuse a file that every user may write: what it holds is anybody's secret."""
    mode = os.fstat(descriptor).st_mode
    if mode & stat.S_IWOTH and stat.S_ISREG(mode):
        raise ConfigError(f"{subject}: every user may write it (mode {stat.S_IMODE(mode):04o}); chmod 600 it")
