"""How a client reads a result hash, whichever version it was written for."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from beam_serving.errors import RequestError, ResultError
from beam_serving.protocol import text
from beam_serving.protocol.numbers import float32_holds
from beam_serving.protocol.results import BestClasses, OutputArray, OutputList, Outputs, OutputText, Reply, named
from beam_serving.protocol.tensors import parse_layout, view

__all__ = ["Reply", "as_reply", "decode_reply"]

_MAX_RANK = 64
NEEDS_PYARROW = "which needs pyarrow: pip install 'beam-serving[legacy]'"


def decode_reply(fields: Mapping[bytes, bytes], by_label: bool = False) -> Reply:
    """Return the result that a hash holds. With `by_label` classes go by their names, where the service sent names.

    That is, of one output, its best classes by 0-based index, best first, the whole tensor (read-only, on the bytes
    that Redis sent), an array of texts, or a text; of several outputs a dict of these by name, and a list where an
    Arrow result has several, which have no names. A score that is no number is NaN, whether it was NaN or infinite.

    Raises:
        ResultError: the hash tells of a failure, or is not readable.
    """
    error = fields.get(b"error")
    if error is not None:
        raise ResultError(error.decode("utf-8", "replace"))
    try:
        tensors = _decode_outputs(fields)
        value = fields.get(b"value")
        if value is None and tensors:
            return next(iter(tensors.values())) if len(tensors) == 1 else as_reply(Outputs(tensors))
        if value is None:
            raise ValueError(f"it has no value, its fields are {sorted(fields)[:8]}")
        if value[:1] not in (b"[", b"{"):
            return _decode_arrow(value, fields.get(b"shapes"))
        decoded = _decode_json(json.loads(value), fields.get(b"labels"), by_label)
        return as_reply(Outputs({**decoded, **tensors})) if tensors else as_reply(decoded)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, RequestError) as err:
        raise ResultError(f"result is not readable: {err}") from err


def as_reply(value: Any) -> Reply:
    """Return a value as what it is for type checkers: each kind has of `Reply` what it can have."""
    reply: Reply = value
    return reply


def _decode_outputs(fields: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return the outputs that are served whole."""
    outputs: dict[str, Any] = {}
    for key, raw in fields.items():
        kind, _, name = key.partition(b":")
        if kind == b"tensor":
            layout = parse_layout(fields[b"dtype:" + name], fields[b"shape:" + name], _MAX_RANK, 0)
            output = view(raw, layout, OutputArray)
            output.output_name = name.decode()
            outputs[output.output_name] = output
        elif kind == b"text":
            outputs[name.decode()] = _decode_texts(name.decode(), raw, fields.get(b"shape:" + name))
    return outputs


def _decode_texts(name: str, raw: bytes, shape: bytes | None) -> OutputArray | OutputText:
    texts = text.from_lists(json.loads(raw))
    if shape is not None:
        texts = texts.reshape([int(dim) for dim in shape.split(b",")])
    if texts.ndim:
        return named(name, texts)
    one = OutputText(texts[()])
    one.output_name = name
    return one


def _decode_arrow(value: bytes, shapes: bytes | None) -> Reply:
    if value == b"NaN":
        raise ResultError("the service failed on this request and gave no reason")
    try:
        from beam_serving.protocol import arrow
    except ImportError as err:
        raise ResultError(f"result is in the format of Cluster Serving 0.9 and later, {NEEDS_PYARROW}") from err
    outputs = arrow.decode_answer(value)
    if shapes is not None:
        outputs = [output.reshape(shape) for output, shape in zip(outputs, json.loads(shapes), strict=True)]
    return as_reply(named("", outputs[0]) if len(outputs) == 1 else OutputList(outputs))


def _decode_json(value: Any, labels: Any, by_label: bool) -> Any:
    """Read `[[class, score], ...]`, the object of strings of 0.7, a tensor, or an object of these by output name."""
    if isinstance(value, list):
        return _scores(value, labels, by_label) if not value or _is_pair(value[0]) else named("", _array(value))
    if not all(isinstance(member, str) for member in value.values()):
        names = json.loads(labels) if isinstance(labels, bytes) else labels or {}
        return Outputs({name: _decode_json(member, names.get(name), by_label) for name, member in value.items()})
    return _scores_or_texts({int(index): score for index, score in value.items()})


def _array(value: list[object]) -> np.ndarray:
    first: object = value
    while isinstance(first, list) and first:
        first = first[0]
    if isinstance(first, str):
        return text.from_lists(value)
    array = np.array(value, np.float64)
    return array.astype(np.float32) if float32_holds(array) else array


def _scores_or_texts(by_index: dict[int, str]) -> BestClasses | Outputs:
    try:
        return BestClasses.by_index((index, float(score)) for index, score in by_index.items())
    except ValueError:
        return Outputs({index: OutputText(one) for index, one in by_index.items()})


def _is_pair(item: object) -> bool:
    """Return whether it is a class and its score: the numbers of a tensor are floats, a class is an integer."""
    return isinstance(item, list) and len(item) == 2 and isinstance(item[0], int)


def _scores(pairs: list[Any], labels: Any, by_label: bool) -> BestClasses:
    scores = [float("nan") if score is None else float(score) for _, score in pairs]
    indices = [int(index) for index, _ in pairs]
    if labels is None or not by_label:
        return BestClasses.by_index(zip(indices, scores, strict=True), labels)
    return BestClasses.by_name(indices, scores, json.loads(labels) if isinstance(labels, bytes) else labels)
