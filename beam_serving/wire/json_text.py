"""JSON from outside: its size and depth are known before anything is built of it."""

import json
import re
from typing import Any

from beam_serving.errors import RequestError
from beam_serving.wire.limits import Limits

# a string needs no closing quote to match: else a text of many quotes would be scanned to its end from each of them
_BRACKET_OR_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


def parse_json(raw: bytes, limits: Limits, what: str = "payload") -> Any:
    """Parse JSON in UTF-8; `what` is what a message calls it.

    Raises:
        RequestError: it is not JSON, or too large or too deep.
    """
    if len(raw) > limits.max_json_bytes:
        raise RequestError(f"JSON is {len(raw)} bytes, at most {limits.max_json_bytes} are served")
    try:
        decoded = raw.decode()
        if _depth_is_above(decoded, limits.max_json_depth):
            raise RequestError(f"JSON is nested deeper than {limits.max_json_depth}")
        return json.loads(decoded)
    except (ValueError, RecursionError) as err:
        raise RequestError(f"{what} is not JSON: {str(err)[:120]}") from err


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
