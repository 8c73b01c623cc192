"""The wire format of Cluster Serving 0.9 and later: base64 of an Arrow stream, both ways.

    request   uri, data = base64 of a stream with one record batch: one column per input, in the model's order
                a tensor is struct<indiceData, indiceShape, data, shape>, each a list; fields in any order
                an image is a utf8 value, base64 of the file; a list of strings is one utf8 value joined with |
                data is float32; our own client sends int64, uint64 or float64 where float32 would change a whole number
    result    value = base64 of a stream with the columns data: float32, shape: int32, one record batch per output
                data is int64, uint64 or float64 where float32 would change a whole number: the Python clients read any

The Python client fills one list in each of four rows, the JVM front end fills one row whose child lists are longer
than the row count says: so lists are read by all their values, not by rows. Nothing is read before Arrow has
validated it in full: a column with wrong offsets would crash the process.
"""

import base64
import json
import math
import struct
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from beam_serving.errors import ModelError, RequestError
from beam_serving.protocol import instances
from beam_serving.protocol.arrow_framing import encode_stream
from beam_serving.protocol.arrow_schema import check_batch, check_schema
from beam_serving.protocol.codec import Codec
from beam_serving.protocol.image import decode_base64
from beam_serving.protocol.limits import Limits, check_parsed, input_name, quote, subject
from beam_serving.protocol.numbers import holds
from beam_serving.protocol.text import is_text
from beam_serving.records import Answer, Image, ProtocolVersion, TopClasses

_TENSOR_LISTS = {
    "indiceData": (pa.int32(),),
    "indiceShape": (pa.int32(),),
    "data": (pa.float32(), pa.float64(), pa.int64(), pa.uint64()),
    "shape": (pa.int32(),),
}

_TEXT_BYTES = 96
"""What a short `str` takes, with its places in a list and an array."""
_FLOAT32 = np.dtype("<f4")
_WIDER = (np.dtype("<i8"), np.dtype("<u8"), np.dtype("<f8"))


def decode_inputs(fields: Mapping[bytes, bytes], limits: Limits) -> dict[str, Image | np.ndarray]:
    """Return the inputs of a request, which `serde` says how to read.

    Raises:
        RequestError: they are not readable, or there is another `serde`.
    """
    serde = fields.get(b"serde", b"arrow")
    if serde == b"stream":
        return instances.decode_inputs(fields[b"data"], limits)
    if serde != b"arrow":
        raise RequestError(f"serde is {quote(serde)}, wanted is 'arrow' or 'stream'")
    return _decode_arrow(fields, limits)


def _decode_arrow(fields: Mapping[bytes, bytes], limits: Limits) -> dict[str, Image | np.ndarray]:
    """Return the inputs of a request by column name, in the order of the columns.

    A utf8 value that is valid base64 is an image; any other is an array of the strings between its `|`. The wire
    does not tell them apart otherwise.

    Raises:
        RequestError: not base64, not an Arrow stream of one record batch, or a column that is none of the above.
    """
    text = fields[b"data"]
    if not text:
        raise RequestError("field 'data' is empty")
    try:
        batch = _read_batch(decode_base64(text, "field 'data'"), limits)
        inputs: dict[str, Image | np.ndarray] = {}
        dense = 0
        for field, column in zip(batch.schema, batch.columns, strict=True):
            name = input_name(field.name.encode(), limits)
            if name in inputs:
                raise RequestError(f"{subject(name)}two columns of this name")
            inputs[name] = decoded = _decode_column(name, column, limits, dense)
            dense += 0 if isinstance(decoded, Image) or is_text(decoded) else decoded.nbytes
    except (pa.ArrowException, OSError, ValueError, struct.error) as err:
        raise RequestError(f"field 'data' is no valid Arrow stream: {str(err)[:200]}") from err
    return inputs


