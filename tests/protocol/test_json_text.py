"""The structure of JSON is known before anything is built of it."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from beam_serving.errors import RequestError
from beam_serving.protocol import json_text
from beam_serving.protocol.json_text import parse_json
from beam_serving.protocol.limits import Limits

LEAVES = some.none() | some.booleans() | some.integers() | some.text(some.sampled_from('a"\\[]{},:é😀'))
VALUES = some.recursive(
    LEAVES,
    lambda inner: some.lists(inner) | some.dictionaries(some.text(some.sampled_from('"\\[{')), inner),
    max_leaves=30,
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
@given(VALUES, some.booleans())
@example(["\\", "[[["], False)
@example(['\\"', "[[["], False)
def test_depth_is_that_of_lists_and_objects_and_not_of_texts(at_once: int, value: object, as_ascii: bool) -> None:
    raw = json.dumps(value, ensure_ascii=as_ascii).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "_AT_ONCE", at_once)
        assert parse_json(raw, Limits(max_json_depth=depth(value))) == value
        if depth(value):
            with pytest.raises(RequestError, match=f"nested deeper than {depth(value) - 1}$"):
                parse_json(raw, Limits(max_json_depth=depth(value) - 1))


def test_what_would_be_large_is_refused_with_the_limit() -> None:
    raw = b"[" + b"[]," * 400_000 + b"[]]"
    with pytest.raises(RequestError) as caught:
        parse_json(raw, Limits(max_decode_bytes=50 << 20))
    assert str(caught.value) == (
        "JSON of 400000 values in 400002 lists and 0 objects take about 74 MB to parse, at most 50 MB are given to one "
        "request; send less or a tensor, or the service needs a larger data: max_decode_mb"
    )
    assert len(parse_json(raw, Limits())) == 400_001
