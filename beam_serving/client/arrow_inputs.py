"""What users of Cluster Serving hand over as inputs, and the request that becomes of it."""

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from beam_serving.client.requests import Request, encode_uri, new_request_id
from beam_serving.encryption.gcm import Key
from beam_serving.errors import ClientError
from beam_serving.records import Image
from beam_serving.wire.arrow_request import Column, Sparse, encode_inputs

ONLY_INPUT = "t"
"""The name of an input without one, as Cluster Serving has it."""


def make_arrow_request(uri: str, inputs: Mapping[str, Any], key: Key | None = None) -> Request:
    """Gives a request in the format of Cluster Serving 0.9 and later, with a request id beside it.

    With a `key` its images are encrypted, as the servers there took them with `recordEncrypted`.

    Raises:
        TypeError: an input is none that this format has, or none that it can have encrypted.
        ValueError: the uri is empty, there is no input, or a text cannot be sent.
        ClientError: an image file cannot be read.
    """
    request_id = new_request_id()
    fields = {b"uri": encode_uri(uri), b"id": request_id.encode(), b"data": data_to_b64(inputs, key)}
    return Request(request_id, fields)


def data_to_b64(inputs: Mapping[str, Any], key: Key | None = None) -> bytes:
    """Gives the field `data` of a request; see `make_arrow_request`."""
    if not inputs:
        raise ValueError("a request needs at least one input")
    columns = {name: _as_column(name, value) for name, value in inputs.items()}
    return encode_inputs(columns if key is None else {name: _sealed(name, one, key) for name, one in columns.items()})


def inputs_of(request: Any) -> Mapping[str, Any]:
    """Reads what `predict` takes: JSON text of one instance, a dict of inputs, or the value of the only input.

    Raises:
        ValueError: the JSON has another number of instances than one.
    """
    if isinstance(request, Mapping):
        return request
    if isinstance(request, str):
        try:
            instances = json.loads(request)["instances"]
        except (ValueError, TypeError, KeyError):
            return {ONLY_INPUT: request}
        if not isinstance(instances, list) or len(instances) != 1:
            raise ValueError("JSON has another number of instances than one")
        return {name: {"b64": value} if isinstance(value, str) else value for name, value in instances[0].items()}
    return {ONLY_INPUT: request}


def _as_column(name: str, value: Any) -> Column:
    if isinstance(value, Mapping):
        return _image_of_mapping(name, value)
    if isinstance(value, str | Path):
        return _image_of_file(name, value)
    if isinstance(value, bytes | Image):
        return value if isinstance(value, Image) else Image(value)
    if isinstance(value, list | tuple) and value and isinstance(value[0], np.ndarray):
        return _sparse(name, value)
    array = np.asarray(value)
    if array.dtype.kind in "US":
        return [str(text) for text in array.astype(str).ravel()]
    if array.dtype.kind not in "biuf":
        raise TypeError(f"input {name!r} is {type(value).__name__}, wanted are numbers, texts or the path of an image")
    return array


def _sealed(name: str, column: Column, key: Key) -> Image:
    if not isinstance(column, Image):
        remedy = "a queue with its address in first place encrypts everything"
        raise TypeError(f"input {name!r} is no image, and the format of Cluster Serving encrypts no other; {remedy}")
    return Image(key.seal(column.encoded))


def _sparse(name: str, parts: Any) -> Sparse:
    if len(parts) != 3:
        raise TypeError(f"input {name!r} has {len(parts)} arrays, a sparse tensor is [indices, values, shape]")
    return Sparse(*map(np.asarray, parts))


def _image_of_file(name: str, path: str | Path) -> Image:
    try:
        return Image(Path(path).read_bytes())
    except OSError as err:
        raise ClientError(f"input {name!r}: the image file {str(path)!r} cannot be read: {err.strerror}") from err


def _image_of_mapping(name: str, value: Mapping[str, Any]) -> Image:
    if "path" in value:
        return _image_of_file(name, value["path"])
    try:
        return Image(base64.b64decode(value["b64"], validate=True))
    except (KeyError, TypeError, binascii.Error) as err:
        raise TypeError(f"input {name!r} is a dict, wanted is {{'path': ...}} or {{'b64': ...}}") from err