def _read_batch(stream: bytes, limits: Limits) -> pa.RecordBatch:
    if stream.startswith(b"ARROW1"):
        raise RequestError("it is an Arrow file, wanted is an Arrow stream (enqueue instead of enqueue_tensor)")
    messages = iter(pa.ipc.MessageReader.open_stream(pa.py_buffer(stream)))
    schema_message, batch_message = next(messages, None), next(messages, None)
    if schema_message is None or schema_message.type != "schema":
        raise RequestError("Arrow stream has no schema")
    if batch_message is None or batch_message.type != "record batch":
        raise RequestError("Arrow stream has no record batch after its schema")
    if next(messages, None) is not None:
        raise RequestError("Arrow stream has more than one record batch, wanted is one")
    check_schema(schema_message.metadata.to_pybytes(), limits)
    schema = pa.ipc.read_schema(schema_message)
    body = batch_message.body
    check_batch(batch_message.metadata.to_pybytes(), 0 if body is None else body.size, len(schema))
    for field in schema:
        _check_type(field)
    batch = pa.ipc.read_record_batch(batch_message, schema)
    if not 0 < batch.num_rows <= limits.max_arrow_rows:
        raise RequestError(f"Arrow record batch has {batch.num_rows} rows, wanted are 1 to {limits.max_arrow_rows}")
    batch.validate(full=True)
    return batch


def _check_type(field: pa.Field) -> None:
    kind = field.type
    if pa.types.is_string(kind):
        return
    if pa.types.is_struct(kind) and {child.name for child in kind} == set(_TENSOR_LISTS) and len(kind) == 4:
        for child in kind:
            if not pa.types.is_list(child.type) or child.type.value_type not in _TENSOR_LISTS[child.name]:
                wanted = f"list<{_TENSOR_LISTS[child.name][0]}>"
                raise RequestError(f"{subject(field.name)}{child.name} is {str(child.type)[:80]}, wanted is {wanted}")
        return
    wanted = f"string or struct<{', '.join(_TENSOR_LISTS)}>"
    raise RequestError(f"{subject(field.name)}column is {str(kind)[:120]}, wanted is {wanted}")


def _decode_column(name: str, column: pa.Array, limits: Limits, before: int) -> Image | np.ndarray:
    """Return the value of a column; those `before` it are so many bytes of tensors."""
    if pa.types.is_string(column.type):
        return _decode_text(name, column, limits)
    values = {child: _list_values(name, child, column) for child in _TENSOR_LISTS}
    shape = tuple(values["shape"].tolist())
    if any(dim < 1 for dim in shape) or len(shape) > limits.max_rank:
        raise RequestError(
            f"{subject(name)}shape is {quote(str(shape))}, wanted are at most {limits.max_rank} numbers above 0"
        )
    if values["indiceShape"].size or values["indiceData"].size:
        return _densify(name, values, shape, limits, before)
    flat = values["data"]
    if math.prod(shape) != flat.size:
        raise RequestError(f"{subject(name)}payload is {flat.size} values, shape {shape} needs {math.prod(shape)}")
    return flat.reshape(shape)


def _decode_text(name: str, column: pa.Array, limits: Limits) -> Image | np.ndarray:
    if len(column) != 1 or column.null_count:
        raise RequestError(f"{subject(name)}{len(column)} text values, {column.null_count} of them null, wanted is one")
    raw = memoryview(column[0].as_buffer())
    if not raw:
        raise RequestError(f"{subject(name)}text is empty")
    try:
        return Image(decode_base64(raw, "text"))
    except RequestError:
        text = str(raw, "utf-8")
    texts = text.count("|") + 1
    check_parsed(_TEXT_BYTES * texts + 8 * len(text), limits, f"{subject(name)}{texts} texts")
    return np.array(text.split("|"), dtype=object)


def _list_values(name: str, child: str, column: pa.StructArray) -> np.ndarray:
    values = column.field(child).values
    if values.null_count:
        raise RequestError(f"{subject(name)}{child} has {values.null_count} nulls, wanted are none")
    array: np.ndarray = values.to_numpy()
    return array


