"""The names of a model's classes, from a file of the operator's."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from beam_serving.errors import ConfigError
from beam_serving.models.base import TensorSpec
from beam_serving.text_files import lines_of, read_text_file

_WANTED = "one name per line"
_INDEX_WANTED = 'wanted is {"0": "name"} or {"0": ["id", "name"]} with each class from 0 on'
_DETECTOR_KEY = "object_type_names"
_MOST_TOLD = 3
_LONGEST_NUMBER = 10
_LONGEST_SHOWN = 60


def read_labels(path: str | None) -> tuple[str, ...]:
    """Read the names of classes, in the order of the classes; return none without a file.

    One name per line, a JSON list of them, or a JSON index: `{"0": "tench"}` as TorchServe's index_to_name.json, or
    `{"0": ["n01440764", "tench"]}` as Keras's imagenet_class_index.json, of which the last is the name.

    Raises:
        ConfigError: the file cannot be read, is empty, has something else than a name, or misses a class.
    """
    if path is None:
        return ()
    try:
        text = read_text_file(path)
        names = _of_json(text) if text.lstrip()[:1] in ("[", "{") else [line.strip() for line in lines_of(text)]
    except (ValueError, RecursionError) as err:
        reason = err if isinstance(err, ValueError) else "nested too deep"
        raise ConfigError(f"{path}: cannot be read as labels ({reason}); wanted is {_WANTED}") from err
    if isinstance(names, _Index):
        names = _in_order(names, path)
    while names and names[-1] == "":
        names.pop()
    if not names:
        raise ConfigError(f"{path}: has no labels; wanted is {_WANTED}")
    for place, name in enumerate(names, 1):
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"{path}: label {place} is {_shown(name)}, wanted is a name for each class")
    return tuple(names)


class _Index:
    """A JSON object as it stands in the file: pairs of a class and its name, one twice where it stands there twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _of_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_Index)


def _in_order(index: _Index, path: str) -> list[Any]:
    """Return the names of an index by their classes.

    Raises:
        ConfigError: a key is no class, stands there twice, or one is missing.
    """
    pairs = index.pairs
    if len(pairs) == 1 and pairs[0][0] == _DETECTOR_KEY and isinstance(pairs[0][1], _Index):
        pairs = pairs[0][1].pairs
    names: dict[int, Any] = {}
    for key, value in pairs:
        if not (key.isascii() and key.isdecimal() and len(key) < _LONGEST_NUMBER):
            raise ConfigError(f"{path}: {json.dumps(key)} is the number of no class; {_INDEX_WANTED}")
        if int(key) in names:
            raise ConfigError(f"{path}: class {int(key)} stands there twice; {_INDEX_WANTED}")
        name = value[-1] if isinstance(value, list) and len(value) in (1, 2) else value
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"{path}: class {key} is {_shown(value)}; {_INDEX_WANTED}")
        names[int(key)] = name.strip()
    missing = [number for number in range(len(names)) if number not in names]
    if missing:
        told = ", ".join(map(str, missing[:_MOST_TOLD])) + (", ..." if len(missing) > _MOST_TOLD else "")
        raise ConfigError(f"{path}: has {len(names)} classes up to {max(names)}; missing: {told}; {_INDEX_WANTED}")
    return [names[number] for number in range(len(names))]


def _shown(value: Any) -> str:
    """Return a value of the file, cut short."""
    text = json.dumps(value, default=lambda index: dict(index.pairs), ensure_ascii=False)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def check_labels(path: str | None, outputs: Sequence[TensorSpec]) -> None:
    """Make sure that there is one name per class of an output, as far as the model says how many it has.

    Raises:
        ConfigError: the numbers differ.
    """
    labels = read_labels(path)
    classes = {spec.name: _count(spec.shape) for spec in outputs}
    if not labels or None in classes.values():
        return
    if len(labels) not in classes.values():
        counted = ", ".join(f"output {name!r} has {count}" for name, count in classes.items())
        raise ConfigError(f"{path}: has {len(labels)} labels, {counted} classes; wanted is one name per class")


def _count(shape: tuple[int | None, ...] | None) -> int | None:
    """Return the number of values of a shape, None where it is not known."""
    return None if shape is None or None in shape else math.prod(size or 0 for size in shape)
