"""AES-GCM of bytes and of files. What was changed, cut off or sealed with another key is an error, never garbage."""

from __future__ import annotations

import hashlib
import os
from typing import IO, Any

from beam_serving.encryption.secrets import Secret, reason_not_to_use

ROUNDS = 65_536
KEY_BYTES = 16
IV_BYTES = 12
TAG_BYTES = 16
OVERHEAD_BYTES = IV_BYTES + TAG_BYTES
FILE_HEADER = b"beam-serving encrypted file 1\n"
MOST_FILE_BYTES = (1 << 36) - 32
"""What one IV may encrypt, by NIST SP 800-38D, section 5.2.1.1: 64 GiB."""

_PIECE_BYTES = 1 << 20


class Key:
    """An AES key. One instance may be shared by threads; it is never shown, pickled or written.

    IVs are random, so one key is good for 2**32 messages (NIST SP 800-38D, section 8.3).
    """

    def __init__(self, raw: bytes) -> None:
        # Imported here: a service without encryption need not load it.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers import Cipher, aead, algorithms, modes

        self._aead = aead.AESGCM(raw)
        self._invalid = InvalidTag
        self._stream: Any = lambda iv, tag=None: Cipher(algorithms.AES(raw), modes.GCM(iv, tag))

    def __reduce__(self) -> str:
        raise TypeError("a key does not travel; send where its secret is")

    def seal(self, plain: bytes, context: bytes = b"") -> bytes:
        """Gives IV, ciphertext and tag. Only the same `context` opens it again; it is no part of the result."""
        iv = os.urandom(IV_BYTES)
        return iv + self._aead.encrypt(iv, plain, context)

    def open(self, sealed: bytes, context: bytes = b"") -> bytes:
        """Gives what was sealed.

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
        """Writes a file sealed, piece by piece: header, the seal of nothing, which tells a wrong key, IV, data, tag.

        `name` is its name in the folder of the model; under another name it cannot be opened.

        Raises:
            ValueError: it is larger than one IV may encrypt.
        """
        size_bytes = os.fstat(plain.fileno()).st_size
        if size_bytes > MOST_FILE_BYTES:
            raise ValueError(f"is {size_bytes} bytes, at most {MOST_FILE_BYTES} are encrypted")
        context, iv = FILE_HEADER + name.encode(), os.urandom(IV_BYTES)
        encryptor = self._stream(iv).encryptor()
        encryptor.authenticate_additional_data(context)
        sealed.write(FILE_HEADER + self.seal(b"", context) + iv)
        while piece := plain.read(_PIECE_BYTES):
            sealed.write(encryptor.update(piece))
        sealed.write(encryptor.finalize() + encryptor.tag)

    def open_file(self, sealed: IO[bytes], plain: IO[bytes], name: str) -> None:
        """Writes what `seal_file` was given, piece by piece; after an error it must be thrown away.

        Raises:
            ValueError: it is no such file, too large, cut off or changed, or of another key or name.
        """
        size_bytes = os.fstat(sealed.fileno()).st_size
        data_bytes = size_bytes - len(FILE_HEADER) - OVERHEAD_BYTES * 2
        if sealed.read(len(FILE_HEADER)) != FILE_HEADER:
            raise ValueError("is not encrypted with AES-GCM by beam-serving model encrypt")
        if data_bytes < 0:
            raise ValueError(f"is cut off: {size_bytes} bytes")
        if data_bytes > MOST_FILE_BYTES:
            raise ValueError(f"is {size_bytes} bytes, more than one IV may encrypt")
        context = FILE_HEADER + name.encode()
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


def raw_key(secret: Secret) -> bytes:
    """Makes the bytes of a key, in some tens of milliseconds."""
    return hashlib.pbkdf2_hmac("sha256", secret.secret.encode(), secret.salt.encode(), ROUNDS, KEY_BYTES)


def key_of(secret: Secret) -> Key:
    """Makes the key of a secret."""
    return Key(raw_key(secret))


def key_to_send_with(secret: str | None, salt: str | None) -> Key | None:
    """Makes the key of a client, or none where it was given neither a secret nor a salt.

    Raises:
        ValueError: one of them is missing or too short.
    """
    if secret is None and salt is None:
        return None
    if secret is None or salt is None:
        raise ValueError(f"{'secret' if secret is None else 'salt'} is missing; encryption needs both")
    given = Secret(secret, salt)
    if reason := reason_not_to_use(given):
        raise ValueError(reason)
    return key_of(given)
