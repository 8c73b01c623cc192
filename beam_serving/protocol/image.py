"""The wire format of Cluster Serving 0.7 and 0.8: a base64 JPEG in, the best classes as a JSON object of strings out.

request   uri, image = base64 of an encoded image file
result    value = {"<class>": "<probability>", ...}, best first (0.7), or {"error": "<reason>"}
                  [[<class>, <probability>], ...] (0.8), nested lists for a tensor: for a service with post_processing

0.8 left out the commas between pairs; here they are. A request does not tell the two versions apart.
"""

import base64
import binascii
import json
from collections.abc import Mapping

import numpy as np

from beam_serving.errors import ModelError, RequestError
from beam_serving.protocol.codec import Codec
from beam_serving.protocol.limits import Limits
from beam_serving.protocol.scores import (
    nested_json,
    nested_text_json,
    object_json,
    texts_as_object,
    top_json,
    top_json_of_strings,
)
from beam_serving.protocol.text import is_text
from beam_serving.records import Answer, Image, ProtocolVersion, TopClasses


def decode_inputs(fields: Mapping[bytes, bytes], _: Limits) -> dict[str, Image | np.ndarray]:
    """Return the one image of a request; these clients do not name it.

    Raises:
        RequestError: the image is empty or not base64, or there is `data` of a later client beside it.
    """
    if b"data" in fields:
        raise RequestError("both 'image' and 'data' are there, wanted is one of them")
    text = fields[b"image"]
    if not text:
        raise RequestError("field 'image' is empty")
    return {"": Image(decode_base64(text, "field 'image'"))}


def decode_base64(text: bytes | memoryview, what: str) -> bytes:
    """Decode strict base64: the alphabet and padding of RFC 4648 section 4, no line breaks.

    Raises:
        RequestError: the text is anything else, or stands for no bytes.
    """
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error as err:
        raise RequestError(f"{what} is not base64: {str(err)[:80]}") from err
    if not decoded:
        raise RequestError(f"{what} is base64 of nothing")
    return decoded


def encode_request(uri: bytes, request_id: bytes, image: Image) -> dict[bytes, bytes]:
    """Return the fields of a request; `id` is ours, and older servers ignore it."""
    return {b"uri": uri, b"id": request_id, b"image": base64.b64encode(image.encoded)}


def encode_answer(answer: Answer) -> dict[bytes, bytes]:
    """Return the hash fields of an answer. Several outputs, which 0.7 did not have, become an object by their names.

    In the object of 0.7 an output that is served whole has its values numbered in C order, like classes. Texts stand
    where the numbers would. As a list a value that stands alone is one of one.

    Raises:
        ModelError: what is no text is among the texts of an output.
    """
    text_of = _as_lists if answer.as_lists else _as_object
    texts = []
    for name, output in answer.outputs.items():
        try:
            texts.append((name, text_of(output)))
        except ValueError as err:
            raise ModelError(f"output {name!r} cannot be sent: {err}; name the others in model: outputs") from err
    return {b"value": (texts[0][1] if len(texts) == 1 else object_json(texts)).encode()}


def encode_failure(reason: str) -> dict[bytes, bytes]:
    """Return what tells these clients of a failure: they read `value` only."""
    return {b"value": json.dumps({"error": reason}).encode()}


def _as_object(output: TopClasses | np.ndarray) -> str:
    if isinstance(output, TopClasses):
        return top_json_of_strings(output)
    if is_text(output):
        return texts_as_object(output)
    return top_json_of_strings(TopClasses(np.arange(output.size), output.reshape(-1)))


def _as_lists(output: TopClasses | np.ndarray) -> str:
    if isinstance(output, TopClasses):
        return top_json(output).decode()
    return nested_text_json(output) if is_text(output) else nested_json(np.atleast_1d(output))


CODEC = Codec(ProtocolVersion.IMAGE, lambda names: b"image" in names, decode_inputs, encode_answer, encode_failure)
