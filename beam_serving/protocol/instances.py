"""Requests with `serde` = `stream`, which the HTTP front end of Cluster Serving 2.x sends: `data` is its JSON body.

{"instances": [{"<input>": <number, text or nested list of them, or base64 of an image file>, ...}]}

JSON does not say of what type a number is. A list of whole numbers is int64, so that none of them changes, and one with
floats float64; the model's input decides what they become. A text that is valid base64 is an image.
"""

from collections.abc import Mapping

import numpy as np

from beam_serving.errors import RequestError
from beam_serving.protocol import numbers, text
from beam_serving.protocol.image import decode_base64
from beam_serving.protocol.json_text import parse_json
from beam_serving.protocol.limits import Limits, input_name, subject
from beam_serving.records import Image


def decode_inputs(body: bytes, limits: Limits) -> dict[str, Image | np.ndarray]:
    """Return the inputs of the one instance of a JSON body.

    Raises:
        RequestError: not JSON, too large or too deep, not exactly one instance, or a value that is no input.
    """
    instances = parse_instances(body, limits)
    if len(instances) != 1:
        raise RequestError(f"JSON has {len(instances)} instances, wanted is one per request")
    return instance_inputs(instances[0], limits)


def parse_instances(raw: bytes, limits: Limits) -> list[Mapping[str, object]]:
    """Read the instances of a JSON body.

    Raises:
        RequestError: not JSON, too large or too deep, or not of the form `{"instances": [{...}]}`.
    """
    body = parse_json(raw, limits)
    instances = body.get("instances") if isinstance(body, dict) else None
    if not isinstance(instances, list) or not all(isinstance(instance, dict) and instance for instance in instances):
        raise RequestError('JSON is of another form than {"instances": [{"<input>": <value>}]}')
    return instances


def instance_inputs(instance: Mapping[str, object], limits: Limits) -> dict[str, Image | np.ndarray]:
    """Return the inputs of one instance: numbers and texts as arrays, base64 as the image that it encodes.

    Raises:
        RequestError: a value is neither, or holds a whole number that would change.
    """
    if len(instance) > limits.max_fields:
        raise RequestError(f"instance has {len(instance)} inputs, at most {limits.max_fields} are served")
    return {
        input_name(name.encode("utf-8", "backslashreplace"), limits): _decode_value(name, value)
        for name, value in instance.items()
    }


def _decode_value(name: str, value: object) -> Image | np.ndarray:
    if isinstance(value, str):
        try:
            return Image(decode_base64(value.encode("utf-8", "backslashreplace"), "text"))
        except RequestError:
            return _texts(name, value)
    if text.starts_with_text(value):
        return _texts(name, value)
    try:
        tensor = numbers.from_lists(value)
    except ValueError as err:
        raise RequestError(f"{subject(name)}value is no regular list of numbers: {str(err)[:300]}") from err
    if tensor.size == 0:
        raise RequestError(f"{subject(name)}list is empty")
    return tensor


def _texts(name: str, value: object) -> np.ndarray:
    try:
        return text.from_lists(value)
    except ValueError as err:
        raise RequestError(f"{subject(name)}value is no regular list of texts: {str(err)[:300]}") from err
