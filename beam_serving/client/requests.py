"""From what a user has in hand to the fields of a request; no input or output but the reading of an image file."""

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from beam_serving.client.images import image_file, refuse_masked
from beam_serving.encryption.gcm import Keys
from beam_serving.errors import ClientError, ImageFileError, InputError, RequestError, brief
from beam_serving.protocol import native, numbers, text
from beam_serving.protocol.encrypted import seal_fields
from beam_serving.protocol.limits import DEFAULT_LIMITS, MOST_VALUE_BYTES, Limits, check_entry, input_name
from beam_serving.records import Image

Uri = str | bytes | int | Path
"""A name for a request; in results and errors it is text."""


class PilImage(Protocol):
    """An image of PIL."""

    @property
    def mode(self) -> str:
        """The kind of its pixels, such as "RGB"."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:  # noqa: A002 - PIL's own
        """Write it to a file."""


Input = (
    np.ndarray | np.generic | Sequence[object] | bytes | bytearray | memoryview | Path | BinaryIO | PilImage | Image
    | str | float
)  # fmt: skip
"""One input: a tensor (an array or nested lists), a text or lists of these, or an image file."""
Inputs = Input | Mapping[str, Input]
"""All inputs of a request: by name, or the one of a model that has one."""

_CHUNK_REQUESTS = 128
_MOST_DIMENSIONS = 64
_CHUNK_BYTES = 1 << 20
_TOO_LARGE = 10**DEFAULT_LIMITS.max_uri_bytes
"""A whole number of more digits than a uri may have bytes, which Python itself may refuse to write out."""
WANTED = "wanted is a tensor of numbers, texts, or an image: its bytes, a Path, a file in binary mode or a PIL image"


class Request(NamedTuple):
    """A request ready to be queued: its `fields` are one stream entry."""

    request_id: str
    fields: Mapping[bytes, bytes]

    def command(self, stream: str) -> list[str | bytes]:
        """Return the command that queues it."""
        return ["XADD", stream, "*", *(part for pair in self.fields.items() for part in pair)]


def make_request(
    uri: Uri, inputs: object, keys: Keys | None = None, max_request_bytes: int = DEFAULT_LIMITS.max_payload_bytes
) -> Request:
    """Return a request in this project's own format, with a new request id; with `keys` its inputs are encrypted.

    Raises:
        InputError: the uri or an input cannot be sent, there is no input, or a limit of the protocol is passed.
        ImageFileError: an image file cannot be read.
    """
    named = inputs if isinstance(inputs, Mapping) else {"": inputs}
    if not named:
        raise InputError(f"request {brief(uri)} has no input")
    encoded, request_id = encode_uri(uri), new_request_id()
    values = {encode_name(name): as_input(name, value) for name, value in named.items()}
    try:
        fields = native.encode_request(encoded, request_id.encode(), values)
    except (TypeError, ValueError) as err:
        raise InputError(str(err)) from err
    return checked(Request(request_id, fields if keys is None else seal_fields(fields, keys.new)), max_request_bytes)


def checked(request: Request, max_request_bytes: int) -> Request:
    """Return a request that a service can take.

    Raises:
        InputError: it is above a limit of the protocol, or larger than `max_request_bytes`.
    """
    largest = max(map(len, request.fields.values()))
    if largest > MOST_VALUE_BYTES:
        raise InputError(f"an input is {largest} bytes as it is sent, at most {MOST_VALUE_BYTES} fit into Redis")
    try:
        check_entry(request.fields, _limits(max_request_bytes))
    except RequestError as err:
        raise InputError(str(err)) from err
    return request


@lru_cache(maxsize=8)
def _limits(max_request_bytes: int) -> Limits:
    return replace(DEFAULT_LIMITS, max_payload_bytes=max_request_bytes)


def checked_pairs(requests: object) -> Iterator[tuple[Uri, Inputs]]:
    """Yield the uri and inputs of each request.

    Raises:
        InputError: these are no requests, or one is no pair.
    """
    for request in members(requests, "requests", "pairs of uri and inputs"):
        if not isinstance(request, tuple | list) or len(request) != 2:
            raise InputError(f"a request is {brief(request)}, wanted is a pair of uri and inputs")
        yield request[0], request[1]


def members(values: object, name: str, wanted: str) -> Iterator[Any]:
    """Return an iterator over an argument of many values, which a text or a mapping is not.

    Raises:
        InputError: it is none.
    """
    try:
        if not isinstance(values, str | bytes | Mapping):
            return iter(values)  # type: ignore[call-overload, no-any-return]
    except TypeError:
        pass
    raise InputError(f"{name} is {type(values).__name__}, wanted are {wanted}")


def whole_number(name: str, value: object, least: int = 1) -> int:
    """Return an argument that is a whole number.

    Raises:
        InputError: it is none, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"{name} is {brief(value)}, wanted is a whole number from {least}")
    return int(value)


