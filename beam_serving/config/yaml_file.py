"""A YAML file with the line of each of its keys."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

from beam_serving.errors import ConfigError


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


def read_yaml(path: Path) -> YamlFile:
    """Read a file.

    Raises:
        ConfigError: it cannot be read, is no YAML or no mapping, or a key stands in it twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"{path}: cannot read the configuration ({reason}); --config names a YAML file such as config.yaml"
        ) from err
    return parse_yaml(path, text)


def parse_yaml(path: Path, text: str) -> YamlFile:
    """Do the same with a text that is there already; `path` is what it is called.

    Raises:
        ConfigError: see `read_yaml`.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {getattr(err, 'problem', None) or err}") from err
    except RecursionError as err:
        raise ConfigError(f"{path}: lists or mappings are nested too deep") from err
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}: is empty or no mapping; it wants at least 'model:' with 'path:' below it")
    return YamlFile(path, text, root, values, _lines_of(root, path))


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
