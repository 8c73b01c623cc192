"""Encrypted requests in every format, and what is refused of them."""

import base64
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from beam_serving.encryption.gcm import NEWEST, OLDEST, Key, Keys, keys_of
from beam_serving.encryption.records import NOT_ENCRYPTED, Decryptor, RecordEncryption
from beam_serving.encryption.secrets import Secret
from beam_serving.errors import ConfigError, RequestError
from beam_serving.protocol import DEFAULT_LIMITS, Limits, decode_request, native
from beam_serving.protocol.encrypted import seal_fields
from beam_serving.records import Image, ProtocolVersion
from tests.encryption.test_gcm import VERSION_1
from tests.old_clients import arrow_data, tensor_column

KEY, OLD_KEY = Key(b"k" * 16), Key(b"o" * 16, OLDEST)
KEYS = Keys(OLD_KEY, KEY)
ALL, IMAGES = Decryptor(KEYS, everything=True), Decryptor(KEYS, everything=False)
FILE = b"\xff\xd8 a file"
NOT_OPENED = "payload cannot be decrypted: another secret or salt, or it was changed on the way"


def plain(**inputs: Image | np.ndarray) -> dict[bytes, bytes]:
    return native.encode_request(b"a", b"i", inputs or {"x": np.arange(3, dtype=np.float32), "y": Image(FILE)})


def refusal(fields: Mapping[bytes, bytes], decryptor: Decryptor | None, limits: Limits = DEFAULT_LIMITS) -> str:
    with pytest.raises(RequestError) as caught:
        decode_request(fields, limits, decryptor)
    return str(caught.value)


def image_request(file: bytes) -> dict[bytes, bytes]:
    return {b"uri": b"a", b"image": base64.b64encode(file)}


def arrow_request(**columns: Any) -> dict[bytes, bytes]:
    return {b"uri": b"a", b"data": arrow_data(**columns).encode()}


def text_column(file: bytes) -> pa.Array:
    return pa.array([base64.b64encode(file).decode()])


@given(
    st.dictionaries(st.text(max_size=5), arrays.arrays(np.float32, arrays.array_shapes()), min_size=1, max_size=3),
    st.binary(min_size=1, max_size=20),
    st.binary(max_size=20),
)
def test_a_native_request_opens_to_what_was_sent(inputs: dict[str, np.ndarray], uri: bytes, request_id: bytes) -> None:
    sealed = seal_fields(native.encode_request(uri, request_id, inputs), KEY)
    for decryptor in (ALL, IMAGES):
        payload = decode_request(sealed, DEFAULT_LIMITS, decryptor)
        assert (payload.uri, payload.request_id, payload.protocol) == (uri, request_id, ProtocolVersion.NATIVE)
        for name, value in inputs.items():
            np.testing.assert_array_equal(payload.inputs[name], value)  # type: ignore[arg-type]


def test_only_values_are_sealed_and_no_two_are_alike() -> None:
    first, second = seal_fields(plain(), KEY), seal_fields(plain(), KEY)
    assert first[b"cipher"] == b"aes-gcm-2"
    assert seal_fields(plain(), OLD_KEY)[b"cipher"] == b"aes-gcm"
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {b"tensor:x", b"image:y"}
    assert FILE not in first[b"image:y"]


@pytest.mark.parametrize("key", KEYS)
def test_a_value_is_bound_to_what_the_protocol_says(key: Key) -> None:
    sealed = seal_fields(plain(x=np.zeros((1, 3), np.float32)), key)
    facts = (b"beam-serving request %d" % key.version, b"a", b"i", b"tensor:x", b"float32", b"1,3")
    context = b"".join(struct.pack(">I", len(fact)) + fact for fact in facts)
    assert key.open(sealed[b"tensor:x"], context) == bytes(12)


def test_a_request_of_the_first_version_opens() -> None:
    fields = {name.encode(): bytes.fromhex(value) for name, value in VERSION_1["request"].items()}
    decryptor = Decryptor(keys_of(Secret(VERSION_1["secret"], VERSION_1["salt"])), everything=True)
    np.testing.assert_array_equal(decode_request(fields, DEFAULT_LIMITS, decryptor).inputs["x"], [0, 1, 2])  # type: ignore[arg-type]


@pytest.mark.parametrize(("key", "other"), [(KEY, b"aes-gcm"), (OLD_KEY, b"aes-gcm-2")])
def test_a_request_does_not_open_as_another_version(key: Key, other: bytes) -> None:
    fields = {**seal_fields(plain(x=np.zeros(3, np.float32)), key), b"cipher": other}
    assert refusal(fields, ALL) == f"request 'a': input 'x': {NOT_OPENED}"
    same = Keys(Key(b"k" * 16, OLDEST), Key(b"k" * 16, NEWEST))  # so that only what is authenticated differs
    fields = {**seal_fields(plain(x=np.zeros(3, np.float32)), same.of(key.version)), b"cipher": other}
    assert refusal(fields, Decryptor(same, everything=True)) == f"request 'a': input 'x': {NOT_OPENED}"


@pytest.mark.parametrize("field", [b"uri", b"id", b"dtype:x", b"shape:x"])
def test_a_value_does_not_open_beside_other_facts(field: bytes) -> None:
    other = {b"uri": b"b", b"id": b"j", b"dtype:x": b"int32", b"shape:x": b"3,1"}
    sealed = {**seal_fields(plain(x=np.zeros(3, np.float32)), KEY), field: other[field]}
    uri = other[field].decode() if field == b"uri" else "a"
    assert refusal(sealed, ALL) == f"request '{uri}': input 'x': {NOT_OPENED}"


