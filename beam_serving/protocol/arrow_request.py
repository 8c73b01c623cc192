"""How a client writes `data` of Cluster Serving 0.9 and later: base64 of an Arrow stream, one column per input.

Tensors have the layout of the Python client, of four rows each fills one list. Beside an image or texts, which are one
row, they have that of the JVM front end, one row that fills all four: the Python client refuses such requests.
`beam_serving.protocol.arrow` describes and reads both.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from beam_serving.protocol.numbers import holds
from beam_serving.records import Image

_LISTS = ("indiceData", "indiceShape", "data", "shape")
_TYPES = (np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.uint64), np.dtype(np.float64))
"""Of `data`: the first that holds all its values. Cluster Serving itself has float32 only."""
_NOTHING = np.zeros(0)


class Sparse(NamedTuple):
    """A sparse tensor: `indices` of shape (dimensions, values) or (values, dimensions), `values`, and the shape."""

    indices: np.ndarray
    values: np.ndarray
    shape: np.ndarray


Column = np.ndarray | Sparse | Image | Sequence[str]
"""One input: a tensor, a sparse one, an image file, or texts. See `encode_inputs` for the types of tensors."""


def encode_inputs(inputs: Mapping[str, Column]) -> bytes:
    """Return the value of the field `data`.

    Tensors are sent as float32, which is what Cluster Serving has; where that would change a whole number, or make a
    number infinite, as int64, uint64 or float64, which a service of this project reads.

    Raises:
        ValueError: a text has a `|`, which ends a text on the wire, or there are none.
    """
    one_row = not all(isinstance(value, np.ndarray | Sparse) for value in inputs.values())
    columns = [_column(name, value, one_row) for name, value in inputs.items()]
    batch = pa.RecordBatch.from_arrays(columns, names=list(inputs))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return base64.b64encode(sink.getvalue())


def _column(name: str, value: Column, one_row: bool) -> pa.Array:
    if isinstance(value, Image):
        return pa.array([base64.b64encode(value.encoded).decode()])
    if isinstance(value, Sparse):
        indices = value.indices
        return _lists((indices.ravel(), np.array(indices.shape), value.values.ravel(), value.shape.ravel()), one_row)
    if isinstance(value, np.ndarray):
        return _lists((_NOTHING, _NOTHING, value.ravel(), np.array(value.shape)), one_row)
    if not value or any("|" in text for text in value):
        raise ValueError(f"input {name!r} has no text, or one with a '|', which this format cannot carry")
    return pa.array(["|".join(value)])


def _lists(values: Sequence[np.ndarray], one_row: bool) -> pa.StructArray:
    children = []
    for row, (name, numbers) in enumerate(zip(_LISTS, values, strict=True)):
        dtype = next(dtype for dtype in _TYPES if holds(dtype, numbers)) if name == "data" else np.dtype(np.int32)
        offsets = [0, numbers.size] if one_row else [0] * (row + 1) + [numbers.size] * (len(_LISTS) - row)
        children.append(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(numbers.astype(dtype))))
    return pa.StructArray.from_arrays(children, names=list(_LISTS))
