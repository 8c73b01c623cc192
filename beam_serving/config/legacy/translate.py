"""From a configuration file of any version to the values of the new form, and what became of each key."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from beam_serving.config.legacy.conversions import Outcome
from beam_serving.config.legacy.rules import FLAT, NESTED, NEW_IN_0_9, RULES, SAME, STILL_THERE, UP_TO_0_8_KEYS
from beam_serving.config.yaml_file import YamlFile

NEW = "this project's own form"
UP_TO_0_8 = "Cluster Serving up to 0.8"
NESTED_0_9 = "Cluster Serving 0.9"
FLAT_0_10 = "Cluster Serving 0.10 or later"

_BEST = Outcome({"params.top_n": 1}, "results hold the best class, the default of its time")
_WHOLE = Outcome(
    {"params.post_processing": "none"},
    "results hold the whole output, as in the old servers where nothing was asked for",
)
_UNASKED = {UP_TO_0_8: _BEST, NESTED_0_9: _WHOLE, FLAT_0_10: _WHOLE}
"""What the old servers sent where nothing was asked for."""


class Entry(NamedTuple):
    """One key of the file, as it stands there (`params.core_number`), and the new keys that it became.

    A `value` of None is one left blank. `line` is None for a key that is merged in from elsewhere in the file, and,
    where `value` is so too, for what the old servers did without being told.
    """

    key: str
    value: object
    line: int | None
    new: dict[str, object]
    remark: str = ""
    warns: bool = False
    secret: bool = False


class Translation(NamedTuple):
    """A file in the new form; `errors` are lines for the operator, about keys that could not be converted.

    `sources` says of new keys whose value is not of the file where it was given, in words.
    """

    file: YamlFile
    form: str
    values: dict[object, Any]
    entries: list[Entry]
    errors: list[str]
    sources: Mapping[str, str] = MappingProxyType({})

    def source_of(self, new: str) -> Entry | None:
        """Return the old key that a new one has its value from; None where the file says it under its new name."""
        return next((one for one in self.entries if one.key != new and one.new.get(new) is not None), None)


class _Leaf(NamedTuple):
    name: str
    path: tuple[object, ...]
    value: object
    line: int | None


def renamed(key: str) -> str:
    """Return what an old key is called now; empty where it is none, or nothing has taken its place."""
    name = NESTED.get(key) or FLAT.get(key.lower())
    return RULES[name].new if name else ""


def translate(file: YamlFile, known: Collection[str]) -> Translation:
    """Translate what is old in a file and leave everything else as it is.

    `known` are the keys and sections of the new form. Others are left for the check of the new form to refuse; only in
    a file of the old servers, which ignored what they did not know, they become warnings.
    """
    leaves = list(_leaves(file))
    form = _form(leaves, known)
    names = {leaf.name: _rule_name(leaf, form) for leaf in leaves}
    paths = {leaf.name: leaf.path for leaf in leaves}
    old = {names[leaf.name] or leaf.name: leaf.value for leaf in leaves if not _is_blank(leaf)}
    entries: list[Entry] = []
    errors: list[str] = []
    for leaf in leaves:
        name = names[leaf.name]
        try:
            entries.append(_entry(leaf, name, old, form, known))
        except ValueError as err:
            entries.append(Entry(leaf.name, leaf.value, leaf.line, {}, f"wrong: {err}", secret=_hides(leaf.value)))
            got = "" if _hides(leaf.value) else f" (got {leaf.value!r})"
            errors.append(f"{file.where(leaf.line)}: {leaf.name}: {err}{got}")
    if form != NEW and not any(_is_about_results(leaf.name, names[leaf.name]) for leaf in leaves):
        asked = "postProcessing" if form == FLAT_0_10 else "data.filter"
        entries.append(Entry(asked, None, None, *_UNASKED[form]))
    errors += _conflicts(file, entries)
    values = _sections(file, form, known)
    for new, value in ((new, value) for one in entries for new, value in one.new.items() if value is not None):
        path = paths.get(new) or tuple(new.split("."))
        if len(path) == 1:
            values[path[0]] = value
        else:
            values.setdefault(path[0], {})[path[1]] = value
    return Translation(file, form, values, entries, errors)


def _leaves(file: YamlFile) -> Iterator[_Leaf]:
    for key, body in file.values.items():
        if isinstance(body, dict) and str(key).lower() not in FLAT:
            for inner, value in body.items():
                line = file.lines.get((str(key), str(inner)))
                yield _Leaf(f"{key}.{inner}", (key, inner), value, line)
        else:
            yield _Leaf(str(key), (key,), body, file.lines.get((str(key),)))


def _form(leaves: list[_Leaf], known: Collection[str]) -> str:
    """Tell the version; one key that only the new form has makes a file new, and old ones in it mistakes."""
    if any(leaf.name in known and not _was_there(leaf) for leaf in leaves):
        return NEW
    if any(leaf.name.lower() in FLAT for leaf in leaves):
        return FLAT_0_10
    if any(leaf.name in NEW_IN_0_9 for leaf in leaves):
        return NESTED_0_9
    return UP_TO_0_8 if any(leaf.name in UP_TO_0_8_KEYS for leaf in leaves) else NEW


def _was_there(leaf: _Leaf) -> bool:
    section_alone = len(leaf.path) == 1 and leaf.name != "name"
    same = leaf.name in (*STILL_THERE, *SAME) or leaf.path[0] == "spark"
    return section_alone or same or _means_as_before(leaf)


def _means_as_before(leaf: _Leaf) -> bool:
    """Tell of a key that means something else now whether its value is one of before."""
    return leaf.name == "data.resize" and isinstance(leaf.value, bool)


def _is_about_results(key: str, rule_name: str | None) -> bool:
    return rule_name == "postProcessing" or key == "params.top_n"


def _rule_name(leaf: _Leaf, form: str) -> str | None:
    if form == NEW:
        return STILL_THERE.get(leaf.name)
    if leaf.name == "data.resize":
        return leaf.name
    return FLAT.get(leaf.name.lower()) if len(leaf.path) == 1 else NESTED.get(leaf.name)


def _entry(leaf: _Leaf, name: str | None, old: dict[str, object], form: str, known: Collection[str]) -> Entry:
    rule = RULES[name] if name else None
    asked = "postProcessing" in old or "params.top_n" in old
    if form != NEW and not asked and _is_about_results(leaf.name, name):
        outcome = _UNASKED[form]
    elif form != NEW and leaf.name == "params.top_n" and "postProcessing" in old and not _is_blank(leaf):
        outcome = Outcome({}, "not used beside postProcessing or data.filter, which says what results hold", warns=True)
    elif rule is None:
        outcome = _left_as_it_is(leaf, form, known)
    elif not _is_blank(leaf):
        outcome = rule.convert(leaf.value, old)
    else:
        outcome = Outcome({rule.new: None} if rule.new else {}, "blank: the default")
    secret = (rule is not None and rule.secret) or _hides(leaf.value)
    return Entry(leaf.name, leaf.value, leaf.line, *outcome, secret)


def _left_as_it_is(leaf: _Leaf, form: str, known: Collection[str]) -> Outcome:
    if form == NEW or leaf.name in known:
        return Outcome({leaf.name: leaf.value}, "" if leaf.value is not None else "blank: the default")
    if leaf.value is None:
        return Outcome({}, "blank")
    names = [*known, *NESTED, *(name for name in RULES if "." not in name)]
    near = difflib.get_close_matches(leaf.name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return Outcome({}, f"unknown key, ignored{hint}", warns=True)


def _conflicts(file: YamlFile, entries: list[Entry]) -> Iterator[str]:
    first: dict[str, Entry] = {}
    for entry in entries:
        for new, value in entry.new.items():
            other = first.setdefault(new, entry) if value is not None else entry
            if other is not entry and other.new[new] != value:
                also = f"{other.key} in line {other.line}"
                yield f"{file.where(entry.line)}: {entry.key}: {also} says something else of {new}; keep one"


def _sections(file: YamlFile, form: str, known: Collection[str]) -> dict[object, Any]:
    """Return the sections of the file, still empty; those that nobody knows stay in a new file, to be refused."""
    return {key: {} for key, body in file.values.items() if isinstance(body, dict) and (form == NEW or key in known)}


def _is_blank(leaf: _Leaf) -> bool:
    return leaf.value is None or (leaf.value == "" and leaf.name not in STILL_THERE)


def _hides(value: object) -> bool:
    """Return whether a value may hold a password: an address with a user."""
    return isinstance(value, str) and "@" in value
