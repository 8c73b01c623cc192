"""Values from beside the file: environment variables as BEAM_SERVING__DATA__SRC, then --set data.src=host:6379."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from beam_serving.config.legacy.translate import Entry, Translation, renamed
from beam_serving.errors import ConfigError
from beam_serving.text_files import expanded

PREFIX = "BEAM_SERVING__"
_OURS = "BEAM_SERVING_"
_LEVEL = "__"
_ALTERNATIVES = {"params.top_n": "params.post_processing", "params.post_processing": "params.top_n"}
_FIRST_NAMES = {"data.max_request_bytes": "data.max_payload_bytes"}


class Override(NamedTuple):
    """A value of a key; None is a blank one, which stands for the default. `source` is where it was given, in words."""

    key: str
    value: str | None
    source: str


def variable_of(key: str) -> str:
    """Return the name of the environment variable for a key."""
    return PREFIX + key.replace(".", _LEVEL).upper()


def overrides(known: Collection[str], sets: Sequence[str], environment: Mapping[str, str]) -> list[list[Override]]:
    """Read both sources, in the order in which a later value takes the place of an earlier one.

    Args:
        known: the keys there are, as `data.src`.
        sets: each `KEY=VALUE`.
        environment: all variables; those that are not ours are left alone.

    Raises:
        ConfigError: a name is none of the keys, or something is no KEY=VALUE; one line per mistake, without values.
    """
    mistakes: list[str] = []
    layers = []
    for layer in (_of_environment(known, environment), _of_sets(known, sets)):
        found: list[Override] = []
        for key, value, source, mistake in layer:
            if mistake:
                mistakes.append(f"{source}: {mistake}")
                continue
            try:
                text: str = expanded(value.strip(), environment) if "${" in value else value.strip()
            except ValueError as err:
                mistakes.append(f"{source}: {err}")
            else:
                found.append(Override(key, text or None, source))
        layers.append(found)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return layers


_Found = tuple[str, str, str, str]


def _of_environment(known: Collection[str], environment: Mapping[str, str]) -> Iterator[_Found]:
    keys = {variable_of(key): key for key in known}
    for name in sorted(environment):
        if name in keys:
            yield keys[name], environment[name], f"environment variable {name}", ""
        elif name.startswith(PREFIX) or (name.startswith(_OURS) and _LEVEL in name):
            yield "", "", f"environment variable {name}", f"there is no such key{_nearest(name, keys, PREFIX)}"


def _of_sets(known: Collection[str], sets: Sequence[str]) -> Iterator[_Found]:
    for given in sets:
        key, sign, value = given.partition("=")
        key = key.strip()
        source = f"--set {key}"
        if key in known:
            yield key, value, source, "" if sign else f"wants a value behind =, as --set {key}=VALUE"
        elif new := renamed(key):
            yield "", "", source, f"is a key of Cluster Serving; here it is {new!r}"
        else:
            yield "", "", source, f"there is no such key{_nearest(key, known, 'data.src=redis-host:6379')}"


def _nearest(name: str, names: Collection[str], otherwise: str) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    if otherwise == PREFIX:
        return f"; wanted is {PREFIX}SECTION__KEY, as {variable_of('data.src')}"
    return f"; wanted is SECTION.KEY=VALUE, as --set {otherwise}"


def overridden(translation: Translation, layers: Sequence[Sequence[Override]]) -> Translation:
    """Put the values in the place of those of the file.

    Of two keys that say the same in two ways, the one that is given last counts.
    """
    values = {key: dict(body) if isinstance(body, dict) else body for key, body in translation.values.items()}
    last: dict[str, Override] = {}
    replaced: dict[str, str] = {}
    for layer in layers:
        of_layer = {one.key: one for one in layer}
        for key, one in of_layer.items():
            _put(values, key, one.value)
            last[key] = one
            replaced[key] = one.source
            for other in (_ALTERNATIVES.get(key), _FIRST_NAMES.get(key)):
                if other and other not in of_layer:
                    _put(values, other, None)
                    last.pop(other, None)
                    replaced[other] = one.source
    entries = [_marked(entry, replaced) for entry in translation.entries]
    entries += [
        Entry(key, one.value, None, {key: one.value}, f"by {one.source}", secret="@" in (one.value or ""))
        for key, one in last.items()
    ]
    sources = {key: one.source for key, one in last.items()}
    return translation._replace(values=values, entries=entries, sources=sources)


def _put(values: dict[object, Any], key: str, value: str | None) -> None:
    section, _, name = key.partition(".")
    body = values if not name else values.setdefault(section, {})
    if body is None:  # a section that is left blank
        body = values[section] = {}
    if not isinstance(body, dict):
        return  # a mistake, which the check tells
    if value is None:
        body.pop(name or section, None)
    else:
        body[name or section] = value


def _marked(entry: Entry, replaced: Mapping[str, str]) -> Entry:
    by = next((replaced[key] for key in (*entry.new, entry.key) if key in replaced), None)
    return entry._replace(remark="; ".join(filter(None, (entry.remark, f"replaced by {by}")))) if by else entry
