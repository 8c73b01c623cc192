"""Reading the requests and writing the results of every version of the protocol."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from beam_serving.encryption.records import Decryptor
from beam_serving.errors import ModelError, RequestError, printable
from beam_serving.protocol import arrow, image, native
from beam_serving.protocol.codec import Codec, Fields, Inputs, Names
from beam_serving.protocol.encrypted import CIPHER, decode_encrypted
from beam_serving.protocol.limits import DEFAULT_LIMITS, Limits, check_entry, quote
from beam_serving.records import Failure, Payload, Ranked, Result

CODECS = (image.CODEC, arrow.CODEC, native.CODEC)
"""One per version of the protocol; the first that matches an entry reads it, and the last matches whatever is left."""
_BY_PROTOCOL = {codec.protocol: codec for codec in CODECS}
_MAX_ERROR_CHARS = 2000


class Identity(NamedTuple):
    """Whose request an entry is, as far as can be told; what an error result needs when decoding fails.

    Attributes:
        uri: empty where the entry has none, or one above the limit: then no client can wait for a result of it.
        protocol: the version whose form the fields have.
        request_id: empty where the entry has none, or one above the limit.
    """

    uri: bytes
    protocol: str
    request_id: bytes


def decode_request(
    fields: Mapping[bytes, bytes], limits: Limits = DEFAULT_LIMITS, decryptor: Decryptor | None = None
) -> Payload:
    """Read the fields of a stream entry of any version.

    Args:
        fields: the names and values of the entry, as they are in Redis.
        limits: what it may hold at most.
        decryptor: opens what is encrypted; None where the service takes no encrypted requests, and refuses them.

    Returns:
        What the request says. Native tensors are read-only views on the bytes of their field.

    Raises:
        RequestError: the message begins with the request's uri and says what came and what is wanted.
    """
    try:
        uri = check_entry(fields, limits)
        if decryptor is not None or CIPHER in fields:
            inputs, protocol = decode_encrypted(fields, limits, decryptor, _decode_inputs)
        else:
            inputs, protocol = _decode_inputs(fields, limits)
        request_id = fields.get(b"id", b"")
        if len(request_id) > limits.max_name_bytes:
            raise RequestError(f"field 'id' is {len(request_id)} bytes, at most {limits.max_name_bytes} are served")
    except RequestError as err:
        uri = fields.get(b"uri", b"")
        raise RequestError(f"request {quote(uri)}: {err}" if uri else f"request without uri: {err}") from err
    return Payload(uri, inputs, protocol, request_id)


def codec_of(names: Names) -> Codec:
    """Return the codec that reads an entry.

    Args:
        names: of the entry's fields.
    """
    return next(codec for codec in CODECS if codec.matches(names))


def _decode_inputs(fields: Fields, limits: Limits) -> tuple[Inputs, str]:
    codec = codec_of(fields)
    return codec.decode_inputs(fields, limits), codec.protocol


def identify(fields: Mapping[bytes, bytes], limits: Limits = DEFAULT_LIMITS) -> Identity:
    """Return whose request an entry is, without decoding it; never raises.

    Args:
        fields: the names and values of the entry, as they are in Redis.
        limits: those on the size of the uri and the request id.
    """
    uri, request_id = fields.get(b"uri", b""), fields.get(b"id", b"")
    return Identity(
        uri if len(uri) <= limits.max_uri_bytes else b"",
        codec_of(fields).protocol,
        request_id if len(request_id) <= limits.max_name_bytes else b"",
    )


def encode_result(result: Result) -> dict[bytes, bytes]:
    """Return the hash fields of a result in the form that the client of the request reads.

    Every failure has a readable `error`, every answer at least one output, and every result the `id` of its request
    where that had one.

    Args:
        result: the end of a request; of the reason of a failure the first 2000 characters are sent.

    Raises:
        ModelError: an output has a dtype or values that this client could not read, or there is none.
    """
    origin, outcome = result
    codec = _BY_PROTOCOL[origin.protocol]
    if isinstance(outcome, Failure):
        reason = printable(outcome.reason[:_MAX_ERROR_CHARS]) or "no reason given"
        fields = {b"error": reason.encode(), **codec.encode_failure(reason)}
    else:
        fields = codec.encode_answer(outcome) if outcome.outputs else {}
        if not fields:
            raise ModelError("the answer has no output, wanted is at least one")
    if origin.request_id:
        fields[b"id"] = origin.request_id
    return fields


def encode_ranked(ranked: Ranked) -> dict[bytes, Sequence[bytes]] | None:
    """Return the hash fields of results in columns, the same that `encode_result` gives of each.

    Args:
        ranked: results of clients of one protocol version.

    Returns:
        By field, a value for each result; None where the clients read another form, or where only some of the requests
        have an id.
    """
    origins = ranked.origins
    encode = _BY_PROTOCOL[origins.protocol].encode_ranked
    if encode is None:
        return None
    columns = encode(ranked)
    if all(origins.request_ids):
        columns[b"id"] = origins.request_ids
    elif any(origins.request_ids):
        return None
    return columns
