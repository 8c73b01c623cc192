"""Whether a service takes encrypted requests, and what opens them."""

from __future__ import annotations

from typing import NamedTuple

from beam_serving.encryption.gcm import Key, key_of
from beam_serving.encryption.secrets import RECORDS


class Opening(NamedTuple):
    """What opens encrypted requests. With `everything`, a request with anything in clear is refused."""

    key: Key
    everything: bool


class RecordEncryption(NamedTuple):
    """What the configuration says of encrypted requests: `none`, `images` or `all`, and where the secret is."""

    wanted: str = "none"
    secret_file: str | None = None

    def opening(self) -> Opening | None:
        """Reads the secret, where there is something to open.

        Raises:
            ConfigError: the secret is missing.
        """
        if self.wanted == "none":
            return None
        return Opening(key_of(RECORDS.read(self.secret_file)), self.wanted == "all")


NOT_ENCRYPTED = RecordEncryption()