def encode_uri(uri: Uri) -> bytes:
    """Return the bytes of a uri; `decode_uri` gives every uri back as text, whatever its bytes are.

    Raises:
        InputError: it is empty, too long, no text, or of another type.
    """
    if isinstance(uri, bytes):
        encoded = uri
    elif isinstance(uri, str | os.PathLike):
        path = os.fspath(uri)
        try:
            encoded = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as err:
            raise InputError(f"uri {brief(uri)} has half of a surrogate pair, which is no text") from err
    elif isinstance(uri, Integral) and not isinstance(uri, bool):
        if abs(int(uri)) >= _TOO_LARGE:
            raise InputError(
                f"uri is a number of more than {DEFAULT_LIMITS.max_uri_bytes} digits, which are not served"
            )
        encoded = b"%d" % int(uri)
    else:
        raise InputError(f"uri is {type(uri).__name__}, wanted is str, bytes, int or Path")
    if not encoded:
        raise InputError("uri is empty, wanted is a name for the request")
    if len(encoded) > DEFAULT_LIMITS.max_uri_bytes:
        raise InputError(f"uri is {len(encoded)} bytes, at most {DEFAULT_LIMITS.max_uri_bytes} are served")
    return encoded


def encode_name(name: str) -> str:
    """Return the name of an input that can be sent.

    Raises:
        InputError: it is too long, no text, or of another type.
    """
    if not isinstance(name, str):
        raise InputError(f"the name of an input is {type(name).__name__}, wanted is str")
    try:
        input_name(name.encode(), DEFAULT_LIMITS)
    except UnicodeEncodeError as err:
        raise InputError(f"input name {brief(name)} has half of a surrogate pair, which is no text") from err
    except RequestError as err:
        raise InputError(str(err)) from err
    return name


def decode_uri(uri: bytes) -> str:
    """Return the text of a uri."""
    return uri.decode("utf-8", "surrogateescape")


def new_request_id() -> str:
    """Return an id that no other request has."""
    return secrets.token_hex(16)


def as_input(name: str, value: object) -> Image | np.ndarray:
    """Return an image, a text or a tensor, as the value is.

    Bytes, a path, a file opened in binary mode and a PIL image are an image; a string and lists or arrays of strings a
    text. All else is a tensor, of which lists of floats become float32, or float64 where float32 would change a whole
    number or make a number infinite.

    Raises:
        InputError: the value is none of these, or above a limit.
        ImageFileError: an image file cannot be read.
    """
    if (
        type(value) is np.ndarray
        and value.dtype.kind in "biuf"
        and value.size
        and value.ndim <= DEFAULT_LIMITS.max_rank
    ):
        # Nothing of what follows would change it, and asking takes longer than all the rest of a request.
        return value
    try:
        image = image_file(value)
    except ClientError as err:
        raise type(err)(f"input {name!r}: {err}") from err
    return _as_array(name, value) if image is None else image


def _as_array(name: str, value: object) -> np.ndarray:
    refuse_masked(value, f"input {name!r}")
    _check_depth(name, value)
    try:
        array = _text(value) if text.starts_with_text(value) else _numbers(value)
    except ValueError as err:
        raise InputError(f"input {name!r} is {type(value).__name__}, {WANTED}: {str(err)[:200]}") from err
    if array.dtype.name == "bfloat16":  # of ml_dtypes; float32 holds each of its values
        array = array.astype(np.float32)
    if not array.size:
        raise InputError(f"input {name!r} is empty, its shape is {list(array.shape)}")
    if array.ndim > DEFAULT_LIMITS.max_rank:
        raise InputError(f"input {name!r} has {array.ndim} dimensions, at most {DEFAULT_LIMITS.max_rank} are served")
    return array


def _check_depth(name: str, value: object) -> None:
    """Refuse lists that NumPy could not hold, as one that has itself for a member."""
    for _ in range(_MOST_DIMENSIONS):
        if not isinstance(value, list | tuple) or not value:
            return
        value = value[0]
    raise InputError(
        f"input {name!r} has more than {_MOST_DIMENSIONS - 1} dimensions, at most {DEFAULT_LIMITS.max_rank} are served"
    )


def _text(value: object) -> np.ndarray:
    texts = text.from_lists(value) if isinstance(value, str | list | tuple) else text.from_array(np.asarray(value))
    if (size_bytes := len(text.text_json(texts))) > DEFAULT_LIMITS.max_json_bytes:
        raise ValueError(f"its text is {size_bytes} bytes of JSON, at most {DEFAULT_LIMITS.max_json_bytes} are served")
    return texts


def _numbers(value: object) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    array = numbers.from_lists(value) if isinstance(value, list | tuple | int | float) else np.asarray(value)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise ValueError(f"NumPy makes {array.dtype} of it")
    return array.astype(np.float32) if array.dtype == np.float64 and numbers.float32_holds(array) else array


@contextmanager
def telling_what_is_queued(request_ids: Sequence[str]) -> Iterator[None]:
    """Say in the error of one request of many how many are queued.

    Raises:
        InputError: the one that came.
        ImageFileError: the one that came.
    """
    try:
        yield
    except (InputError, ImageFileError) as err:
        raise type(err)(f"{err}; the first {len(request_ids)} requests were queued") from err


def chunked(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """Split requests into chunks of at most 128 that end once they hold 1 MiB."""
    chunk: list[Request] = []
    size_bytes = 0
    for request in requests:
        chunk.append(request)
        size_bytes += sum(map(len, request.fields.values()))
        if len(chunk) >= _CHUNK_REQUESTS or size_bytes >= _CHUNK_BYTES:
            yield chunk
            chunk, size_bytes = [], 0
    if chunk:
        yield chunk