def test_a_value_does_not_open_under_another_name() -> None:
    sealed = seal_fields(plain(x=np.zeros(3, np.float32), y=np.ones(3, np.float32)), KEY)
    sealed[b"tensor:x"], sealed[b"tensor:y"] = sealed[b"tensor:y"], sealed[b"tensor:x"]
    assert refusal(sealed, ALL) == f"request 'a': input 'x': {NOT_OPENED}"


@pytest.mark.parametrize("size", [1, 27])
def test_a_value_that_is_cut_off_is_refused(size: int) -> None:
    sealed = seal_fields(plain(x=np.zeros(3, np.float32)), KEY)
    said = f"request 'a': input 'x': payload is {size} bytes, wanted are at least 28: 12 of IV, "
    assert refusal({**sealed, b"tensor:x": sealed[b"tensor:x"][:size]}, ALL).startswith(said)
    assert refusal({**sealed, b"tensor:x": sealed[b"tensor:x"][:-1]}, ALL) == f"request 'a': input 'x': {NOT_OPENED}"


def test_another_key_is_refused() -> None:
    assert refusal(seal_fields(plain(), Key(b"K" * 16)), ALL) == f"request 'a': input 'x': {NOT_OPENED}"


def test_what_is_too_large_is_refused_before_it_is_opened() -> None:
    huge = {**seal_fields(plain(), KEY), b"tensor:x": bytes(2000)}
    assert refusal(huge, ALL, Limits(max_payload_bytes=1000)).endswith("bytes, at most 1000 are served")


def test_an_encrypted_request_to_a_service_without_a_key_is_told_so() -> None:
    said = "request 'a': it is encrypted, and this service has no key; send it in clear, or set data: encryption"
    assert refusal(seal_fields(plain(), KEY), None) == said


def test_another_cipher_is_refused() -> None:
    for cipher in ("rot13", "aes-gcm-3", "aes-gcm-600000", "AES-GCM", "aes-gcm-2 "):
        said = f"request 'a': cipher is {cipher!r}, wanted is 'aes-gcm-2' or 'aes-gcm'"
        assert refusal({**seal_fields(plain(), KEY), b"cipher": cipher.encode()}, ALL) == said


@pytest.mark.parametrize("decryptor", [ALL, IMAGES])
def test_images_of_older_clients_open(decryptor: Decryptor) -> None:
    sealed = OLD_KEY.seal(FILE)
    body = json.dumps({"instances": [{"x": base64.b64encode(sealed).decode()}]}).encode()
    for fields in (
        image_request(sealed),
        arrow_request(x=text_column(sealed)),
        {b"uri": b"a", b"data": body, b"serde": b"stream"},
    ):
        assert list(decode_request(fields, DEFAULT_LIMITS, decryptor).inputs.values()) == [Image(FILE)]


@pytest.mark.parametrize("decryptor", [ALL, IMAGES])
def test_images_of_older_clients_in_clear_are_refused(decryptor: Decryptor) -> None:
    file = FILE * 4
    assert refusal(image_request(file), decryptor) == f"request 'a': {NOT_OPENED}"
    assert refusal(arrow_request(x=text_column(file)), decryptor) == f"request 'a': input 'x': {NOT_OPENED}"


def test_tensors_in_clear_are_taken_beside_encrypted_images_only_where_the_service_says_so() -> None:
    tensor = np.arange(3, dtype=np.float32)
    said = "request 'a': input 'x': tensor is in clear, this service takes encrypted ones only"
    for fields in (plain(x=tensor), arrow_request(x=tensor_column(tensor))):
        np.testing.assert_array_equal(decode_request(fields, DEFAULT_LIMITS, IMAGES).inputs["x"], tensor)  # type: ignore[arg-type]
        assert refusal(fields, ALL) == said


@pytest.mark.parametrize("decryptor", [ALL, IMAGES])
def test_a_native_image_in_clear_is_refused(decryptor: Decryptor) -> None:
    said = "request 'a': input 'y': image is in clear, this service takes encrypted ones only"
    assert refusal(plain(y=Image(FILE)), decryptor) == said


def test_the_secret_is_read_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEAM_SERVING_RECORD_SECRET", raising=False)
    assert NOT_ENCRYPTED.decryptor() is None
    with pytest.raises(ConfigError, match=r"^secret for decryption is missing; set BEAM_SERVING_RECORD_SECRET and "):
        RecordEncryption("all").decryptor()
    monkeypatch.setenv("BEAM_SERVING_RECORD_SECRET", "a short one")
    monkeypatch.setenv("BEAM_SERVING_RECORD_SALT", "a salt of it")
    with pytest.raises(ConfigError, match=r"is read with data: allow_weak_secret: true$"):
        RecordEncryption("all").decryptor()
    assert RecordEncryption("all", allow_weak_secret=True).decryptor() is not None
    monkeypatch.setenv("BEAM_SERVING_RECORD_SECRET", "a secret of the tests")
    assert [RecordEncryption(wanted).decryptor().everything for wanted in ("images", "all")] == [False, True]  # type: ignore[union-attr]
