"""AES-GCM, against the answers of javax.crypto, and against everybody who changes a byte."""

import hashlib
import io
import json
import os
import pickle
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_serving.encryption.gcm import (
    FILE_MARK,
    MOST_FILE_BYTES,
    NEWEST,
    OLDEST,
    OVERHEAD_BYTES,
    Key,
    Keys,
    file_header,
    key_of,
    keys_of,
    keys_to_send_with,
    raw_key,
)
from beam_serving.encryption.secrets import Secret
from beam_serving.encryption.strength import MAKE_ONE
from tests.encryption.java import java

ANSWERS: list[dict[str, str]] = json.loads(
    (Path(__file__).parent / "fixtures" / "known_answers.json").read_text(encoding="utf-8")
)
VERSION_1: dict[str, Any] = json.loads(
    (Path(__file__).parent / "fixtures" / "version_1.json").read_text(encoding="utf-8")
)
"""What was written before there was a second version, by the code of that time."""
KEY = Key(b"k" * 16)


@pytest.fixture(params=ANSWERS, ids=lambda answer: answer["salt"])
def answer(request: pytest.FixtureRequest) -> dict[str, str]:
    known: dict[str, str] = request.param
    return known


def sealed_file(folder: Path, plain: bytes, name: str = "model.bin", key: Key = KEY) -> Path:
    (folder / "plain").write_bytes(plain)
    with (folder / "plain").open("rb") as source, (folder / "sealed").open("wb") as target:
        key.seal_file(source, target, name)
    return folder / "sealed"


def opened_file(path: Path, name: str = "model.bin", key: Key | Keys = KEY) -> bytes:
    plain = io.BytesIO()
    with path.open("rb") as sealed:
        key.open_file(sealed, plain, name)
    return plain.getvalue()


def test_keys_and_what_was_sealed_are_those_of_javax_crypto(answer: dict[str, str]) -> None:
    secret = Secret(answer["secret"], answer["salt"])
    assert raw_key(secret, OLDEST).hex() == answer["key"]
    key = key_of(secret, OLDEST)
    assert key.open(bytes.fromhex(answer["gcm"])).hex() == answer["plain"]
    context = bytes.fromhex(answer["context"])
    assert key.open(bytes.fromhex(answer["gcm_with_context"]), context).hex() == answer["plain"]


def test_javax_crypto_opens_what_is_sealed_here(tmp_path: Path) -> None:
    key = key_of(Secret("a secret of the tests", "and its salt"), OLDEST)
    (tmp_path / "sealed").write_bytes(key.seal(b"of the tests", b"context"))
    context = b"context".hex()
    java("open", "a secret of the tests", "and its salt", context, tmp_path / "sealed", tmp_path / "plain")
    assert (tmp_path / "plain").read_bytes() == b"of the tests"


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_what_was_sealed_opens_again_and_no_iv_is_used_twice(plain: bytes, context: bytes) -> None:
    sealed = [KEY.seal(plain, context) for _ in range(3)]
    assert {KEY.open(one, context) for one in sealed} == {plain}
    assert len({one[:12] for one in sealed}) == 3
    assert all(len(one) == len(plain) + OVERHEAD_BYTES for one in sealed)


@given(st.data())
def test_one_changed_bit_is_an_error(data: Any) -> None:
    sealed = bytearray(KEY.seal(b"of the tests", b"context"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError, match="cannot be decrypted: another secret or salt, or it was changed on the way"):
        KEY.open(bytes(sealed), b"context")


@pytest.mark.parametrize(("key", "context"), [(Key(b"K" * 16), b"context"), (KEY, b"other"), (KEY, b"")])
def test_another_key_or_context_is_an_error(key: Key, context: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be decrypted: another secret or salt, or it was changed on the way"):
        key.open(KEY.seal(b"of the tests", b"context"), context)


@pytest.mark.parametrize("size", range(28))
def test_what_is_too_short_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match=f"^is {size} bytes, wanted are at least 28: 12 of IV, the data "):
        KEY.open(b"x" * size)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (3 << 20) + 5])
def test_a_file_of_any_size_opens_again(tmp_path: Path, size: int) -> None:
    plain = os.urandom(size)
    sealed = sealed_file(tmp_path, plain)
    assert opened_file(sealed) == plain
    assert sealed.read_bytes().startswith(file_header(NEWEST))
    assert size < 100 or plain[:100] not in sealed.read_bytes()


def test_every_changed_or_missing_byte_of_a_file_is_an_error(tmp_path: Path) -> None:
    whole = sealed_file(tmp_path, b"weights").read_bytes()
    damaged = tmp_path / "damaged"
    for at in range(len(whole)):
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            damaged.write_bytes(content)
            with pytest.raises(ValueError, match=r"^is (not )?encrypted|^is of another|^is cut off|^cannot|^was"):
                opened_file(damaged)


