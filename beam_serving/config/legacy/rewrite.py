"""Writes a translated file in the new form, with the comments of the old one beside the keys they stood at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import yaml

from beam_serving.config.legacy.comments import Comments, Place, comments, places
from beam_serving.config.legacy.translate import Entry, Translation


@dataclass
class _Line:
    """One key of the new file, with its comments."""

    text: str = ""
    above: list[str] = field(default_factory=list)
    beside: str = ""
    below: list[str] = field(default_factory=list)

    def written(self, key: str, indent: str) -> Iterator[str]:
        yield from (f"{indent}{comment}" for comment in self.above)
        yield f"{indent}{key.rpartition('.')[2]}: {self.text}".rstrip() + (f"  {self.beside}" if self.beside else "")
        yield from (f"{indent}{comment}" for comment in self.below)


def rewrite(translation: Translation, order: Sequence[str], replaced: Mapping[str, str]) -> str:
    """Return the text of the new file.

    `order` has the keys of the new form in theirs. `replaced` has values, by new key, that stand in for those of the
    old file, as paths that are taken from another folder.
    """
    keys = places(translation.file)
    notes = comments(translation.file, keys)
    sources = {place.name: place.text for place in keys if not place.is_section}
    sections = {new.partition(".")[0] for entry in translation.entries for new in entry.new}
    _move_comments_of_lost_keys(notes, keys, sections.union(entry.key for entry in translation.entries))
    lines: dict[str, _Line] = {}
    unused: list[str] = []
    for entry in translation.entries:
        source = sources.get(entry.key, "")
        if not entry.new:
            unused += _unused(entry, source, notes)
        for place, (new, value) in enumerate(entry.new.items()):
            line = lines.setdefault(new, _Line())
            if not line.text:
                line.text = source if source and value is entry.value and new not in replaced else ""
                line.text = line.text or _dumped(replaced.get(new, value))
            if place == 0:
                _annotate(line, entry, notes)
    blocks = [notes.header]
    for section in dict.fromkeys(key.partition(".")[0] for key in order):
        if section in sections:
            head = lines.get(section) or _Line("", notes.above[section], notes.beside.get(section, ""))
            below = [text for key in _inside(section, order, lines) for text in lines[key].written(key, "  ")]
            blocks.append([*head.written(section, ""), *(f"  {text}" for text in notes.below[section]), *below])
    if unused:
        blocks.append(["# Keys of the old file that are not used:", *unused])
    blocks.append(notes.footer)
    return "\n".join("".join(f"{text}\n" for text in block) for block in blocks if block)


def _inside(section: str, order: Sequence[str], lines: Mapping[str, _Line]) -> list[str]:
    return [key for key in order if key in lines and key.startswith(f"{section}.")]


def _move_comments_of_lost_keys(notes: Comments, keys: list[Place], kept: set[str]) -> None:
    """Return the comments of a section that the new form lacks, or of a merge (`<<`), to the key after its name."""
    for place, following in zip_longest(keys, keys[1:]):
        if place.name not in kept:
            beside = [notes.beside.pop(place.name)] if place.name in notes.beside else []
            moved = [*notes.above.pop(place.name, []), *beside, *notes.below.pop(place.name, [])]
            after = notes.above[following.name] if following else notes.footer
            after[:0] = moved


def _unused(entry: Entry, source: str, notes: Comments) -> list[str]:
    value = "..." if entry.secret else source or _dumped(entry.value)
    beside = notes.beside.get(entry.key, "")
    reported = f"# {entry.key}: {value}".rstrip() + (f"  {beside}" if beside else "")
    reason = [f"#   {entry.remark}"] if entry.value is not None else []
    return [*notes.above[entry.key], reported, *reason, *notes.below[entry.key]]


def _annotate(line: _Line, entry: Entry, notes: Comments) -> None:
    line.above += notes.above[entry.key]
    line.below += notes.below[entry.key]
    if entry.warns or (entry.value is None and any(value is not None for value in entry.new.values())):
        line.above.append(f"# {entry.remark}")
    if beside := notes.beside.get(entry.key):
        if line.beside:
            line.above.append(beside)
        else:
            line.beside = beside


def _dumped(value: object) -> str:
    if value is None:
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9)
    return text.strip().removesuffix("...").strip()
