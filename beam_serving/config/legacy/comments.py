"""The comments of a YAML file, by the key that they stand at. PyYAML itself drops them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import yaml

from beam_serving.config.legacy.rules import FLAT
from beam_serving.config.yaml_file import YamlFile

_BLOCKS = ("|", ">")
_HASH = re.compile(r"(?:^|(?<=\s))#")


class Place(NamedTuple):
    """Where a key stands: its lines (from 0), its column, and the text of its value where that is one line."""

    name: str
    first: int
    last: int
    column: int
    text: str
    is_section: bool


@dataclass
class Comments:
    """Comment lines by the name of the key that they stand above, beside or, indented as it is, below."""

    header: list[str] = field(default_factory=list)
    above: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    beside: dict[str, str] = field(default_factory=dict)
    below: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    footer: list[str] = field(default_factory=list)


def places(file: YamlFile) -> list[Place]:
    """Return all keys of the first two levels, in the order of the file."""
    found = []
    for key, value in file.root.value:
        inner = isinstance(value, yaml.MappingNode) and str(key.value).lower() not in FLAT
        found.append(_place(file, str(key.value), key, value, is_section=inner))
        if inner:
            found += [_place(file, f"{key.value}.{one.value}", one, of, is_section=False) for one, of in value.value]
    return sorted(found, key=lambda place: (place.first, place.column))


def one_line_keys(file: YamlFile) -> set[str]:
    """Return the keys whose values stand in one line, and can be written as they are."""
    return {place.name for place in places(file) if place.text and not place.is_section}


def _place(file: YamlFile, name: str, key: yaml.Node, value: yaml.Node, *, is_section: bool) -> Place:
    first, last = key.start_mark.line, _last_line(value)
    text = file.text[value.start_mark.index : value.end_mark.index].strip()
    # Anchors, aliases and tags would lose their meaning elsewhere.
    is_plain = "\n" not in text and text[:1] not in ("&", "*", "!")
    return Place(
        name, first, first if is_section else last, key.start_mark.column, text if is_plain else "", is_section
    )


def _last_line(node: yaml.Node) -> int:
    """Return the last line of a value; PyYAML lets a block end where the next key begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        inside = [part for one in node.value for part in (one if isinstance(one, tuple) else (one,))]
        return max((_last_line(part) for part in inside), default=node.start_mark.line)
    end: yaml.Mark = node.end_mark
    return end.line - 1 if end.column == 0 and end.line > node.start_mark.line else end.line


def comments(file: YamlFile, keys: list[Place]) -> Comments:
    """Find the key that each comment belongs to: on its line, or else the next one that is not indented less."""
    found = Comments()
    lines = file.text.splitlines()
    first = keys[0].first if keys else len(lines)
    apart = max((number for number, line in enumerate(lines[:first]) if not line.strip()), default=-1)
    for number, column, text in _all_comments(file.text):
        on_line = [place for place in keys if place.first == number]
        around = next((place for place in keys if place.first < number <= place.last), None)
        before = [place for place in keys if place.first < number]
        after = next((place for place in keys if place.first > number), None)
        if on_line:
            leaves = [place for place in on_line if not place.is_section]
            found.beside[(leaves or on_line)[0].name] = text
        elif around is not None:
            found.above[around.name].append(text)
        elif number < first and (number < apart or text.startswith("##")):
            found.header.append(text)
        elif before and column > (after.column if after else 0):
            found.below[before[-1].name].append(text)
        elif after is not None:
            found.above[after.name].append(text)
        else:
            found.footer.append(text)
    return found


def _all_comments(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield line (from 0), column and text of each comment: what begins with # outside of any scalar."""
    scalars = [
        # A block of text begins in the line after its mark.
        (text.find("\n", token.start_mark.index) if token.style in _BLOCKS else token.start_mark.index, token.end_mark)
        for token in yaml.scan(text, Loader=yaml.SafeLoader)
        if isinstance(token, yaml.ScalarToken)
    ]
    at = 0
    for number, line in enumerate(text.splitlines(keepends=True)):
        for match in _HASH.finditer(line):
            index = at + match.start()
            if not any(start <= index < end.index for start, end in scalars):
                yield number, match.start(), line[match.start() :].rstrip()
                break
        at += len(line)