def test_the_errors_of_a_file_tell_a_wrong_key_from_a_change(tmp_path: Path) -> None:
    sealed = sealed_file(tmp_path, b"weights")
    with pytest.raises(ValueError, match=r"^cannot be decrypted: it has another secret, salt or file name$"):
        opened_file(sealed, key=Key(b"K" * 16))
    with pytest.raises(ValueError, match=r"^cannot be decrypted: it has another secret, salt or file name$"):
        opened_file(sealed, name="other.bin")
    sealed.write_bytes(sealed.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"^was changed or cut off after it was encrypted$"):
        opened_file(sealed)


def test_a_file_larger_than_one_iv_may_encrypt_is_refused_before_it_is_read(tmp_path: Path) -> None:
    huge = sealed_file(tmp_path, b"weights")
    os.truncate(huge, MOST_FILE_BYTES + 1000)  # sparse
    with pytest.raises(ValueError, match=f"^is {MOST_FILE_BYTES + 1000} bytes, more than one IV may encrypt$"):
        opened_file(huge)
    os.truncate(tmp_path / "plain", MOST_FILE_BYTES + 1)
    with (tmp_path / "plain").open("rb") as plain, pytest.raises(ValueError, match="at most 68719476704 are encrypted"):
        KEY.seal_file(plain, io.BytesIO(), "model.bin")


def test_a_key_is_not_shown_and_does_not_travel() -> None:
    assert "kkkk" not in repr(KEY)
    with pytest.raises(TypeError, match="a key does not travel"):
        pickle.dumps(KEY)


@pytest.mark.parametrize(
    ("secret", "salt", "said"),
    [
        ("a good long secret", None, "salt is missing; encryption needs both"),
        (None, "its salt", "secret is missing; encryption needs both"),
        ("a short one 123", "its salt", f"secret has 15 characters, wanted are at least 16; {MAKE_ONE}"),
        ("a good long secret", "no salt", f"salt has 7 characters, wanted are at least 8; {MAKE_ONE}"),
        ("a" * 16, "its salt", f"secret has 1 different characters, wanted are at least 5; {MAKE_ONE}"),
    ],
)
def test_a_client_needs_a_secret_and_a_salt_that_are_not_weak(secret: str | None, salt: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        keys_to_send_with(secret, salt)


def test_a_client_without_either_sends_in_clear() -> None:
    assert keys_to_send_with(None, None) is None


def test_a_key_of_the_newest_version_has_600000_rounds_and_is_made_once() -> None:
    secret = Secret("a secret of the tests", "and its salt")
    made = hashlib.pbkdf2_hmac("sha256", b"a secret of the tests", b"and its salt", 600_000, 16)
    assert raw_key(secret, NEWEST) == made
    assert Key(made).open(key_of(secret).seal(b"of the tests")) == b"of the tests"
    assert keys_of(secret) == (key_of(secret, OLDEST), key_of(secret))
    assert key_of(Secret("a secret of the tests", "and its salt")) is key_of(secret)


def test_a_file_of_the_first_version_opens_and_what_is_written_anew_has_the_second(tmp_path: Path) -> None:
    keys = keys_of(Secret(VERSION_1["secret"], VERSION_1["salt"]))
    old, plain = tmp_path / "old", VERSION_1["plain"].encode()
    old.write_bytes(bytes.fromhex(VERSION_1["file"]))
    assert opened_file(old, VERSION_1["name"], keys) == plain
    new = sealed_file(tmp_path, plain, key=keys.new)
    assert new.read_bytes().startswith(b"beam-serving encrypted file 2\n")
    assert opened_file(new, key=keys) == plain


@pytest.mark.parametrize(("written", "claimed"), [(OLDEST, NEWEST), (NEWEST, OLDEST)])
def test_a_file_does_not_open_under_the_mark_of_another_version(tmp_path: Path, written: int, claimed: int) -> None:
    same = Keys(Key(b"k" * 16, OLDEST), Key(b"k" * 16, NEWEST))  # so that only the mark differs
    sealed = sealed_file(tmp_path, b"weights", key=same.of(written))
    sealed.write_bytes(file_header(claimed) + sealed.read_bytes()[len(file_header(written)) :])
    with pytest.raises(ValueError, match=r"^cannot be decrypted: it has another secret, salt or file name$"):
        opened_file(sealed, key=same)
    with pytest.raises(ValueError, match=f"^is of another version than its key, which is of {written}$"):
        opened_file(sealed, key=same.of(written))


@given(st.one_of(st.integers(3, 10**12).map(lambda number: b"%d\n" % number), st.binary(max_size=20)))
def test_no_file_chooses_the_rounds(mark: bytes) -> None:
    keys = Keys(Key(b"k" * 16, OLDEST), KEY)
    with tempfile.TemporaryFile() as sealed:
        sealed.write(FILE_MARK + mark)
        sealed.seek(0)
        with pytest.raises(
            ValueError, match=r"^is encrypted in a version that is not known here, which is 1 or 2|^is cut"
        ):
            keys.open_file(sealed, io.BytesIO(), "model.bin")
