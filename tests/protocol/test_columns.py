"""Requests decoded by columns are what they are one by one, whatever is among them."""

from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as some

from beam_serving.errors import RequestError
from beam_serving.models.base import STRING, TensorSpec
from beam_serving.protocol import Limits, decode_request
from beam_serving.protocol.columns import decode_alike
from beam_serving.records import ProtocolVersion
from beam_serving.transforms.decode import resolve_columns, tensors_for
from beam_serving.transforms.image import ImageRules

LIMITS = Limits(max_payload_bytes=300)
SPECS = {
    "one": (TensorSpec("x", (2,), np.dtype(np.float32)),),
    "wider": (TensorSpec("x", (2,), np.dtype(np.float64)),),
    "free": (TensorSpec("x", (None,), np.dtype(np.float32)),),
    "two": (TensorSpec("x", (2,), np.dtype(np.float32)), TensorSpec("y", (), np.dtype(np.int64))),
    "text": (TensorSpec("x", (2,), STRING),),
    "any": (),
}


def flat(
    uri: bytes, tensors: list[tuple[bytes, bytes, bytes, bytes]], extra: list[bytes], reverse: bool
) -> list[bytes]:
    pairs = [[b"uri", uri], [b"id", b"i" + uri]]
    for name, raw, dtype, shape in tensors:
        pairs += [[b"tensor:" + name, raw], [b"dtype:" + name, dtype], [b"shape:" + name, shape]]
    pairs += [extra] if extra else []
    return [part for pair in (reversed(pairs) if reverse else pairs) for part in pair]


GOOD = np.array([1, 2], np.float32).tobytes()
TENSOR = some.sampled_from(
    [
        (b"x", GOOD, b"float32", b"2"),
        (b"", GOOD, b"float32", b"2"),
        (b"x", GOOD, b"float32", b"1,2"),
        (b"x", GOOD[:7], b"float32", b"2"),
        (b"x", b"\x01\x02", b"int8", b"2"),
        (b"x", b"\x01\x02", b"bool", b"2"),
        (b"x", np.arange(2, dtype="<i8").tobytes(), b"int64", b"2"),
        (b"x", bytes(16), b"float64", b"2"),
        (b"x", GOOD, b"float99", b"2"),
        (b"x", GOOD, b"float32", b"-2"),
        (b"\xff", GOOD, b"float32", b"2"),
        (b"x", bytes(400), b"float32", b"100"),
    ]
)
SECOND = some.sampled_from(
    [(b"y", bytes(8), b"int64", b""), (b"y", bytes(4), b"int32", b""), (b"z", b"\0", b"int8", b"1")]
)
EXTRA = some.sampled_from(
    [
        [],
        [b"note", b"n"],
        [b"image:y", b"i"],
        [b"text:x", b'"a"'],
        [b"image", b"a"],
        [b"cipher", b"c"],
        [b"uri", b"two"],
    ]
)
ENTRY = some.builds(
    lambda uri, first, second, extra, reverse: flat(uri, [first, *second], extra, reverse),
    some.sampled_from([b"a", b"b", b"", b"u" * 5000]) | some.binary(min_size=1, max_size=3),
    TENSOR,
    some.lists(SECOND, max_size=1),
    EXTRA,
    some.booleans(),
)
BLOCKS = some.lists(some.just(flat(b"a", [(b"x", GOOD, b"float32", b"2")], [], False)), max_size=4).flatmap(
    lambda same: some.lists(ENTRY, max_size=6).flatmap(lambda others: some.permutations(same + others))
)


def one_by_one(entry: list[bytes], inputs: tuple[TensorSpec, ...]) -> tuple[Any, ...] | None:
    fields = dict(zip(entry[::2], entry[1::2], strict=True))
    try:
        payload = decode_request(fields, LIMITS)
        tensors = tensors_for(payload, inputs, ImageRules())
    except RequestError:
        return None
    assert payload.protocol == ProtocolVersion.NATIVE
    return payload.uri, payload.request_id, shown(tensors)


def shown(tensors: Any) -> dict[str, tuple[str, Any]]:
    return {name: (tensor.dtype.str, tensor.tolist()) for name, tensor in tensors.items()}


PLAIN = flat(b"a", [(b"x", GOOD, b"float32", b"2")], [], False)
NOTED = flat(b"b", [(b"x", GOOD, b"float32", b"2")], [b"note", b"n"], False)


@given(BLOCKS, some.sampled_from(sorted(SPECS)))
@example([PLAIN, NOTED], "any").via("fields of its own behind those of the form")
@example([NOTED, PLAIN, NOTED], "one").via("fields of its own behind those of the form")
@settings(max_examples=1000)
def test_what_is_decoded_by_columns_is_what_it_is_alone(entries: list[list[bytes]], model: str) -> None:
    inputs = SPECS[model]
    groups, rest = decode_alike(entries, LIMITS) if entries else ([], [])
    places = list(rest)
    for columns in groups:
        places += columns.places
        tensors = resolve_columns(columns.tensors, inputs)
        if tensors is None:
            continue
        for row, place in enumerate(columns.places):
            alone = one_by_one(entries[place], inputs)
            of_row = shown({name: np.asarray(rows[row, ...]) for name, rows in tensors.items()})
            assert alone == (columns.uris[row], columns.request_ids[row], of_row)
    assert sorted(places) == list(range(len(entries)))


def test_a_field_that_means_nothing_to_us_keeps_nobody_from_the_columns() -> None:
    ((columns,), rest) = decode_alike([PLAIN, NOTED, PLAIN], LIMITS)
    assert (list(columns.uris), list(columns.request_ids), rest) == ([b"a", b"b", b"a"], [b"ia", b"ib", b"ia"], [])


def test_one_odd_request_sends_no_other_down_the_slow_way() -> None:
    entries = [flat(b"%d" % number, [(b"x", GOOD, b"float32", b"2")], [], False) for number in range(1, 101)]
    entries.insert(50, [b"uri", b"odd"])
    ((columns,), rest) = decode_alike(entries, LIMITS)
    assert rest == [50]
    assert len(columns.places) == 100
