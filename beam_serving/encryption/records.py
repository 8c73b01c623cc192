"""Whether a service takes encrypted requests, and what opens them."""

from __future__ import annotations

from typing import NamedTuple

from beam_serving.encryption.gcm import Keys, keys_of
from beam_serving.encryption.secrets import RECORDS


class Decryptor(NamedTuple):
    """What opens encrypted requests. With `everything`, a request with anything in clear is refused."""

    keys: Keys
    everything: bool


class RecordEncryption(NamedTuple):
    """What the configuration says of encrypted requests: `none`, `images` or `all`, and where the secret is."""

    wanted: str = "none"
    secret_file: str | None = None
    allow_weak_secret: bool = False

    def decryptor(self) -> Decryptor | None:
        """Read the secret, where there is something to open.

        Raises:
            ConfigError: the secret is missing, or weak where that is not allowed.
        """
        if self.wanted == "none":
            return None
        secret = RECORDS.read(self.secret_file, allow_weak=self.allow_weak_secret)
        return Decryptor(keys_of(secret), self.wanted == "all")


NOT_ENCRYPTED = RecordEncryption()
