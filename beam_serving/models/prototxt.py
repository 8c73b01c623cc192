"""Reads the text form of protobuf, as far as Caffe's `.prototxt` files use it, and what a net takes in."""

import re
from collections.abc import Iterator
from typing import NamedTuple, Union

Message = list[tuple[str, Union[str, "Message"]]]
"""The fields in the order of the file: scalars as their text without quotes, messages as the same kind of list."""

_TOKEN = re.compile(
    r"""\s+ | \#[^\n]*
    | (?P<token> "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' | [{}:\[\],;<>] | [^\s{}:\[\],;<>"'\#]+ )""",
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">"}
_DEEPEST = 50


class NetInput(NamedTuple):
    """One input of a net: `shape` has the batch axis first and is None where the file does not say it."""

    name: str
    shape: tuple[int, ...] | None


def parse(text: str) -> Message:
    """Parses a text-form message.

    Raises:
        ValueError: the text is none; the message says what was found where something else was wanted.
    """
    return _message(_tokens(text), closing="", depth=0)


def net_inputs(net: Message) -> list[NetInput]:
    """Finds the inputs of a net: layers of the type Input or Data, or the older top-level fields."""
    names = [str(value) for key, value in net if key == "input"]
    shapes = [_dims(value) for key, value in net if key == "input_shape"]
    sizes = [int(str(value)) for key, value in net if key == "input_dim"]
    shapes += [tuple(sizes[start : start + 4]) for start in range(0, len(sizes), 4)]
    inputs = _paired(names, shapes)
    for key, layer in net:
        if key in ("layer", "layers") and isinstance(layer, list):
            inputs += _layer_inputs(layer)
    return inputs


def _layer_inputs(layer: Message) -> list[NetInput]:
    fields = dict(layer)
    if "bottom" in fields or not str(fields.get("type", "")).lower().endswith(("input", "data")):
        return []
    tops = [str(value) for key, value in layer if key == "top" and value != "label"]
    parameters = fields.get("input_param", [])
    shapes = [_dims(value) for key, value in parameters if key == "shape"] if isinstance(parameters, list) else []
    return _paired(tops, shapes * len(tops) if len(shapes) == 1 else shapes)


def _paired(names: list[str], shapes: list[tuple[int, ...]]) -> list[NetInput]:
    return [NetInput(name, shapes[place] if place < len(shapes) else None) for place, name in enumerate(names)]


def _dims(shape: "str | Message") -> tuple[int, ...]:
    return tuple(int(str(value)) for key, value in shape if key == "dim") if isinstance(shape, list) else ()


def _tokens(text: str) -> Iterator[str]:
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if not found:
            raise ValueError(f"line {text.count(chr(10), 0, place) + 1} has an unfinished string")
        place = found.end()
        if found["token"]:
            yield found["token"]


def _message(tokens: Iterator[str], closing: str, depth: int) -> Message:
    if depth > _DEEPEST:
        raise ValueError(f"messages are nested more than {_DEEPEST} deep")
    fields: Message = []
    for token in tokens:
        if token == closing:
            return fields
        if token in (",", ";"):
            continue
        if not token[0].isalpha() and token[0] != "_":
            raise ValueError(f"{token!r} stands where a field's name is wanted")
        fields += [(token, value) for value in _values(tokens, token, depth)]
    if closing:
        raise ValueError(f"the text ends before the {closing!r} of a message")
    return fields


def _values(tokens: Iterator[str], name: str, depth: int) -> list["str | Message"]:
    word = next(tokens, "")
    if word == ":":
        word = next(tokens, "")
    elif word not in _CLOSING:
        raise ValueError(f"{word or 'the end'!r} follows {name!r}, where ':' or '{{' is wanted")
    if word != "[":
        return [_value(tokens, word, name, depth)]
    values: list[str | Message] = []
    for item in tokens:
        if item == "]":
            return values
        if item != ",":
            values.append(_value(tokens, item, name, depth))
    raise ValueError(f"the text ends in the list of {name!r}")


def _value(tokens: Iterator[str], word: str, name: str, depth: int) -> "str | Message":
    if word in _CLOSING:
        return _message(tokens, _CLOSING[word], depth + 1)
    if word in ("", *"}>]:,;["):
        raise ValueError(f"{word or 'the end'!r} stands where the value of {name!r} is wanted")
    return word[1:-1] if word[0] in "\"'" else word
