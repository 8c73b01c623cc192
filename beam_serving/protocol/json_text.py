"""JSON from outside: its size and depth are known before anything is built of it."""

import json

import numpy as np

from beam_serving.errors import RequestError
from beam_serving.protocol.limits import Limits, check_parsed

_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
_AT_ONCE = 1 << 20
_LIST_BYTES, _OBJECT_BYTES, _VALUE_BYTES, _TEXT_BYTES = 136, 400, 56, 64
"""What Python takes for a list and an object, each with its first value, for each other value and text; measured."""


def parse_json(raw: bytes, limits: Limits, what: str = "payload") -> object:
    """Parse JSON in UTF-8; `what` is what a message calls it.

    Raises:
        RequestError: it is not JSON, or too large or too deep.
    """
    if len(raw) > limits.max_json_bytes:
        raise RequestError(f"JSON is {len(raw)} bytes, at most {limits.max_json_bytes} are served")
    try:
        _check_structure(raw, limits)
        return json.loads(raw.decode())
    except (ValueError, RecursionError) as err:
        raise RequestError(f"{what} is not JSON: {str(err)[:120]}") from err


def _check_structure(raw: bytes, limits: Limits) -> None:
    """Refuse JSON by its brackets, commas and quotes, before anything is built of it."""
    if len(raw) <= _AT_ONCE and raw.count(b"[") + raw.count(b"{") <= limits.max_json_depth:
        return
    # What is escaped goes first, from the left: then every quote begins or ends a string.
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw
    depth = strings = lists = objects = values = 0
    for start in range(0, len(plain), _AT_ONCE):
        part = np.frombuffer(plain, np.uint8, min(_AT_ONCE, len(plain) - start), start)
        quotes = (part == ord('"')).cumsum(dtype=np.int32) + strings
        strings = int(quotes[-1])
        outside = part[quotes & 1 == 0]
        if not outside.size:
            continue
        depths = _STEPS[outside].cumsum(dtype=np.int32)
        if depth + int(depths.max()) > limits.max_json_depth:
            raise RequestError(f"JSON is nested deeper than {limits.max_json_depth}")
        depth += int(depths[-1])
        kinds = np.bincount(outside, minlength=256)
        lists, objects = lists + int(kinds[ord("[")]), objects + int(kinds[ord("{")])
        values += int(kinds[ord(",")] + kinds[ord(":")])
    # A text takes four bytes for each character where one of them needs as many, and it is copied once.
    needed = len(raw) * (1 if raw.isascii() else 8) + lists * _LIST_BYTES + objects * _OBJECT_BYTES
    needed += values * _VALUE_BYTES + strings // 2 * _TEXT_BYTES
    check_parsed(needed, limits, f"JSON of {values} values in {lists} lists and {objects} objects")
