"""AES-GCM of bytes and of files. What was changed, cut off or sealed with another key is an error, never garbage."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from typing import IO, Any, NamedTuple

from beam_serving.encryption.secrets import Secret, reason_not_to_use
from beam_serving.errors import ClientError

OLDEST, NEWEST = 1, 2
ROUNDS = {OLDEST: 65_536, NEWEST: 600_000}
"""Rounds of PBKDF2 by the version of a format: Cluster Serving's, which have no mark, are of the oldest one.

A file names its version and no number of rounds: nobody's file makes a service compute for hours. 600,000 is what
OWASP's Password Storage Cheat Sheet wants of PBKDF2 with HMAC-SHA256.
"""
KEY_BYTES = 16
IV_BYTES = 12
TAG_BYTES = 16
OVERHEAD_BYTES = IV_BYTES + TAG_BYTES
FILE_MARK = b"beam-serving encrypted file "
"""What our encrypted files begin with; the number of their version and the end of the line follow."""
MOST_FILE_BYTES = (1 << 36) - 32
"""What one IV may encrypt, by NIST SP 800-38D, section 5.2.1.1: 64 GiB."""

_PIECE_BYTES = 1 << 20


class Key:
    """An AES key. One instance may be shared by threads; it is never shown, pickled or written.

    IVs are random, so one key is good for 2**32 messages (NIST SP 800-38D, section 8.3). What it seals is of `version`.
    """

    def __init__(self, raw: bytes, version: int = NEWEST) -> None:
        # Imported here: a service without encryption need not load it.
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers import Cipher, aead, algorithms, modes
        except ImportError as err:
            raise ClientError("encryption needs cryptography: pip install 'beam-serving[encryption]'") from err

        self.version = version
        self._header = file_header(version)
        self._aead = aead.AESGCM(raw)
        self._invalid = InvalidTag
        self._stream: Any = lambda iv, tag=None: Cipher(algorithms.AES(raw), modes.GCM(iv, tag))

    def __reduce__(self) -> str:
        raise TypeError("a key does not travel; send where its secret is")

    def seal(self, plain: bytes, context: bytes = b"") -> bytes:
        """Return IV, ciphertext and tag. Only the same `context` opens it again; it is no part of the result."""
        iv = os.urandom(IV_BYTES)
        return iv + self._aead.encrypt(iv, plain, context)

    def open(self, sealed: bytes, context: bytes = b"") -> bytes:
        """Return what was sealed.

        Raises:
            ValueError: it is too short, or was sealed with another key or context, or was changed since.
        """
        if len(sealed) < OVERHEAD_BYTES:
            raise ValueError(
                f"is {len(sealed)} bytes, wanted are at least {OVERHEAD_BYTES}: {IV_BYTES} of IV, the data encrypted "
                f"with AES-GCM, {TAG_BYTES} of tag"
            )
        try:
            return self._aead.decrypt(sealed[:IV_BYTES], sealed[IV_BYTES:], context)
        except self._invalid as err:
            raise ValueError("cannot be decrypted: another secret or salt, or it was changed on the way") from err

    def seal_file(self, plain: IO[bytes], sealed: IO[bytes], name: str) -> None:
        """Write a file sealed, piece by piece: header, the seal of nothing, which tells a wrong key, IV, data, tag.

        `name` is its name in the folder of the model; under another name it cannot be opened.

        Raises:
            ValueError: it is larger than one IV may encrypt.
        """
        size_bytes = os.fstat(plain.fileno()).st_size
        if size_bytes > MOST_FILE_BYTES:
            raise ValueError(f"is {size_bytes} bytes, at most {MOST_FILE_BYTES} are encrypted")
        context, iv = self._header + name.encode(), os.urandom(IV_BYTES)
        encryptor = self._stream(iv).encryptor()
        encryptor.authenticate_additional_data(context)
        sealed.write(self._header + self.seal(b"", context) + iv)
        while piece := plain.read(_PIECE_BYTES):
            sealed.write(encryptor.update(piece))
        sealed.write(encryptor.finalize() + encryptor.tag)

    def open_file(self, sealed: IO[bytes], plain: IO[bytes], name: str) -> None:
        """Write what `seal_file` was given, piece by piece; after an error it must be thrown away.

        Raises:
            ValueError: it is no such file, too large, cut off or changed, or of another key or name.
        """
        size_bytes = os.fstat(sealed.fileno()).st_size
        data_bytes = size_bytes - len(self._header) - OVERHEAD_BYTES * 2
        if version_of(sealed) != self.version:
            raise ValueError(f"is of another version than its key, which is of {self.version}")
        if data_bytes < 0:
            raise ValueError(f"is cut off: {size_bytes} bytes")
        if data_bytes > MOST_FILE_BYTES:
            raise ValueError(f"is {size_bytes} bytes, more than one IV may encrypt")
        context = self._header + name.encode()
        try:
            self._aead.decrypt(sealed.read(IV_BYTES), sealed.read(TAG_BYTES), context)
        except self._invalid as err:
            raise ValueError("cannot be decrypted: it has another secret, salt or file name") from err
        iv, start = sealed.read(IV_BYTES), sealed.tell()
        sealed.seek(size_bytes - TAG_BYTES)
        decryptor = self._stream(iv, sealed.read(TAG_BYTES)).decryptor()
        decryptor.authenticate_additional_data(context)
        sealed.seek(start)
        while data_bytes:
            piece = sealed.read(min(_PIECE_BYTES, data_bytes))
            if not piece:
                raise ValueError("was cut off while it was read")
            plain.write(decryptor.update(piece))
            data_bytes -= len(piece)
        try:
            decryptor.finalize()
        except self._invalid as err:
            raise ValueError("was changed or cut off after it was encrypted") from err


class Keys(NamedTuple):
    """The keys of one secret: `old` opens what has the fewer rounds, `new` is for what is made from now on."""

    old: Key
    new: Key

    def of(self, version: int) -> Key:
        """Return the key of a version, which is one of `ROUNDS`."""
        return self.old if version == OLDEST else self.new

    def open_file(self, sealed: IO[bytes], plain: IO[bytes], name: str) -> None:
        """Write what `Key.seal_file` was given in this version or an older one; see `Key.open_file`.

        Raises:
            ValueError: it is no such file, of a version that is not known, or see `Key.open_file`.
        """
        version = version_of(sealed)
        sealed.seek(0)
        self.of(version).open_file(sealed, plain, name)


def file_header(version: int) -> bytes:
    """Return what an encrypted file of a version begins with; it is authenticated with all else."""
    return b"%s%d\n" % (FILE_MARK, version)


def version_of(sealed: IO[bytes]) -> int:
    """Read the header of an encrypted file.

    Raises:
        ValueError: it has none, or that of a version which is not known here.
    """
    header = sealed.read(len(file_header(NEWEST)))
    for version in ROUNDS:
        if header == file_header(version):
            return version
    if header.startswith(FILE_MARK):
        raise ValueError(f"is encrypted in a version that is not known here, which is {OLDEST} or {NEWEST}; update")
    raise ValueError("is not encrypted with AES-GCM by beam-serving model encrypt")


def raw_key(secret: Secret, version: int) -> bytes:
    """Make the bytes of a key: 20 ms for the oldest version, 170 ms for the newest (one core, AMD EPYC)."""
    return hashlib.pbkdf2_hmac("sha256", secret.secret.encode(), secret.salt.encode(), ROUNDS[version], KEY_BYTES)


def key_of(secret: Secret, version: int = NEWEST) -> Key:
    """Return the key of a secret, which is made once in a process."""
    return _made_key(secret, version)


@lru_cache(maxsize=16)
def _made_key(secret: Secret, version: int) -> Key:
    return Key(raw_key(secret, version), version)


def keys_of(secret: Secret) -> Keys:
    """Return the keys of a secret, which are made once in a process."""
    return Keys(key_of(secret, OLDEST), key_of(secret, NEWEST))


def keys_to_send_with(secret: str | None, salt: str | None) -> Keys | None:
    """Make the keys of a client, or none where it was given neither a secret nor a salt.

    Raises:
        ValueError: one of them is missing, weak or no text.
        TypeError: one of them is no `str`.
    """
    if secret is None and salt is None:
        return None
    if secret is None or salt is None:
        raise ValueError(f"{'secret' if secret is None else 'salt'} is missing; encryption needs both")
    given = Secret(secret, salt)
    if reason := reason_not_to_use(given):
        raise ValueError(reason)
    return keys_of(given)
