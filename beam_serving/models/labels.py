"""The names of a model's classes, from a file of the operator's."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from beam_serving.errors import ConfigError
from beam_serving.models.base import TensorSpec


def read_labels(path: str | None) -> tuple[str, ...]:
    """Read one name per line, or a JSON list of them, in the order of the classes; return none without a file.

    Raises:
        ConfigError: the file cannot be read, is empty, or has something else than a name.
    """
    if path is None:
        return ()
    try:
        text = Path(path).read_text(encoding="utf-8")
        names = json.loads(text) if text.lstrip()[:1] in ("[", "{") else [line.strip() for line in text.split("\n")]
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else err
        raise ConfigError(f"{path}: cannot be read as labels ({reason}); wanted is one name per line") from err
    if not isinstance(names, list):
        raise ConfigError(f"{path}: is a JSON {type(names).__name__}, wanted is a list of names or one name per line")
    while names and names[-1] == "":
        names.pop()
    if not names:
        raise ConfigError(f"{path}: has no labels; wanted is one name per line")
    for place, name in enumerate(names, 1):
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{path}: label {place} is {json.dumps(name)}, wanted is a name for each class")
    return tuple(names)


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
