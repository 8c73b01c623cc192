"""Reads the learned blobs of every layer from a `.caffemodel`: views of the mapped file, nothing is copied.

Source: `caffe.proto`. NetParameter: layers 2 (V1LayerParameter: name 4, blobs 6), layer 100 (LayerParameter: name 1,
blobs 7). BlobProto: num, channels, height, width 1 to 4, data 5, shape 7, double_data 8; NVIDIA's Caffe adds
raw_data_type 10 and raw_data 12.

Weights are not parsed with protobuf, as the text is: of a file of 524 MB it holds 0.99 GB, and 1.5 GB once arrays are
made of its lists, after 15 seconds. Views take a millisecond and no memory of their own (2026-11-30).
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from beam_serving.models.formats.protowire import VARINT, Field, ProtoError, Span, fields, map_file

Blob = npt.NDArray[np.floating]
"""float32, float64 or float16 in the blob's declared shape; a read-only view of the file, maybe unaligned."""

MAX_DIMS = 32
"""Caffe's own limit of a blob's axes."""

_LAYER_FIELDS = {2: (4, 6), 100: (1, 7)}
_RAW_TYPES: dict[int, np.dtype[np.floating]] = {0: np.dtype("<f8"), 1: np.dtype("<f4"), 2: np.dtype("<f2")}
_LEGACY_DIMS = (1, 2, 3, 4)
_DATA, _SHAPE, _DOUBLE_DATA, _RAW_TYPE, _RAW_DATA = 5, 7, 8, 10, 12


def read_weights(path: Path) -> dict[str, tuple[Blob, ...]]:
    """Return the blobs by layer name, layers without any left out; of two layers of one name the last one counts.

    Raises OSError, and ProtoError for a file that is cut off or is no caffemodel.
    """
    weights = {}
    layers = 0
    for field in fields(map_file(path)):
        if field.number not in _LAYER_FIELDS:
            continue
        layers += 1
        name_field, blobs_field = _LAYER_FIELDS[field.number]
        name, blobs = "", []
        for part in fields(field.message()):
            if part.number == name_field:
                name = str(part.contents(), "utf-8", "replace")
            elif part.number == blobs_field:
                blobs.append(_blob(part.message(), part.offset))
        if blobs:
            weights[name] = tuple(blobs)
    if not layers:
        raise ProtoError("no layer in the whole file, so it is no caffemodel; the end is", path.stat().st_size)
    return weights


def _blob(message: Span, offset: int) -> Blob:
    shape: list[int] | None = None
    legacy = dict.fromkeys(_LEGACY_DIMS, 0)
    parts: list[Blob] = []
    raw_type = 1
    raw: Field | None = None
    for field in fields(message):
        if field.number == _SHAPE:
            shape = list(_shape(field.message()))
        elif field.number in _LEGACY_DIMS and field.wire_type == VARINT:
            legacy[field.number] = field.integer()
        elif field.number == _DATA:
            parts.append(field.floats())
        elif field.number == _DOUBLE_DATA:
            parts.append(field.doubles())
        elif field.number == _RAW_TYPE:
            raw_type = field.integer()
        elif field.number == _RAW_DATA:
            raw = field
    if raw is not None:
        parts.append(_raw(raw, raw_type))
    if shape is None:
        shape = [legacy[number] for number in _LEGACY_DIMS]
    return _shaped(parts, shape, offset)


def _shape(message: Span) -> Iterator[int]:
    for field in fields(message):
        if field.number == 1:
            yield from field.integers(limit=MAX_DIMS).tolist()


def _raw(field: Field, raw_type: int) -> Blob:
    contents = field.contents()
    dtype = _RAW_TYPES.get(raw_type)
    if dtype is None or len(contents) % dtype.itemsize:
        raise ProtoError(f"raw_data of type {raw_type} in {len(contents)} bytes", field.offset)
    return np.frombuffer(contents, dtype)


def _shaped(parts: list[Blob], shape: list[int], offset: int) -> Blob:
    """Return the blob's values in its shape; only a blob that is stored in several pieces has to be copied."""
    elements = sum(part.size for part in parts)
    if len(shape) > MAX_DIMS or any(dim < 0 for dim in shape) or math.prod(shape) != elements:
        raise ProtoError(f"a blob of shape {shape[:MAX_DIMS]} holds {elements} values", offset)
    if not parts:
        return np.empty(shape, np.float32)
    return (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(shape)
