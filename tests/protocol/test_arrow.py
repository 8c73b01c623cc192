"""The format of Cluster Serving 0.9 and later, with bytes laid out as its Python and its JVM clients do."""

import base64
import contextlib
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from beam_serving.errors import RequestError
from beam_serving.protocol import Limits, arrow, decode_request, encode_result
from beam_serving.protocol.replies import decode_reply
from beam_serving.records import Answer, Failure, Image, Origin, ProtocolVersion, Result, TopClasses

ORIGIN = Origin(b"serving_stream", b"1-1", b"a", ProtocolVersion.ARROW)
PYTHON_ORDER = ("indiceData", "indiceShape", "data", "shape")
JVM_ORDER = ("shape", "data", "indiceShape", "indiceData")
WANTED = "wanted is string or struct<indiceData, indiceShape, data, shape>"
FLOATS = arrays.arrays(np.float32, arrays.array_shapes(max_dims=4, max_side=4), elements=some.floats(width=32))


def tensor_type(order: tuple[str, ...] = PYTHON_ORDER) -> pa.DataType:
    return pa.struct([(name, pa.list_(pa.float32() if name == "data" else pa.int32())) for name in order])


def python_tensor(data: Any, shape: Any, indices: Any = (), indices_shape: Any = ()) -> pa.Array:
    """Lays a tensor out as the Python client does: four rows, one list filled in each."""
    values = {"indiceData": indices, "indiceShape": indices_shape, "data": data, "shape": shape}
    rows = [{name: list(values[name]) if name == filled else [] for name in PYTHON_ORDER} for filled in PYTHON_ORDER]
    return pa.array(rows, tensor_type())


def jvm_tensor(data: Any, shape: Any) -> pa.Array:
    """Lays a tensor out as the JVM front end does: one row, the fields in another order."""
    row = {"shape": list(shape), "data": list(data), "indiceShape": [], "indiceData": []}
    return pa.array([row], tensor_type(JVM_ORDER))


def with_offsets(stream: bytes, old: tuple[int, int], new: tuple[int, int]) -> bytes:
    """Changes the last two offsets of these values in a stream: its body comes after what describes it."""
    head, found, tail = stream.rpartition(np.array(old, "<i4").tobytes())
    assert found
    return head + np.array(new, "<i4").tobytes() + tail


