"""How much one request may weigh, checked before anything in it is decoded."""

from collections.abc import Mapping
from dataclasses import dataclass

from beam_serving.errors import RequestError
from beam_serving.records import MOST_FIELDS, MOST_REQUEST_BYTES

MOST_VALUE_BYTES = 512 << 20
"""What one value of Redis may hold, where its `proto-max-bulk-len` is as ever."""


@dataclass(frozen=True)
class Limits:
    """What one stream entry may hold. A request above any of these gets an error result that names the limit.

    Attributes:
        max_fields: fields of the entry.
        max_uri_bytes: of the uri.
        max_name_bytes: of the name of an input, and of a request id.
        max_payload_bytes: of the names and values of all fields together, and of each tensor after decoding (a sparse
            tensor is small on the wire and large in memory).
        max_rank: dimensions of a tensor, and of an array of texts.
        max_arrow_rows: rows of an Arrow record batch; at least one is wanted.
        max_json_bytes: of a JSON text.
        max_json_depth: of the lists and objects in each other that a JSON text may have.
        max_decode_bytes: of the memory that decoding may take beside the request itself; it is estimated before
            anything is decoded.
    """

    max_fields: int = MOST_FIELDS
    max_uri_bytes: int = 4096
    max_name_bytes: int = 256
    max_payload_bytes: int = MOST_REQUEST_BYTES
    max_rank: int = 32
    max_arrow_rows: int = 16
    max_json_bytes: int = 16 << 20
    max_json_depth: int = 35
    max_decode_bytes: int = 384 << 20


DEFAULT_LIMITS = Limits()


def quote(text: bytes | str) -> str:
    """Show what a client sent: in quotes, printable, at most 64 characters of it."""
    shown = text[:256].decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    return repr(shown if len(shown) <= 64 else shown[:63] + "…")


def subject(name: bytes | str) -> str:
    """How a message about one input begins; nothing for the input without a name."""
    return f"input {quote(name)}: " if name else ""


def names_of(fields: Mapping[bytes, bytes]) -> str:
    """List the field names of an entry, the first eight of them, for a message."""
    shown = ", ".join(quote(name) for name in list(fields)[:8])
    more = len(fields) - 8
    return f"{shown} and {more} more" if more > 0 else shown or "none"


def check_entry(fields: Mapping[bytes, bytes], limits: Limits) -> bytes:
    """Return the uri of an entry that keeps the limits on its fields and its size.

    Raises:
        RequestError: the entry has no uri or an empty one, or is above a limit.
    """
    uri = fields.get(b"uri")
    if uri is None:
        raise RequestError(f"field 'uri' is missing, the fields are {names_of(fields)}")
    if not uri:
        raise RequestError("field 'uri' is empty")
    if len(uri) > limits.max_uri_bytes:
        raise RequestError(f"uri is {len(uri)} bytes, at most {limits.max_uri_bytes} are served")
    if len(fields) > limits.max_fields:
        raise RequestError(f"request has {len(fields)} fields, at most {limits.max_fields} are served")
    size_bytes = sum(map(len, fields)) + sum(map(len, fields.values()))
    if size_bytes > limits.max_payload_bytes:
        raise RequestError(f"request is {size_bytes} bytes, at most {limits.max_payload_bytes} are served")
    return uri


def check_parsed(needed: int, limits: Limits, what: str) -> None:
    """Refuse what would be too much in memory once it is parsed.

    Raises:
        RequestError: it would; the message names the limit.
    """
    if needed > limits.max_decode_bytes:
        raise RequestError(
            f"{what} take about {needed >> 20} MB to parse, at most {limits.max_decode_bytes >> 20} MB are given to "
            "one request; send less or a tensor, or the service needs a larger data: max_decode_mb"
        )


def input_name(name: bytes, limits: Limits) -> str:
    """Decode the name of an input.

    Raises:
        RequestError: it is too long, or not UTF-8.
    """
    if len(name) > limits.max_name_bytes:
        raise RequestError(f"input name is {len(name)} bytes, at most {limits.max_name_bytes} are served")
    try:
        return name.decode()
    except UnicodeDecodeError as err:
        raise RequestError(f"input name {quote(name)} is not UTF-8") from err
