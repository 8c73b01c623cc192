"""The encrypted model files of Cluster Serving, made by javax.crypto."""

import base64
import io
from pathlib import Path

import pytest

from beam_serving.encryption.cbc import open_old_file
from beam_serving.encryption.secrets import Secret
from tests.encryption.java import java
from tests.encryption.test_gcm import ANSWERS

SECRET = Secret(ANSWERS[0]["secret"], ANSWERS[0]["salt"])
SEALED = ANSWERS[0]["cbc"].encode()
NOT_OPENED = "^cannot be decrypted: another secret or salt, or it was changed or cut off$"
NO_BASE64 = "^is not base64, as Cluster Serving's encrypted files are"


def opened(sealed: bytes, secret: Secret = SECRET) -> bytes:
    plain = io.BytesIO()
    open_old_file(secret, io.BytesIO(sealed), plain)
    return plain.getvalue()


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer["salt"])
def test_files_of_javax_crypto_open(answer: dict[str, str]) -> None:
    secret = Secret(answer["secret"], answer["salt"])
    assert opened(answer["cbc"].encode(), secret).hex() == answer["plain"]
    assert opened(answer["cbc"].encode() + b"\r\n", secret).hex() == answer["plain"]


def test_files_of_any_size_open(tmp_path: Path) -> None:
    plain, sealed = tmp_path / "plain", tmp_path / "sealed"
    plain.mkdir()
    for size in (0, 1, 15, 16, 1 << 20, 3_000_001):
        (plain / str(size)).write_bytes((bytes(range(256)) * (size // 256 + 1))[:size])
    java("cbc", SECRET.secret, SECRET.salt, plain, sealed)
    assert {path.name: opened((sealed / path.name).read_bytes()) for path in plain.iterdir()} == {
        path.name: path.read_bytes() for path in plain.iterdir()
    }


@pytest.mark.parametrize("secret", [Secret("another secret", SECRET.salt), Secret(SECRET.secret, "another salt")])
def test_another_secret_or_salt_is_an_error(secret: Secret) -> None:
    with pytest.raises(ValueError, match=NOT_OPENED):
        opened(SEALED, secret)


def test_a_file_that_is_cut_off_is_an_error() -> None:
    for size in (4, 20, 24, 40, 44, len(SEALED) // 8 * 4, len(SEALED) - 4):
        with pytest.raises(ValueError, match=NOT_OPENED if size > 40 else "^is cut off|" + NOT_OPENED):
            opened(SEALED[:size])
    with pytest.raises(ValueError, match=r"^is cut off: 0 bytes after base64, wanted are at least 32$"):
        opened(b"")


@pytest.mark.parametrize("sealed", [SEALED[:-1], b"<?xml version='1.0'?>", SEALED + SEALED, b"\x00" * 64])
def test_what_is_no_base64_is_an_error(sealed: bytes) -> None:
    with pytest.raises(ValueError, match=NO_BASE64):
        opened(sealed)


def test_base64_that_ends_in_the_middle_is_an_error() -> None:
    part = base64.b64encode(bytes((1 << 20) // 4 * 3 - 1))
    assert len(part) == 1 << 20
    with pytest.raises(ValueError, match=NO_BASE64 + ": it ends in the middle|" + NOT_OPENED):
        opened(part + part)
