"""From what a user has in hand to the fields of a request; no input or output but the reading of an image file."""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from beam_serving.encryption.gcm import Key
from beam_serving.errors import ClientError
from beam_serving.records import Image
from beam_serving.wire import native
from beam_serving.wire.encrypted import seal_fields

Input = np.ndarray | Sequence[Any] | bytes | Path | Image | float
"""One input: a tensor (an array or nested lists), or an image file (its bytes or its path)."""
Inputs = Input | Mapping[str, Input]
"""All inputs of a request: by name, or the one of a model that has one."""

_CHUNK_REQUESTS = 128
_CHUNK_BYTES = 1 << 20
_EXTENSIONS = {"jpeg": ".jpg", "png": ".png"}
_JPEG_QUALITY = 95


class Request(NamedTuple):
    """A request ready to be queued: its `fields` are one stream entry."""

    request_id: str
    fields: Mapping[bytes, bytes]

    def command(self, stream: str) -> list[str | bytes]:
        """Gives the command that queues it."""
        return ["XADD", stream, "*", *(part for pair in self.fields.items() for part in pair)]


def make_request(uri: str, inputs: Inputs, key: Key | None = None) -> Request:
    """Gives a request in this project's own format, with a new request id; with a `key` its inputs are encrypted.

    Raises:
        TypeError: an input is neither a tensor of numbers nor an image.
        ValueError: the uri is empty or there is no input.
    """
    named = inputs if isinstance(inputs, Mapping) else {"": inputs}
    if not named:
        raise ValueError(f"request {uri!r} has no input")
    request_id = new_request_id()
    values = {name: as_input(name, value) for name, value in named.items()}
    fields = native.encode_request(encode_uri(uri), request_id.encode(), values)
    return Request(request_id, fields if key is None else seal_fields(fields, key))


def encode_uri(uri: str) -> bytes:
    """Gives the bytes of a uri; `decode_uri` gives every uri back, whatever its bytes are.

    Raises:
        ValueError: it is empty.
    """
    if not uri:
        raise ValueError("uri is empty, wanted is a name for the request")
    return uri.encode("utf-8", "surrogateescape")


def decode_uri(uri: bytes) -> str:
    """Gives the text of a uri."""
    return uri.decode("utf-8", "surrogateescape")


def new_request_id() -> str:
    """Gives an id that no other request has."""
    return secrets.token_hex(16)


def as_input(name: str, value: Input) -> Image | np.ndarray:
    """Gives an image for bytes and paths, else a tensor; lists of floats become float32.

    Raises:
        TypeError: the value is text, or no regular array of numbers.
    """
    if isinstance(value, np.ndarray | Image):
        return value
    if isinstance(value, bytes):
        return Image(value)
    if isinstance(value, Path):
        return Image(value.read_bytes())
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"input {name!r} is {type(value).__name__}, wanted is a tensor of numbers, bytes or a Path")
    return array.astype(np.float32) if array.dtype == np.float64 else array


def as_image(image: np.ndarray | bytes | str | Path, encoding: str) -> Image:
    """Gives the image file that bytes are, that a path names, or that an array is encoded to.

    An array is uint8, of shape (height, width) or (height, width, 3) in the order blue, green, red, as OpenCV has it.

    Raises:
        ValueError: the encoding is not known, or the array is no image.
        ClientError: OpenCV, which encodes arrays, is not installed.
    """
    if isinstance(image, bytes):
        return Image(image)
    if isinstance(image, str | Path):
        return Image(Path(image).read_bytes())
    if encoding not in _EXTENSIONS:
        raise ValueError(f"encoding is {encoding!r}, wanted is one of {', '.join(_EXTENSIONS)}")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"image is {image.dtype}{list(image.shape)}, wanted is uint8[height, width, 3]")
    try:
        import cv2
    except ImportError as err:
        raise ClientError("an array needs OpenCV: pip install 'opencv-python-headless>=4.14,<5'") from err
    _, encoded = cv2.imencode(_EXTENSIONS[encoding], image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return Image(encoded.tobytes())


def chunked(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """Splits requests into chunks of at most 128 that end once they hold 1 MiB."""
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
