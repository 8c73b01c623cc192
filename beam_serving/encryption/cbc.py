"""The encrypted model files of Cluster Serving: base64 of IV and AES-CBC. They are read, and never written.

The old servers read a file as Latin-1 text, encrypted the UTF-8 of that, and went back the same way
(`InferenceModel.doLoadEncryptedOpenVINO`). CBC does not show tampering: a wrong key shows in the padding and in bytes
that are no UTF-8, a changed block only where it breaks one of these.
"""

from __future__ import annotations

import binascii
import codecs
from collections.abc import Iterator
from typing import IO

from beam_serving.encryption.gcm import OLDEST, raw_key
from beam_serving.encryption.secrets import Secret

_BLOCK_BYTES = 16
_TEXT_PIECE_CHARS = 1 << 20  # a multiple of four: each piece is base64 of its own


def open_old_file(secret: Secret, sealed: IO[bytes], plain: IO[bytes]) -> None:
    """Write what is in a file, piece by piece; after an error it must be thrown away.

    Raises:
        ValueError: it is no base64, cut off, or was encrypted with another secret or salt.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.padding import PKCS7

    pieces = _decoded(sealed)
    first = next(pieces, b"")
    if len(first) < 2 * _BLOCK_BYTES:
        raise ValueError(f"is cut off: {len(first)} bytes after base64, wanted are at least {2 * _BLOCK_BYTES}")
    decryptor = Cipher(algorithms.AES(raw_key(secret, OLDEST)), modes.CBC(first[:_BLOCK_BYTES])).decryptor()
    unpadder, text = PKCS7(_BLOCK_BYTES * 8).unpadder(), codecs.getincrementaldecoder("utf-8")()
    try:
        plain.write(text.decode(unpadder.update(decryptor.update(first[_BLOCK_BYTES:]))).encode("latin-1"))
        for piece in pieces:
            plain.write(text.decode(unpadder.update(decryptor.update(piece))).encode("latin-1"))
        last = unpadder.update(decryptor.finalize()) + unpadder.finalize()
        plain.write(text.decode(last, final=True).encode("latin-1"))
    except binascii.Error:
        raise
    except ValueError as err:
        raise ValueError("cannot be decrypted: another secret or salt, or it was changed or cut off") from err


def _decoded(sealed: IO[bytes]) -> Iterator[bytes]:
    piece = sealed.read(_TEXT_PIECE_CHARS)
    while piece:
        following = sealed.read(_TEXT_PIECE_CHARS)
        if following and b"=" in piece:
            raise binascii.Error("is not base64, as Cluster Serving's encrypted files are: it ends in the middle")
        try:
            yield binascii.a2b_base64(piece if following else piece.rstrip(b"\r\n"), strict_mode=True)
        except binascii.Error as err:
            raise binascii.Error("is not base64, as Cluster Serving's encrypted files are") from err
        piece = following
