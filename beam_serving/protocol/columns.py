"""Native tensor requests that were read at once, decoded by columns where they are alike.

Whatever is unusual in a request leaves it to `decode_request`, which says what is wrong: here nothing is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from beam_serving.errors import RequestError
from beam_serving.protocol.codecs import codec_of
from beam_serving.protocol.encrypted import CIPHER
from beam_serving.protocol.limits import Limits
from beam_serving.protocol.native import CODEC
from beam_serving.protocol.tensors import Layout, parse_layout

_LEAST_ALIKE = 2
_OTHER_INPUTS = (b"image:", b"text:")
Flat = Sequence[bytes]
"""The fields of an entry as the server sends them: names and values in turn."""


class Columns(NamedTuple):
    """What some requests of a read batch say: these are at `places` of it; tensors have the shape (records, ...)."""

    places: Sequence[int]
    uris: Sequence[bytes]
    request_ids: Sequence[bytes]
    tensors: dict[str, np.ndarray]


class _Form(NamedTuple):
    """Where in the flat list of an entry with these field names what stands: `tensors` as name, value, dtype, shape."""

    uri: int
    request_id: int
    tensors: tuple[tuple[str, int, int, int], ...]


def decode_alike(entries: Sequence[Flat], limits: Limits) -> tuple[list[Columns], list[int]]:
    """Decode requests by columns, those of one form together.

    Args:
        entries: the fields of each request.
        limits: what a request may have.

    Returns:
        The groups that were decoded, and the places of the requests that were not.
    """
    key = _key(entries[0], limits) if len(entries) >= _LEAST_ALIKE else None
    if key is not None and (columns := _all_alike(*key, entries, limits)) is not None:
        return [columns], []
    groups, rest = _grouped(entries, limits)
    found: list[Columns] = []
    for (form, layouts), places in groups:
        if len(places) < _LEAST_ALIKE:
            rest += places
        else:
            # Only what the form names is the same in all of them: behind it an entry may have fields of its own.
            column = partial(_column, [entries[place] for place in places])
            found.append(_columns(form, layouts, places, column))
    rest.sort()
    return found, rest


def _all_alike(form: _Form, layouts: Sequence[Layout], entries: Sequence[Flat], limits: Limits) -> Columns | None:
    """Decode requests that are all of the form of the first one; None where they are not."""
    records, first = len(entries), entries[0]
    try:
        parts = list(zip(*entries, strict=True))
    except ValueError:
        return None
    same = {*range(0, len(first), 2), *(place for tensor in form.tensors for place in tensor[2:])}
    if any(parts[place].count(first[place]) != records for place in same):
        return None
    sizes = [set(map(len, part)) for part in parts]
    for (_, value, _, _), layout in zip(form.tensors, layouts, strict=True):
        if sizes[value] != {layout.size_bytes}:
            return None
    uris, request_ids = sizes[form.uri], sizes[form.request_id] if form.request_id else {0}
    largest = max(uris) > limits.max_uri_bytes or max(request_ids) > limits.max_name_bytes
    if largest or 0 in uris or sum(map(max, sizes)) > limits.max_payload_bytes:
        return None
    return _columns(form, layouts, range(records), parts.__getitem__)


_Key = tuple[_Form, tuple[Layout, ...]]


def _grouped(entries: Sequence[Flat], limits: Limits) -> tuple[list[tuple[_Key, Sequence[int]]], list[int]]:
    places: dict[_Key, list[int]] = defaultdict(list)
    rest: list[int] = []
    for place, flat in enumerate(entries):
        key = _key(flat, limits)
        if key is None:
            rest.append(place)
        else:
            places[key].append(place)
    return list(places.items()), rest


def _key(flat: Flat, limits: Limits) -> _Key | None:
    """Return the form and layouts of a request; None where it has none, or where it is above a limit."""
    if len(flat) > 2 * limits.max_fields:
        return None
    form = _form(tuple(flat[::2]), limits)
    if form is None or not 0 < len(flat[form.uri]) <= limits.max_uri_bytes:
        return None
    if form.request_id and len(flat[form.request_id]) > limits.max_name_bytes:
        return None
    layouts = []
    for _, value, dtype, shape in form.tensors:
        layout = _layout(flat[dtype], flat[shape], limits.max_rank)
        if layout is None or len(flat[value]) != layout.size_bytes:
            return None
        layouts.append(layout)
    if sum(map(len, flat)) > limits.max_payload_bytes:
        return None
    return form, tuple(layouts)


@lru_cache(maxsize=64)
def _form(names: tuple[bytes, ...], limits: Limits) -> _Form | None:
    at = {name: 2 * place + 1 for place, name in enumerate(names)}
    if len(at) < len(names) or b"uri" not in at or CIPHER in at or codec_of(names) is not CODEC:
        return None
    tensors = []
    for name, value in at.items():
        if name.startswith(_OTHER_INPUTS):
            return None
        if name.startswith(b"tensor:"):
            dtype, shape = at.get(b"dtype:" + name[7:]), at.get(b"shape:" + name[7:])
            if dtype is None or shape is None or len(name) - 7 > limits.max_name_bytes:
                return None
            try:
                tensors.append((name[7:].decode(), value, dtype, shape))
            except UnicodeDecodeError:
                return None
    return _Form(at[b"uri"], at.get(b"id", 0), tuple(tensors)) if tensors else None


@lru_cache(maxsize=256)
def _layout(dtype: bytes, shape: bytes, max_rank: int) -> Layout | None:
    try:
        layout = parse_layout(dtype, shape, max_rank)
    except RequestError:
        return None
    # of booleans every byte above 0 is true, which takes a look at each
    return None if layout.dtype.kind == "b" else layout


def _column(entries: Sequence[Flat], at: int) -> Sequence[bytes]:
    return [entry[at] for entry in entries]


def _columns(
    form: _Form, layouts: Sequence[Layout], places: Sequence[int], column: Callable[[int], Sequence[bytes]]
) -> Columns:
    tensors = {}
    for (name, value, _, _), layout in zip(form.tensors, layouts, strict=True):
        joined = bytearray().join(column(value))
        tensors[name] = np.frombuffer(joined, layout.dtype).reshape(len(places), *layout.shape)
    request_ids = column(form.request_id) if form.request_id else (b"",) * len(places)
    return Columns(places, column(form.uri), request_ids, tensors)
