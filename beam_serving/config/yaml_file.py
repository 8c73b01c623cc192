"""A YAML file with the line of each of its keys, and with variables of the environment in its values."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from beam_serving.errors import ConfigError
from beam_serving.text_files import Expanded, NotReadableError, expanded, read_text_file

_DEEPEST = 32
_TAG = "tag:yaml.org,2002:beam_serving/expanded"
_TEXT = "tag:yaml.org,2002:str"


class YamlFile(NamedTuple):
    """A mapping of at least one level; `lines` has the line (from 1) of every key, by its path in the mapping."""

    path: Path
    text: str
    root: yaml.MappingNode
    values: dict[object, object]
    lines: dict[tuple[str, ...], int]

    def where(self, line: int | None) -> str:
        """Return `file:line`, or the file alone where the line is not known."""
        return f"{self.path}:{line}" if line else str(self.path)


def read_yaml(path: Path, environment: Mapping[str, str] = os.environ) -> YamlFile:
    """Read a file.

    Raises:
        ConfigError: it cannot be read, is no YAML or no mapping, a key stands in it twice, or a variable is not set.
    """
    try:
        text = read_text_file(path)
    except NotReadableError as err:
        raise ConfigError(
            f"{path}: cannot read the configuration ({err}); --config names a YAML file such as config.yaml"
        ) from err
    return parse_yaml(path, text, environment)


def parse_yaml(path: Path, text: str, environment: Mapping[str, str] = os.environ) -> YamlFile:
    """Do the same with a text that is there already; `path` is what it is called.

    Raises:
        ConfigError: see `read_yaml`.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = _values(text, path, environment) if isinstance(root, yaml.MappingNode) else {}
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(err, "problem", None) or str(err).partition("\n")[0]
        has_variable = mark is not None and "${" in text.split("\n")[mark.line]
        quote = "; between { } and [ ] a value with ${ } wants quotes around it" if has_variable else ""
        raise ConfigError(f"{where}: not valid YAML: {reason}{quote}") from err
    except RecursionError as err:
        raise ConfigError(f"{path}: lists or mappings are nested too deep") from err
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}: is empty or no mapping; it wants at least 'model:' with 'path:' below it")
    return YamlFile(path, text, root, values, _lines_of(root, path))


def flow(text: str) -> object:
    """Return the list or mapping that a text is, as `[a, b]` or `{a: 1}`; any other text as it is.

    Raises:
        ValueError: it begins as one and is none.
    """
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        raise ValueError("is no list or mapping of YAML") from err


def number_of(text: str) -> object:
    """Return the number, or true or false, that a text is where it stands without quotes; any other text as it is."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return str(text)
    return value if isinstance(value, int | float) else str(text)


def has_variables(value: object) -> bool:
    """Return whether the value of a key has values of variables in it, which are not to be shown."""
    if isinstance(value, dict):
        return any(map(has_variables, value.values()))
    return any(map(has_variables, value)) if isinstance(value, list) else isinstance(value, Expanded)


class _Loader(yaml.SafeLoader):
    """PyYAML's, which also makes texts with the values of variables."""

    texts: dict[int, Expanded]

    def construct_expanded(self, node: yaml.ScalarNode) -> Expanded | None:
        """Return the text of a node that `_expand` has marked; an empty one is a blank."""
        return self.texts.get(id(node)) or None


_Loader.add_constructor(_TAG, _Loader.construct_expanded)


def _values(text: str, path: Path, environment: Mapping[str, str]) -> dict[object, object]:
    """Return the values of a file with variables in them; told is also what PyYAML answers with an error of Python's.

    Raises:
        ConfigError: a variable is not set, a number or date is none, or a value holds itself.
    """
    loader = _Loader(text)
    root: Any = loader.get_single_node()
    loader.texts = {}
    mistakes = []
    for key, node in _scalars(root, path):
        try:
            if node.tag == _TEXT and "${" in node.value:
                loader.texts[id(node)] = expanded(node.value, environment)
                node.tag = _TAG
            else:
                loader.construct_object(node)
        except (ValueError, OverflowError) as err:
            reason = err if node.tag in (_TEXT, _TAG) else f"{node.value[:40]!r} is no value; in quotes it is text"
            mistakes.append(f"{path}:{node.start_mark.line + 1}: {'.'.join(key)}: {reason}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    values: dict[object, object] = loader.construct_document(root)
    return values


def _scalars(root: yaml.MappingNode, path: Path) -> Iterator[tuple[tuple[str, ...], yaml.ScalarNode]]:
    """Yield each value that is no list and no mapping, with the keys above it."""
    seen: set[int] = set()

    def inside(key: tuple[str, ...], node: yaml.Node, around: tuple[int, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        where = f"{path}:{node.start_mark.line + 1}: {'.'.join(key)}"
        if id(node) in around:
            raise ConfigError(f"{where}: holds itself")
        if len(around) > _DEEPEST:
            raise ConfigError(f"{where}: lists or mappings are nested too deep")
        if id(node) in seen:
            return
        seen.add(id(node))
        around = (*around, id(node))
        if isinstance(node, yaml.ScalarNode):
            yield key, node
        elif isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                if isinstance(name, yaml.ScalarNode) and "${" in name.value:
                    raise ConfigError(f"{path}:{name.start_mark.line + 1}: {name.value}: a key cannot have variables")
                yield from inside((*key, str(name.value)), value, around)
        else:
            for value in node.value:
                yield from inside(key, value, around)

    yield from inside((), root, ())


def _lines_of(root: yaml.MappingNode, path: Path) -> dict[tuple[str, ...], int]:
    lines: dict[tuple[str, ...], int] = {}
    pending: list[tuple[tuple[str, ...], yaml.MappingNode]] = [((), root)]
    while pending:
        prefix, node = pending.pop()
        for key, value in node.value:
            name = (*prefix, str(key.value))
            line = key.start_mark.line + 1
            if name in lines:
                raise ConfigError(f"{path}:{line}: {'.'.join(name)} stands here and in line {lines[name]}; keep one")
            lines[name] = line
            if isinstance(value, yaml.MappingNode) and len(name) < 3:
                pending.append((name, value))
    return lines
