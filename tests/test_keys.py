"""No two streams have a key in common, and none is that of something else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.config.schema import Data
from beam_serving.records import ProtocolVersion
from beam_serving.transport.keys import DEAD_LETTERS, owner_key, parents, result_key, shared_keys

NAMES = some.text("ab:", min_size=1, max_size=6) | some.sampled_from(
    ("a:dead", "a:rows", "a:owner:g", "result:a", "cluster-serving_a", "cluster-serving_a:b", "beam-serving:a:ready")
)
URIS = some.text("ab:", min_size=1, max_size=6)


def keys_of(stream: str, uri: str) -> set[bytes]:
    name = stream.encode()
    results = {result_key(protocol, name, uri.encode()) for protocol in ProtocolVersion}
    return results | {name, name + DEAD_LETTERS, name + b":rows", owner_key(stream, "g").encode()}


@given(NAMES, NAMES, URIS, URIS)
def test_streams_that_may_stand_side_by_side_share_no_key(one: str, other: str, uri: str, other_uri: str) -> None:
    streams = one, other
    if one != other and not any(shared_keys(stream, streams) for stream in streams):
        assert not keys_of(one, uri) & keys_of(other, other_uri)


@given(NAMES, URIS)
def test_the_result_of_a_request_is_at_no_other_key_of_its_stream(stream: str, uri: str) -> None:
    if not shared_keys(stream):
        results = {result_key(protocol, stream.encode(), uri.encode()) for protocol in ProtocolVersion}
        assert not results & {stream.encode(), stream.encode() + DEAD_LETTERS, stream.encode() + b":rows"}


def test_the_names_above_a_name() -> None:
    assert list(parents("a:b:c")) == ["a:b", "a"]
    assert not list(parents("a"))


@pytest.mark.parametrize(
    ("streams", "said"),
    [
        ("result:a", "names that start with result: are those of other keys of ours"),
        ("cluster-serving_a", "names that start with cluster-serving_ are"),
        ("beam-serving:a:ready", "names that start with beam-serving: are"),
        ("a:dead", "names with :dead or :rows at the end"),
        ("a, b:owner:c", "or :owner: within"),
        ("a:b, a", r"streams 'a' and 'a:b': .*\(cluster-serving_a:b:<uri>\)"),
        ("a, c, a:b:c", "streams 'a' and 'a:b:c': "),
        ("a\x1b[2J", r"'a\\x1b\[2J': wants a name without control characters"),
    ],
)
def test_names_that_would_share_keys_are_refused(streams: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Data(streams=streams)  # type: ignore[arg-type]
    assert re.search("stream", str(caught.value))


def test_names_with_colons_are_fine_where_nothing_is_shared() -> None:
    assert Data(streams="prod:birds, prod:cats").streams == ("prod:birds", "prod:cats")  # type: ignore[arg-type]