def stream_of(batch: pa.RecordBatch, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def request(**columns: pa.Array) -> dict[bytes, bytes]:
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return {b"uri": b"a", b"data": base64.b64encode(stream_of(batch))}


def refusal(fields: dict[bytes, bytes], limits: Limits | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        decode_request(fields, limits or Limits())
    return str(caught.value)


@given(FLOATS)
@settings(deadline=None)
def test_a_tensor_of_the_python_client_is_read(sent: np.ndarray) -> None:
    payload = decode_request(request(t=python_tensor(sent.reshape(-1), sent.shape)))
    assert payload.protocol == ProtocolVersion.ARROW
    np.testing.assert_array_equal(payload.inputs["t"], sent)


@given(FLOATS)
@settings(deadline=None)
def test_a_tensor_of_the_jvm_front_end_is_read(sent: np.ndarray) -> None:
    payload = decode_request(request(t=jvm_tensor(sent.reshape(-1), sent.shape)))
    np.testing.assert_array_equal(payload.inputs["t"], sent)


def test_a_list_is_read_by_its_values_where_its_rows_are_shorter() -> None:
    stream = stream_of(pa.RecordBatch.from_arrays([jvm_tensor([1, 2, 3, 4, 5, 6, 7], [7])], names=["t"]))
    crafted = with_offsets(stream, (0, 7), (0, 1))
    payload = decode_request({b"uri": b"a", b"data": base64.b64encode(crafted)})
    assert payload.inputs["t"].tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_columns_keep_their_order() -> None:
    fields = request(z=python_tensor([1], [1]), a=python_tensor([2, 3], [2]))
    assert {name: value.tolist() for name, value in decode_request(fields).inputs.items()} == {"z": [1], "a": [2, 3]}
    assert list(decode_request(fields).inputs) == ["z", "a"]


def test_both_framings_of_a_stream_are_read() -> None:
    batch = pa.RecordBatch.from_arrays([python_tensor([1, 2], [2])], names=["t"])
    for legacy in (False, True):
        fields = {b"uri": b"a", b"data": base64.b64encode(stream_of(batch, use_legacy_format=legacy))}
        assert decode_request(fields).inputs["t"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("indices", "layout"), [([0, 1, 1, 0, 2, 1], [2, 3]), ([0, 0, 1, 2, 1, 1], [3, 2])], ids=["by-axis", "by-value"]
)
def test_a_sparse_tensor_becomes_dense(indices: list[int], layout: list[int]) -> None:
    fields = request(t=python_tensor([5, 6, 7], [2, 3], indices, layout))
    assert decode_request(fields).inputs["t"].tolist() == [[5, 0, 0], [0, 7, 6]]


@pytest.mark.parametrize(
    ("indices", "layout", "message"),
    [
        ([0, 2, 1, 0], [2, 2], "an index is outside the shape (2, 3)"),
        ([0, -1, 1, 0], [2, 2], "an index is outside the shape (2, 3)"),
        ([0, 1, 1], [2, 2], "indices are 3 numbers of shape '(2, 2)', wanted is (2, 2) or (2, 2)"),
        ([0, 1, 1], [3, 1], "indices are 3 numbers of shape '(3, 1)', wanted is (2, 2) or (2, 2)"),
    ],
)
def test_sparse_indices_are_checked(indices: list[int], layout: list[int], message: str) -> None:
    assert refusal(request(t=python_tensor([5, 6], [2, 3], indices, layout))) == f"request 'a': input 't': {message}"


def test_a_sparse_tensor_cannot_grow_beyond_the_limit() -> None:
    fields = request(t=python_tensor([5], [30_000, 30_000], [1, 1], [2, 1]))
    assert refusal(fields) == "request 'a': input 't': dense form is 3600000000 bytes, at most 134217728"


def test_text_is_an_image_where_it_is_base64_and_else_strings() -> None:
    encoded = base64.b64encode(b"\xff\xd8jpeg").decode()
    inputs = decode_request(request(i=pa.array([encoded]), s=pa.array(["one|two"]))).inputs
    assert inputs["i"] == Image(b"\xff\xd8jpeg")
    assert inputs["s"].tolist() == ["one", "two"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"t": python_tensor([1, 2, 3], [2])}, "input 't': payload is 3 values, shape (2,) needs 2"),
        ({"t": python_tensor([], [0])}, "input 't': shape is '(0,)', wanted are at most 32 numbers above 0"),
        ({"t": python_tensor([1], [-1])}, "input 't': shape is '(-1,)', wanted are at most 32 numbers above 0"),
        ({"t": python_tensor([None], [1])}, "input 't': data has 1 nulls, wanted are none"),
        ({"t": pa.array([1])}, "input 't': column is int64, " + WANTED),
        ({"t": pa.array(["a", "b"])}, "input 't': 2 text values, 0 of them null, wanted is one"),
        ({"t": pa.array([""])}, "input 't': text is empty"),
        ({}, "Arrow schema has 0 columns, wanted are 1 to 256"),
        ({"t": pa.Array.from_buffers(pa.null(), (1 << 31) - 1, [None])}, "input 't': column is null, " + WANTED),
        ({"t": pa.array(["a"] * 17)}, "Arrow record batch has 17 rows, wanted are 1 to 16"),
    ],
)  # fmt: skip
def test_a_column_that_is_no_input_is_refused(columns: dict[str, pa.Array], message: str) -> None:
    assert refusal(request(**columns)) == f"request 'a': {message}"


def test_lists_of_another_type_are_refused() -> None:
    kind = pa.struct([(name, pa.list_(pa.float64())) for name in PYTHON_ORDER])
    column = pa.array([{name: [1.0] for name in PYTHON_ORDER}], kind)
    assert refusal(request(t=column)).startswith("request 'a': input 't': indiceData is list<item: double>, wanted is")


def test_a_compressed_batch_is_refused_before_it_is_unpacked() -> None:
    batch = pa.RecordBatch.from_arrays([python_tensor(np.zeros(100_000), [100_000])], names=["t"])
    for codec in ("lz4", "zstd"):
        fields = {b"uri": b"a", b"data": base64.b64encode(stream_of(batch, compression=codec))}
        assert refusal(fields) == "request 'a': Arrow record batch is compressed, wanted is an uncompressed one"


