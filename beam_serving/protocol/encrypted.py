"""Encrypted requests: AES-GCM, inside the formats that they have anyway.

    native          field `cipher` = `aes-gcm-2`, or `aes-gcm` with the fewer rounds of its first version; each value
                    of `image:<name>`, `tensor:<name>` and `text:<name>` is sealed, and bound to the version, the names
                    and facts beside it (docs/protocol.md)
    image, arrow    the bytes of each image are sealed, with the fewer rounds; tensors and texts cannot be

In the formats of Cluster Serving that is what its servers took with `recordEncrypted`. Sealed is IV, ciphertext and tag
(`beam_serving.encryption`). Results are never encrypted.
"""

from collections.abc import Callable, Mapping

import numpy as np

from beam_serving.encryption.gcm import NEWEST, OLDEST, Key, Keys
from beam_serving.encryption.records import Decryptor
from beam_serving.errors import RequestError
from beam_serving.protocol.limits import Limits, quote, subject
from beam_serving.protocol.text import is_text
from beam_serving.records import Image, ProtocolVersion

CIPHER = b"cipher"
AES_GCM = {OLDEST: b"aes-gcm", NEWEST: b"aes-gcm-2"}
"""What the field `cipher` says, by version."""

Inputs = dict[str, Image | np.ndarray]
DecodeInputs = Callable[[Mapping[bytes, bytes], Limits], tuple[Inputs, str]]

_SEALED = (b"image:", b"tensor:", b"text:")
_VERSIONS = {cipher: version for version, cipher in AES_GCM.items()}
_CONTEXTS = {version: b"beam-serving request %d" % version for version in AES_GCM}


def seal_fields(fields: Mapping[bytes, bytes], key: Key) -> dict[bytes, bytes]:
    """Return the fields of a native request with its values sealed."""
    sealed = {
        name: key.seal(value, _context(fields, name, key.version)) if name.startswith(_SEALED) else value
        for name, value in fields.items()
    }
    return {**sealed, CIPHER: AES_GCM[key.version]}


def decode_encrypted(
    fields: Mapping[bytes, bytes], limits: Limits, decryptor: Decryptor | None, decode_inputs: DecodeInputs
) -> tuple[Inputs, str]:
    """Return the inputs of a request that is encrypted, or that comes where such are wanted.

    Raises:
        RequestError: a value cannot be opened, is in clear and must not be, or there is no key.
    """
    if decryptor is None:
        raise RequestError("it is encrypted, and this service has no key; send it in clear, or set data: encryption")
    if CIPHER in fields and fields.keys().isdisjoint((b"image", b"data")):
        return decode_inputs(_opened_fields(fields, decryptor.keys), limits)
    inputs, protocol = decode_inputs(fields, limits)
    for name, value in inputs.items():
        if isinstance(value, Image) and protocol != ProtocolVersion.NATIVE:
            inputs[name] = Image(_opened(value.encoded, b"", name, decryptor.keys.old))
        elif isinstance(value, Image) or decryptor.everything:
            what = "image" if isinstance(value, Image) else "text" if is_text(value) else "tensor"
            raise RequestError(f"{subject(name)}{what} is in clear, this service takes encrypted ones only")
    return inputs, protocol


def _opened_fields(fields: Mapping[bytes, bytes], keys: Keys) -> dict[bytes, bytes]:
    version = _VERSIONS.get(fields[CIPHER])
    if version is None:
        wanted = " or ".join(quote(AES_GCM[known]) for known in (NEWEST, OLDEST))
        raise RequestError(f"cipher is {quote(fields[CIPHER])}, wanted is {wanted}")
    key = keys.of(version)
    return {
        name: _opened(value, _context(fields, name, version), name.partition(b":")[2], key)
        if name.startswith(_SEALED)
        else value
        for name, value in fields.items()
    }


def _opened(sealed: bytes, context: bytes, name: bytes | str, key: Key) -> bytes:
    try:
        return key.open(sealed, context)
    except ValueError as err:
        raise RequestError(f"{subject(name)}payload {err}") from err


def _context(fields: Mapping[bytes, bytes], name: bytes, version: int) -> bytes:
    """Return what a sealed value belongs to: moved to another request, name, type, shape or version, it stays shut."""
    suffix = name.partition(b":")[2]
    facts = (_CONTEXTS[version], fields.get(b"uri", b""), fields.get(b"id", b""), name)
    layout = (fields.get(b"dtype:" + suffix, b""), fields.get(b"shape:" + suffix, b""))
    return b"".join(len(fact).to_bytes(4, "big") + fact for fact in (*facts, *layout))
