"""What our client writes in the format of Cluster Serving 0.9 and later is read as it was meant."""

import base64

import hypothesis.extra.numpy as arrays
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.protocol import decode_request
from beam_serving.protocol.arrow_request import Sparse, encode_inputs
from beam_serving.records import Image
from tests.old_clients import KIND, arrow_data, sparse_column, tensor_column

FLOATS = arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, max_dims=4, max_side=4))


@given(FLOATS)
def test_a_tensor_comes_back(sent: np.ndarray) -> None:
    inputs = decode_request({b"uri": b"a", b"data": encode_inputs({"t": sent})}).inputs
    np.testing.assert_array_equal(inputs["t"], sent)


@given(
    some.lists(some.text(some.characters(exclude_characters="|", exclude_categories=["Cs"]), min_size=1), min_size=2)
)
def test_texts_come_back(sent: list[str]) -> None:
    inputs = decode_request({b"uri": b"a", b"data": encode_inputs({"s": sent})}).inputs
    assert inputs["s"].tolist() == sent


def test_images_and_sparse_tensors_come_back_in_their_order() -> None:
    sparse = Sparse(np.array([[0, 1], [2, 0]]), np.array([5, 6]), np.array([2, 3]))
    inputs = decode_request({b"uri": b"a", b"data": encode_inputs({"z": Image(b"\xff\xd8jpeg"), "a": sparse})}).inputs
    assert list(inputs) == ["z", "a"]
    assert inputs["z"] == Image(b"\xff\xd8jpeg")
    assert inputs["a"].tolist() == [[0, 0, 5], [6, 0, 0]]


def test_it_is_the_schema_and_the_lists_of_the_python_client() -> None:
    value = np.arange(6).reshape(2, 3)
    indices, values, shape = np.array([[0, 1], [2, 0]]), np.array([5.0, 6.0]), np.array([2, 3])
    ours = _batch(encode_inputs({"t": value, "s": Sparse(indices, values, shape)}))
    theirs = _batch(arrow_data(t=tensor_column(value), s=sparse_column(indices, values, shape)))
    assert ours.schema == theirs.schema == pa.schema([("t", KIND), ("s", KIND)])
    for name in ("t", "s"):
        for child in KIND:
            assert ours[name].field(child.name).values == theirs[name].field(child.name).values


def _batch(text: bytes | str) -> pa.RecordBatch:
    (batch,) = list(pa.ipc.open_stream(base64.b64decode(text)))
    return batch


@pytest.mark.parametrize("texts", [[], ["a|b"]])
def test_texts_that_the_format_cannot_carry_are_refused(texts: list[str]) -> None:
    with pytest.raises(
        ValueError, match=r"^input 's' has no text, or one with a '\|', which this format cannot carry$"
    ):
        encode_inputs({"s": texts})
