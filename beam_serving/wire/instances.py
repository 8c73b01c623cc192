"""Requests with `serde` = `stream`, which the HTTP front end of Cluster Serving 2.x sends: `data` is its JSON body.

{"instances": [{"<input>": <nested list of numbers, or base64 of an image file>, ...}]}
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from beam_serving.errors import RequestError
from beam_serving.records import Image
from beam_serving.wire.image import decode_base64
from beam_serving.wire.limits import Limits, input_name, subject

# a string needs no closing quote to match: else a text of many quotes would be scanned to its end from each of them
_BRACKET_OR_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


def decode_inputs(text: bytes, limits: Limits) -> dict[str, Image | np.ndarray]:
    """Gives the inputs of the one instance of a JSON body.

    Raises:
        RequestError: not JSON, too large or too deep, not exactly one instance, or a value that is no input.
    """
    instances = parse_instances(text, limits)
    if len(instances) != 1:
        raise RequestError(f"JSON has {len(instances)} instances, wanted is one per request")
    return instance_inputs(instances[0], limits)


def parse_instances(text: bytes, limits: Limits) -> list[Mapping[str, Any]]:
    """Reads the instances of a JSON body.

    Raises:
        RequestError: not JSON, too large or too deep, or not of the form `{"instances": [{...}]}`.
    """
    if len(text) > limits.max_json_bytes:
        raise RequestError(f"JSON is {len(text)} bytes, at most {limits.max_json_bytes} are served")
    try:
        decoded = text.decode()
        if _depth_is_above(decoded, limits.max_json_depth):
            raise RequestError(f"JSON is nested deeper than {limits.max_json_depth}")
        body = json.loads(decoded)
    except (ValueError, RecursionError) as err:
        raise RequestError(f"payload is not JSON: {str(err)[:120]}") from err
    instances = body.get("instances") if isinstance(body, dict) else None
    if not isinstance(instances, list) or not all(isinstance(instance, dict) and instance for instance in instances):
        raise RequestError('JSON is of another form than {"instances": [{"<input>": <value>}]}')
    return instances


def instance_inputs(instance: Mapping[str, Any], limits: Limits) -> dict[str, Image | np.ndarray]:
    """Gives the inputs of one instance: lists and numbers as float32, text as the image that it encodes.

    Raises:
        RequestError: a value is neither.
    """
    if len(instance) > limits.max_fields:
        raise RequestError(f"instance has {len(instance)} inputs, at most {limits.max_fields} are served")
    return {
        input_name(name.encode("utf-8", "backslashreplace"), limits): _decode_value(name, value)
        for name, value in instance.items()
    }


def _decode_value(name: str, value: Any) -> Image | np.ndarray:
    if isinstance(value, str):
        encoded = value.encode("utf-8", "backslashreplace")
        return Image(decode_base64(encoded, f"{subject(name)}text"))
    try:
        array = np.array(value)
        if array.dtype.kind not in "iufb":
            raise ValueError(f"it is of type {array.dtype}")
        with np.errstate(over="ignore"):
            tensor = array.astype(np.float32)
    except (ValueError, TypeError, OverflowError) as err:
        raise RequestError(f"{subject(name)}value is no regular list of numbers: {str(err)[:120]}") from err
    if tensor.size == 0:
        raise RequestError(f"{subject(name)}list is empty")
    return tensor


def _depth_is_above(text: str, limit: int) -> bool:
    """Tells whether brackets nest deeper than `limit`, in one pass and before anything is built."""
    depth = 0
    for match in _BRACKET_OR_STRING.finditer(text):
        bracket = text[match.start()]
        if bracket in "[{":
            depth += 1
            if depth > limit:
                return True
        elif bracket in "]}":
            depth -= 1
    return False