def test_a_second_batch_is_refused() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(["x|y"])], names=["t"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
        writer.write_batch(batch)
    fields = {b"uri": b"a", b"data": base64.b64encode(sink.getvalue())}
    assert refusal(fields) == "request 'a': Arrow stream has more than one record batch, wanted is one"


def test_the_file_that_the_deprecated_enqueue_tensor_sends_is_named() -> None:
    fields = {b"uri": b"a", b"data": base64.b64encode(b"ARROW1\0\0")}
    said = "request 'a': it is an Arrow file, wanted is an Arrow stream (enqueue instead of enqueue_tensor)"
    assert refusal(fields) == said


def test_text_whose_offsets_lie_outside_its_bytes_is_refused() -> None:
    stream = stream_of(pa.RecordBatch.from_arrays([pa.array(["abc"])], names=["t"]))
    crafted = with_offsets(stream, (0, 3), (0, 1 << 30))
    message = refusal({b"uri": b"a", b"data": base64.b64encode(crafted)})
    assert message.startswith("request 'a': field 'data' is no valid Arrow stream: ")


@given(some.binary(max_size=300))
def test_garbage_raises_nothing_but_request_error(stream: bytes) -> None:
    for text in (stream, base64.b64encode(stream)):
        with pytest.raises(RequestError):
            decode_request({b"uri": b"a", b"data": text})


@given(some.data())
@settings(deadline=None, max_examples=300)
def test_a_good_stream_with_wrong_bytes_raises_nothing_but_request_error(data: Any) -> None:
    batch = pa.RecordBatch.from_arrays([python_tensor([1, 2, 3], [3]), pa.array(["x|y"] * 4)], names=["t", "s"])
    stream = bytearray(stream_of(batch))
    for _ in range(data.draw(some.integers(1, 4))):
        stream[data.draw(some.integers(0, len(stream) - 1))] = data.draw(some.integers(0, 255))
    with contextlib.suppress(RequestError):
        decode_request({b"uri": b"a", b"data": base64.b64encode(stream)})


@given(arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, max_dims=4, max_side=5)))
@settings(deadline=None)
def test_an_output_is_read_back_by_pyarrow(output: np.ndarray) -> None:
    value = encode_result(Result(ORIGIN, Answer({"p": output})))[b"value"]
    (batch,) = list(pa.ipc.open_stream(base64.b64decode(value)))
    batch.validate(full=True)
    assert batch.schema.names == ["data", "shape"]
    dims = [dim for dim in batch.column(1).to_pylist() if dim]
    np.testing.assert_array_equal(batch.column(0).to_numpy(), output.reshape(-1))
    assert dims == list(output.shape) or len(output.shape) > output.size
    np.testing.assert_array_equal(decode_reply({b"value": value}), output.reshape(dims))


def test_unit_dimensions_are_dropped_where_there_are_more_than_values() -> None:
    for shape, kept in (((1, 1, 2), (2,)), ((1, 1), (1,)), ((1, 2), (1, 2)), ((1,), (1,))):
        (read,) = arrow.decode_answer(arrow.encode_answer(Answer({"p": np.ones(shape)}))[b"value"])
        assert read.shape == kept


def test_best_classes_are_rows_of_index_and_score() -> None:
    top = TopClasses(np.array([7, 2]), np.array([0.75, 0.125], np.float32))
    (read,) = arrow.decode_answer(arrow.encode_answer(Answer({"p": top}))[b"value"])
    assert read.tolist() == [[7, 0.75], [2, 0.125]]


def test_several_outputs_are_several_batches() -> None:
    value = arrow.encode_answer(Answer({"p": np.ones((2, 3)), "q": np.zeros(4)}))[b"value"]
    reply = decode_reply({b"value": value})
    assert isinstance(reply, list)
    assert [output.shape for output in reply] == [(2, 3), (4,)]


def test_a_failure_is_nan_beside_its_reason() -> None:
    assert encode_result(Result(ORIGIN, Failure("too large"))) == {b"value": b"NaN", b"error": b"too large"}
