"""What users of Cluster Serving hand over as inputs, and the request that becomes of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from beam_serving.client.images import image_file, image_of_bytes, image_of_path, refuse_masked
from beam_serving.client.requests import Request, Uri, encode_name, encode_uri, new_request_id
from beam_serving.encryption.gcm import Key, Keys
from beam_serving.errors import ClientError, InputError
from beam_serving.protocol import numbers, text
from beam_serving.protocol.limits import DEFAULT_LIMITS
from beam_serving.protocol.replies import NEEDS_PYARROW
from beam_serving.records import Image

if TYPE_CHECKING:
    from beam_serving.protocol.arrow_request import Column, Sparse

ONLY_INPUT = "t"
"""The name of an input without one, as Cluster Serving has it."""


def make_arrow_request(uri: Uri, inputs: Mapping[str, object], keys: Keys | None = None) -> Request:
    """Return a request in the format of Cluster Serving 0.9 and later, with a request id beside it.

    With `keys` its images are encrypted, as the servers there took them with `recordEncrypted`.

    Raises:
        InputError: the uri or an input is none that this format has, or none that it can have encrypted.
        ImageFileError: an image file cannot be read.
    """
    request_id = new_request_id()
    fields = {b"uri": encode_uri(uri), b"id": request_id.encode(), b"data": data_to_b64(inputs, keys)}
    return Request(request_id, fields)


def data_to_b64(inputs: Mapping[str, object], keys: Keys | None = None) -> bytes:
    """Return the field `data` of a request; see `make_arrow_request`."""
    if not inputs:
        raise InputError("a request needs at least one input")
    try:
        # Imported here: who does not speak this format needs no pyarrow.
        from beam_serving.protocol.arrow_request import encode_inputs
    except ImportError as err:
        raise ClientError(f"a queue made as in Cluster Serving sends its format, {NEEDS_PYARROW}") from err
    columns = {encode_name(name): _as_column(name, value) for name, value in inputs.items()}
    try:
        sealed = columns if keys is None else {name: _sealed(name, one, keys.old) for name, one in columns.items()}
        return encode_inputs(sealed)
    except InputError:
        raise
    except ValueError as err:
        raise InputError(str(err)) from err


def inputs_of(request: object, *, as_columns: bool) -> Mapping[str, object]:
    """Read what `predict` takes: JSON text of one instance, a dict of inputs, or the value of the only input.

    Args:
        request: what was given to it.
        as_columns: for the format of Cluster Serving, which names the only input and has images of its own.

    Raises:
        InputError: the JSON has another number of instances than one, or a text in it is no base64.
    """
    only = ONLY_INPUT if as_columns else ""
    if isinstance(request, Mapping):
        return request
    if isinstance(request, str):
        try:
            instances = json.loads(request)["instances"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return {only: request}
        if not isinstance(instances, list) or len(instances) != 1:
            raise InputError("JSON has another number of instances than one")
        if not isinstance(instances[0], dict):
            raise InputError("the instance of the JSON is no object, wanted is its inputs by name")
        image = _image_mapping if as_columns else _image_bytes
        return {name: image(value) if isinstance(value, str) else value for name, value in instances[0].items()}
    return {only: request}


def _image_mapping(text: str) -> object:
    return {"b64": text}


def _image_bytes(text: str) -> object:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as err:
        raise InputError(f"a text of the instance is no base64 of an image file ({err})") from err


def _as_column(name: str, value: object) -> Column:
    if isinstance(value, Mapping):
        return _image_of_mapping(name, value)
    image = _image_of(name, value)
    if image is not None:
        return image
    refuse_masked(value, f"input {name!r}")
    if isinstance(value, list | tuple) and value and isinstance(value[0], np.ndarray):
        return _sparse(name, value)
    return _texts_or_numbers(name, value)


def _image_of(name: str, value: object) -> Image | None:
    try:
        return image_of_path(value) if isinstance(value, str) else image_file(value)
    except ClientError as err:
        raise type(err)(f"input {name!r}: {err}") from err


def _texts_or_numbers(name: str, value: object) -> Column:
    try:
        if text.starts_with_text(value):
            texts = text.from_lists(value) if isinstance(value, list | tuple) else text.from_array(np.asarray(value))
            return list(texts.reshape(-1))
        array = value if isinstance(value, np.ndarray) else numbers.from_lists(value)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"it is of type {array.dtype}")
    except ValueError as err:
        kind = type(value).__name__
        raise InputError(f"input {name!r} is {kind}, wanted are numbers, texts or the path of an image: {err}") from err
    if array.ndim > DEFAULT_LIMITS.max_rank or not array.size:
        raise InputError(
            f"input {name!r} has the shape {list(array.shape)}, wanted are at most {DEFAULT_LIMITS.max_rank} "
            "dimensions, none of them 0"
        )
    return array


def _sealed(name: str, column: Column, key: Key) -> Image:
    if not isinstance(column, Image):
        remedy = "a queue with its address in first place encrypts everything"
        raise InputError(f"input {name!r} is no image, and the format of Cluster Serving encrypts no other; {remedy}")
    return Image(key.seal(column.encoded))


def _sparse(name: str, parts: Any) -> Sparse:
    if len(parts) != 3:
        raise InputError(f"input {name!r} has {len(parts)} arrays, a sparse tensor is [indices, values, shape]")
    from beam_serving.protocol.arrow_request import Sparse

    return Sparse(*map(np.asarray, parts))


def _image_of_mapping(name: str, value: Mapping[str, Any]) -> Image:
    try:
        if "path" in value:
            return image_of_path(value["path"])
        return image_of_bytes(base64.b64decode(value["b64"], validate=True))
    except ClientError as err:
        raise type(err)(f"input {name!r}: {err}") from err
    except (KeyError, TypeError, ValueError) as err:
        raise InputError(f"input {name!r} is a dict, wanted is {{'path': ...}} or {{'b64': ...}}") from err
