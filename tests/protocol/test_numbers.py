"""Whole numbers stay what they are, on every way through the older formats."""

from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.errors import ModelError
from beam_serving.protocol import arrow, decode_request, image, numbers
from beam_serving.protocol.arrow_request import Sparse, encode_inputs
from beam_serving.protocol.replies import decode_reply
from beam_serving.records import Answer, ProtocolVersion, TopClasses
from tests.old_clients import ArrowClient

INTEGERS = arrays.arrays(
    some.sampled_from(["int8", "int32", "int64", "uint8", "uint32", "uint64"]), arrays.array_shapes(max_dims=3)
)
FLOATS = arrays.arrays(np.float64, arrays.array_shapes(max_dims=3))
NUMBERS = INTEGERS | FLOATS


def is_kept(came: np.ndarray, sent: np.ndarray) -> bool:
    """Whether whole numbers are the same and fractions those of float32, by the exact comparisons of Python."""
    pairs = zip(came.ravel().tolist(), sent.ravel().tolist(), strict=True)
    return came.shape == sent.shape and all(
        got == was or got != got or (was != int(was) and got == float(np.float32(was))) for got, was in pairs
    )


@given(NUMBERS)
def test_a_request_of_the_arrow_format_keeps_whole_numbers(sent: np.ndarray) -> None:
    came: Any = decode_request({b"uri": b"a", b"data": encode_inputs({"t": sent})}).inputs["t"]
    assert is_kept(came, sent)


@given(some.lists(NUMBERS, min_size=1, max_size=2))
def test_a_result_of_the_arrow_format_keeps_whole_numbers_or_is_an_error(sent: list[np.ndarray]) -> None:
    answer = Answer({f"o{index}": output for index, output in enumerate(sent)})
    try:
        fields = arrow.encode_answer(answer)
    except ModelError:
        assert len(sent) > 1
        return
    old = ArrowClient.decoded(fields[b"value"])
    for came in (decode_reply(fields), old):
        outputs = came if isinstance(came, list) else [came]
        assert all(
            is_kept(got.reshape(was.shape), was)  # type: ignore[union-attr]
            for got, was in zip(outputs, sent, strict=True)
        )


def test_what_float32_holds_is_sent_as_float32() -> None:
    for sent in (np.arange(5), np.array([0.1, 1e-60]), np.array([2**24, -(2**24)]), np.array([np.nan, np.inf])):
        came: Any = decode_request({b"uri": b"a", b"data": encode_inputs({"t": sent})}).inputs["t"]
        reply: Any = decode_reply(arrow.encode_answer(Answer({"p": sent})))
        assert came.dtype == reply.dtype == np.float32


@pytest.mark.parametrize(
    ("sent", "dtype"),
    [
        (np.array([2**24 + 1]), "int64"),
        (np.array([2**63 + 1], np.uint64), "uint64"),
        (np.array([2.0**24 + 1, 0.5]), "float64"),
        (np.array([1e300]), "float64"),
    ],
)
def test_what_float32_would_change_is_sent_in_a_type_that_does_not(sent: np.ndarray, dtype: str) -> None:
    came: Any = decode_request({b"uri": b"a", b"data": encode_inputs({"t": sent})}).inputs["t"]
    reply: Any = decode_reply(arrow.encode_answer(Answer({"p": sent})))
    assert came.dtype == reply.dtype == dtype
    assert came.tolist() == reply.tolist() == sent.tolist()


def test_a_sparse_tensor_keeps_whole_numbers() -> None:
    sparse = Sparse(np.array([[1]]), np.array([2**53 + 1]), np.array([2]))
    came: Any = decode_request({b"uri": b"a", b"data": encode_inputs({"t": sparse})}).inputs["t"]
    assert came.tolist() == [0, 2**53 + 1]


def test_outputs_of_one_result_share_a_type() -> None:
    answer = Answer({"ids": np.array([2**24 + 1]), "p": np.array([0.5], np.float32)})
    ids, p = decode_reply(arrow.encode_answer(answer))
    assert (ids.tolist(), p.tolist()) == ([2**24 + 1], [0.5])  # type: ignore[union-attr]
    with pytest.raises(ModelError) as caught:
        arrow.encode_answer(Answer({**answer.outputs, "ids": np.array([2**53 + 1])}))
    assert str(caught.value) == (
        "output 'ids' has whole numbers that the results of Cluster Serving 0.9 and later do not hold beside the other "
        "outputs; name it alone in model: outputs, or use the client of beam_serving"
    )


def test_best_classes_of_whole_numbers_are_exact() -> None:
    top = TopClasses(np.array([3]), np.array([2**53 + 1]))
    assert decode_reply(arrow.encode_answer(Answer({"p": top}))).tolist() == [[3, 2**53 + 1]]  # type: ignore[union-attr]
    assert image.encode_answer(Answer({"p": top}))[b"value"] == b'{"3":"9007199254740993.0"}'
    assert image.encode_answer(Answer({"p": top}, as_lists=True))[b"value"] == b"[[3,9007199254740993.0]]"


def test_a_tensor_of_the_image_format_has_all_digits() -> None:
    fields = image.encode_answer(Answer({"p": np.array([[2**24 + 1, 1, 2]])}, as_lists=True))
    assert fields[b"value"] == b"[[16777217.0,1.0,2.0]]"
    assert decode_reply(fields).tolist() == [[16777217, 1, 2]]  # type: ignore[union-attr]


@given(some.recursive(some.integers(-(2**70), 2**70) | some.floats() | some.booleans(), some.lists, max_leaves=5))
def test_lists_become_arrays_of_the_same_numbers(value: Any) -> None:
    try:
        array = numbers.from_lists(value)
    except ValueError:
        return
    leaves = np.array(value, object).reshape(-1).tolist()
    for got, was in zip(array.reshape(-1).tolist(), leaves, strict=True):
        assert got == was or got != got or (isinstance(was, int) and abs(was) >= 2**64 and got == float(was))


@pytest.mark.parametrize("value", ["a", None, [None], [1, "a"], [[1], [1, 2]], [10**400], [10**400, 0.5], {}, [1j]])
def test_what_is_no_number_is_no_array(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^it is of type |inhomogeneous|too large|^must be real number"):
        numbers.from_lists(value)


def test_generations_are_told_apart_as_before() -> None:
    fields = {b"uri": b"a", b"data": encode_inputs({"t": np.array([2**40])})}
    assert decode_request(fields).protocol == ProtocolVersion.ARROW
