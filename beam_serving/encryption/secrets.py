"""Where a secret and its salt come from: environment variables or a file of two lines, never the configuration."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from beam_serving.errors import ConfigError

LEAST_SECRET_CHARS = 16
LEAST_SALT_CHARS = 8
_LONGEST_FILE_BYTES = 4096
_OF_EVERY_OLD_SERVER = ("secret", "salt")


@dataclass(frozen=True)
class Secret:
    """What a key is made of; neither part is ever shown."""

    secret: str = field(repr=False)
    salt: str = field(repr=False)


@dataclass(frozen=True)
class Place:
    """Where the secret for one purpose is looked for: its file if one is named, else its two variables."""

    secret_variable: str
    salt_variable: str
    file_key: str

    def __str__(self) -> str:
        return f"set {self.secret_variable} and {self.salt_variable}, or {self.file_key} to a file of two lines"

    def read(self, file: str | None) -> Secret:
        """Reads secret and salt; `file` is what the configuration names.

        Raises:
            ConfigError: there are none, or they are those that everybody knows; the message does not repeat them.
        """
        lines = _lines_of(file, self.file_key) if file else None
        if lines is not None:
            secret, salt = lines
        else:
            secret, salt = os.environ.get(self.secret_variable, ""), os.environ.get(self.salt_variable, "")
        if not secret or not salt:
            raise ConfigError(f"{'secret' if not secret else 'salt'} for decryption is missing; {self}")
        if (secret, salt) == _OF_EVERY_OLD_SERVER:
            raise ConfigError(f"secret and salt are those built into Cluster Serving, which all know; {self}")
        return Secret(secret, salt)


MODEL = Place("BEAM_SERVING_MODEL_SECRET", "BEAM_SERVING_MODEL_SALT", "model: secret_file")
RECORDS = Place("BEAM_SERVING_RECORD_SECRET", "BEAM_SERVING_RECORD_SALT", "data: secret_file")


def reason_not_to_use(secret: Secret) -> str | None:
    """Says why nothing new is encrypted with this secret, as a sentence, or gives None.

    65536 rounds of PBKDF2 hold up an attacker who guesses by a few milliseconds a try.
    """
    if len(secret.secret) < LEAST_SECRET_CHARS:
        return f"secret has {len(secret.secret)} characters, wanted are at least {LEAST_SECRET_CHARS}"
    if len(secret.salt) < LEAST_SALT_CHARS:
        return f"salt has {len(secret.salt)} characters, wanted are at least {LEAST_SALT_CHARS}"
    return None


def _lines_of(file: str, key: str) -> tuple[str, str]:
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(_LONGEST_FILE_BYTES + 1)
        lines = content.decode().splitlines()
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "not UTF-8 text"
        raise ConfigError(f"{key} {file}: {reason}") from err
    if len(lines) != 2 or not all(lines) or len(content) > _LONGEST_FILE_BYTES:
        raise ConfigError(f"{key} {file}: wants two lines, the secret and the salt")
    return lines[0], lines[1]
