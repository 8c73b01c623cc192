"""The weights of a BigDL model as numpy arrays, from the model file or from the separate weights file.

Source of the weights file's format: the reader and writer of BigDL 0.13 (`ModuleLoader`, `DataReaderWriter`):
big-endian; magic number 3721 and the number of storages; for each its id, type, number of elements and elements; last
the length of a digest and the MD5 of everything before it.
"""

import hashlib
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np

from beam_serving.errors import ModelLoadError
from beam_serving.models.formats.bigdl.records import Storage, TensorRef
from beam_serving.models.formats.protowire import map_file

_MAGIC = 3721
_DIGEST_BYTES = 16
_TYPES = {0: ">f4", 1: ">f8", 2: ">u2", 3: ">u1", 5: ">i4", 6: ">i2", 7: ">i8", 9: ">i1"}
_SPAN_OF_RECORD = 12


def read_weights_file(path: Path) -> dict[int, Storage]:
    """Read a file of split weights; return the storages by id, as views of the mapped file.

    Raises ModelLoadError when it is not such a file, is cut off, or its checksum is wrong; and OSError.
    """
    try:
        view = map_file(path).view
        magic, count = struct.unpack_from(">ii", view, 0)
        if magic != _MAGIC:
            raise ModelLoadError(f"{path}: not a BigDL weights file (magic number {magic}, {_MAGIC} is expected)")
        storages, position = _read_storages(view, count)
        (digest_bytes,) = struct.unpack_from(">i", view, position)
        digest = bytes(view[position + 4 :])
    except (struct.error, ValueError) as err:
        raise ModelLoadError(f"{path}: the weights file is damaged or cut off ({err}); copy it again") from err
    computed = hashlib.md5(view[:position], usedforsecurity=False).digest()
    if digest_bytes != _DIGEST_BYTES or digest != computed:
        raise ModelLoadError(f"{path}: the checksum (MD5) of the weights file is wrong; copy it again")
    return storages


def _read_storages(view: memoryview, count: int) -> tuple[dict[int, Storage], int]:
    """Read `count` storages behind the header; return them and the position behind the last."""
    position = 8
    if not 0 <= count <= len(view) // _SPAN_OF_RECORD:
        raise ValueError(f"{count} storages in {len(view)} bytes")
    storages = {}
    for _ in range(count):
        storage_id, data_type, elements = struct.unpack_from(">iii", view, position)
        position += _SPAN_OF_RECORD
        if data_type not in _TYPES:
            raise ValueError(f"storage {storage_id} has the unknown type {data_type}")
        dtype = np.dtype(_TYPES[data_type])
        if elements < 0 or position + elements * dtype.itemsize > len(view):
            raise ValueError(f"storage {storage_id} of {elements} elements ends behind the file")
        storages[storage_id] = Storage(np.frombuffer(view, dtype, elements, position))
        position += elements * dtype.itemsize
    return storages, position


class Weights:
    """The tensors as arrays; `storages` by id, from the model file and the weights file together."""

    def __init__(self, storages: Mapping[int, Storage], has_weights_file: bool) -> None:
        self._storages = storages
        self._has_weights_file = has_weights_file

    def storage(self, ref: TensorRef) -> Storage:
        """Return the storage of a tensor.

        Raises ModelLoadError when it is in neither file.
        """
        storage = ref.storage or self._storages.get(ref.storage_id)
        if storage is None:
            if self._has_weights_file:
                raise ModelLoadError(f"storage {ref.storage_id} is missing: the weights file is of another model")
            raise ModelLoadError("its weights are in a separate file: put the .bin that saveModule wrote beside it")
        return storage

    def array(self, ref: TensorRef) -> np.ndarray:
        """Return a tensor as a float32 array of its shape, contiguous; its size is checked against its storage.

        Raises ModelLoadError for a tensor that does not lie within its storage.
        """
        values = self.storage(ref).values
        shape = () if ref.scalar else ref.sizes
        strides = () if ref.scalar else ref.strides
        elements = prod(shape) if shape or ref.scalar else 0
        if len(strides) != len(shape) or any(size < 0 for size in shape) or any(stride < 0 for stride in strides):
            raise ModelLoadError(f"a tensor has the shape {shape} and the strides {strides}")
        last = ref.offset - 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if elements and not (ref.offset >= 1 and last < len(values) and elements <= len(values)):
            raise ModelLoadError(f"a tensor of shape {shape} does not fit into its {len(values)} stored values")
        if not elements:
            return np.zeros(shape, np.float32) if shape else np.empty(0, np.float32)
        byte_strides = tuple(stride * values.strides[0] for stride in strides)
        window = np.lib.stride_tricks.as_strided(values[ref.offset - 1 :], shape, byte_strides, writeable=False)
        return np.ascontiguousarray(window, np.float32).reshape(shape)