def _densify(
    name: str, values: Mapping[str, np.ndarray], shape: tuple[int, ...], limits: Limits, before: int
) -> np.ndarray:
    """Return the dense array of a sparse one. Where its indices are square, a row of them is a dimension."""
    size_bytes = math.prod(shape) * values["data"].itemsize
    if size_bytes <= limits.max_payload_bytes < before + size_bytes:
        before_too = f"dense form is {size_bytes} bytes after {before} of other inputs"
        raise RequestError(f"{subject(name)}{before_too}, at most {limits.max_payload_bytes} in all")
    if size_bytes > limits.max_payload_bytes:
        raise RequestError(f"{subject(name)}dense form is {size_bytes} bytes, at most {limits.max_payload_bytes}")
    filled, layout = values["data"], tuple(values["indiceShape"].tolist())
    by_dimension, by_value = (len(shape), filled.size), (filled.size, len(shape))
    if layout not in (by_dimension, by_value) or values["indiceData"].size != filled.size * len(shape):
        raise RequestError(
            f"{subject(name)}indices are {values['indiceData'].size} numbers of shape {quote(str(layout))}, "
            f"wanted is {by_dimension} or {by_value}"
        )
    indices = values["indiceData"].reshape(layout)
    indices = indices if layout == by_dimension else indices.T
    if ((indices < 0) | (indices >= np.array(shape, np.int64).reshape(-1, 1))).any():
        raise RequestError(f"{subject(name)}an index is outside the shape {shape}")
    dense = np.zeros(shape, filled.dtype)
    dense[tuple(indices)] = filled
    return dense


def encode_answer(answer: Answer) -> dict[bytes, bytes]:
    """Return the hash field of an answer. Best classes become rows (class index, score).

    Values are float32 as in Cluster Serving, unless that would change a whole number or make one infinite: then they
    are those of the first type of `_WIDER` that holds all outputs.

    The old clients cannot read an output of no values: it is sent, without its shape. Where a shape has more
    dimensions than there are values, `shapes` has those of all outputs as they were; the old clients ignore it.

    Raises:
        ModelError: an output is text, or has whole numbers that no type holds beside the other outputs.
    """
    tensors = _as_tensors(answer)
    fields = {b"value": base64.b64encode(encode_stream(tensors))}
    if any(tensor.ndim > tensor.size for tensor in tensors):
        fields[b"shapes"] = json.dumps([tensor.shape for tensor in tensors], separators=(",", ":")).encode()
    return fields


def _as_tensors(answer: Answer) -> list[np.ndarray]:
    """Return the outputs in one type: the columns of a stream have the same in all its batches."""
    tensors = {
        name: _rows_of(output) if isinstance(output, TopClasses) else output for name, output in answer.outputs.items()
    }
    for name, tensor in tensors.items():
        if is_text(tensor):
            raise ModelError(
                f"output {name!r} is text, which the results of Cluster Serving 0.9 and later do not carry; "
                "name the others in model: outputs, or use the client of beam_serving"
            )
    for dtype in (_FLOAT32, *_WIDER):
        if all(holds(dtype, tensor) for tensor in tensors.values()):
            return [tensor.astype(dtype, copy=False) for tensor in tensors.values()]
    unfit = next(name for name, tensor in tensors.items() if not holds(_FLOAT32, tensor))
    raise ModelError(
        f"output {unfit!r} has whole numbers that the results of Cluster Serving 0.9 and later do not hold beside the "
        "other outputs; name it alone in model: outputs, or use the client of beam_serving"
    )


def _rows_of(top: TopClasses) -> np.ndarray:
    scores = top.scores
    narrow = scores.dtype == np.float32 or scores.dtype.itemsize <= 2
    rows = np.empty((len(top.classes), 2), "<f4" if narrow else "<f8" if scores.dtype.kind == "f" else scores.dtype)
    rows[:, 0] = top.classes
    rows[:, 1] = scores
    return rows


def decode_answer(text: bytes) -> list[np.ndarray]:
    """Return the arrays of a result's `value`, one per output.

    Raises:
        ValueError: the text is not base64 of such a stream.
    """
    try:
        with pa.ipc.open_stream(base64.b64decode(text, validate=True)) as batches:
            return [_decode_output(batch) for batch in batches]
    except (pa.ArrowException, OSError, KeyError) as err:
        raise ValueError(f"no valid Arrow stream: {str(err)[:200]}") from err


def _decode_output(batch: pa.RecordBatch) -> np.ndarray:
    batch.validate(full=True)
    values: np.ndarray = batch.column("data").to_numpy()
    shape = batch.column("shape").drop_null().to_pylist()
    return values.reshape(shape) if values.size else values


def encode_failure(_: str) -> dict[bytes, bytes]:
    """Return what tells these clients of a failure: they read `value` only, and know no reason."""
    return {b"value": b"NaN"}


CODEC = Codec(ProtocolVersion.ARROW, lambda names: b"data" in names, decode_inputs, encode_answer, encode_failure)
