"""Decodes a BigDL `.model` file (a protobuf `BigDLModule`) into records.

Source: the message descriptors that BigDL 0.13 carries (`bigdl.proto`) and its serializer's conventions: tensors hold
only the id of their storage, and the data stands once, in the root's attribute `global_storage`. Files of 0.5 and
older have `weight` and `bias` with the data inside.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from beam_serving.models.formats.bigdl.records import Attribute, ModelFile, Module, ShapeValue, Storage, TensorRef
from beam_serving.models.formats.protowire import Field, ProtoError, Span, fields

MAX_FIELDS = 1_000_000
MAX_RECORDS = 100_000
"""Fields, and modules, attributes and tensors, of a whole file: more than ten times those of the largest networks.

A record costs far more memory than the two bytes that stand for it in a hostile file.
"""

MAX_STORED_INTEGERS = 1 << 22

_EMPTY = np.empty(0, np.float32)
_ARRAY_READERS = dict.fromkeys((3, 4, 8, 11, 15), "integers") | {5: "floats", 6: "doubles"}
_BOOL_TYPE = 5


def decode_model(file: Span) -> ModelFile:
    """Decode a whole file.

    Raises ProtoError when the bytes are damaged or are not a BigDL module.
    """
    decoder = _Decoder()
    root = decoder.module(file)
    if not root.class_name:
        raise ProtoError("no moduleType: this is not a BigDL module", file.offset)
    return ModelFile(root, decoder.storages)


class _Decoder:
    """One pass over a file; keeps the storages met and counts the fields."""

    def __init__(self) -> None:
        self.storages: dict[int, Storage] = {}
        self._count = 0
        self._records = 0

    def _record(self, message: Span) -> None:
        self._records += 1
        if self._records > MAX_RECORDS:
            raise ProtoError(f"more than {MAX_RECORDS} modules, attributes and tensors", message.offset)

    def _fields(self, message: Span) -> Iterator[Field]:
        for item in fields(message):
            self._count += 1
            if self._count > MAX_FIELDS:
                raise ProtoError(f"more than {MAX_FIELDS} fields", item.offset)
            yield item

    def module(self, message: Span) -> Module:
        self._record(message)
        texts: dict[int, str] = {1: "", 7: "", 11: ""}
        submodules: list[Module] = []
        predecessors: list[str] = []
        attributes: dict[str, Attribute] = {}
        parameters: list[TensorRef] = []
        legacy: dict[int, TensorRef] = {}
        shape: ShapeValue | None = None
        for item in self._fields(message):
            if item.number in texts:
                texts[item.number] = item.text()
            elif item.number == 2:
                submodules.append(self.module(item.message()))
            elif item.number in (3, 4):
                legacy[item.number] = self.tensor(item.message())
            elif item.number == 5:
                predecessors.append(item.text())
            elif item.number == 8:
                attributes.update([self._entry(item.message())])
            elif item.number == 13:
                shape = self.shape(item.message())
            elif item.number == 16:
                parameters.append(self.tensor(item.message()))
        # Without a name of its own a layer is called by its class and a postfix, also in the edges of a graph.
        name = texts[1] or texts[7].rpartition(".")[2] + texts[11]
        if not parameters:
            parameters = [legacy[number] for number in sorted(legacy)]
        return Module(
            texts[7], name, tuple(submodules), tuple(predecessors), attributes, tuple(parameters), legacy.get(4), shape
        )

    def _entry(self, message: Span) -> tuple[str, Attribute]:
        self._record(message)
        key, value = "", None
        for item in self._fields(message):
            if item.number == 1:
                key = item.text()
            elif item.number == 2:
                value = self._attribute(item.message())
        return key, value

    def _attribute(self, message: Span) -> Attribute:
        """Return the value of an attribute; proto3 leaves out zeros, so an absent value is the zero of its type."""
        zeros: dict[int, Attribute] = {0: 0, 1: 0, 2: 0.0, 3: 0.0, 4: "", _BOOL_TYPE: False, 11: 0, 16: 0}
        data_type = 0
        value: Attribute = None
        for item in self._fields(message):
            if item.number == 1:
                data_type = item.integer()
            else:
                value = self._value(item, value)
        return zeros.get(data_type) if value is None else value

    def _value(self, item: Field, previous: Attribute) -> Attribute:
        readers: dict[int, Callable[[], Attribute]] = {
            3: item.integer,
            4: item.integer,
            5: item.float32,
            6: item.float64,
            7: item.text,
            8: item.boolean,
            11: item.integer,
            16: item.integer,
            10: lambda: self.tensor(item.message()),
            13: lambda: self.module(item.message()),
            14: lambda: self._named_attributes(item.message()),
            15: lambda: self._array(item.message()),
            18: lambda: self.shape(item.message()),
        }
        return readers[item.number]() if item.number in readers else previous

    def _named_attributes(self, message: Span) -> dict[str, Attribute]:
        return dict(self._entry(item.message()) for item in self._fields(message) if item.number == 2)

    def _array(self, message: Span) -> tuple[Any, ...] | None:
        """Return an array attribute; a size of -1 stands for null."""
        values: list[Any] = []
        size = 0
        data_type = 0
        for item in self._fields(message):
            if item.number == 1:
                size = item.integer()
            elif item.number == 2:
                data_type = item.integer()
            elif item.number in _ARRAY_READERS:
                values.extend(getattr(item, _ARRAY_READERS[item.number])().tolist())
            elif item.number == 7:
                values.append(item.text())
            elif item.number == 10:
                values.append(self.tensor(item.message()))
            elif item.number == 13:
                values.append(self.module(item.message()))
            elif item.number == 14:
                values.append(self._named_attributes(item.message()))
            elif item.number == 17:
                values.append(self.shape(item.message()))
        if data_type == _BOOL_TYPE:
            values = [bool(value) for value in values]
        return None if size == -1 else tuple(values)

    def shape(self, message: Span) -> ShapeValue:
        single: list[int] = []
        multiple: list[ShapeValue] = []
        for item in self._fields(message):
            if item.number == 3:
                single.extend(item.integers().tolist())
            elif item.number == 4:
                multiple.append(self.shape(item.message()))
        return tuple(multiple) or tuple(single)

    def tensor(self, message: Span) -> TensorRef:
        self._record(message)
        sizes: list[int] = []
        strides: list[int] = []
        offset, scalar, quantised = 0, False, False
        storage_id, storage = -1, None
        for item in self._fields(message):
            if item.number == 2:
                sizes.extend(item.integers().tolist())
            elif item.number == 3:
                strides.extend(item.integers().tolist())
            elif item.number == 4:
                offset = item.integer()
            elif item.number == 7:
                scalar = item.boolean()
            elif item.number == 8:
                storage_id, storage = self._storage(item.message())
            elif item.number == 10:
                quantised = item.integer() == 1
        return TensorRef(storage_id, tuple(sizes), tuple(strides), offset, scalar, quantised, storage)

    def _storage(self, message: Span) -> tuple[int, Storage | None]:
        storage_id = 0
        chunks: list[np.ndarray] = []
        quantised: memoryview | None = None
        for item in self._fields(message):
            if item.number == 2:
                chunks.append(item.floats())
            elif item.number == 3:
                chunks.append(item.doubles())
            elif item.number in (4, 6, 7) and quantised is None:
                chunks.append(item.integers(MAX_STORED_INTEGERS))
            elif item.number == 8:
                quantised = item.contents()
            elif item.number == 9:
                storage_id = item.integer()
        if not chunks and quantised is None:
            return storage_id, None
        # An int8 tensor has its rows' statistics as floats and its layout as integers: only the former count here.
        if any(chunk.dtype.kind == "f" for chunk in chunks):
            chunks = [chunk for chunk in chunks if chunk.dtype.kind == "f"]
        values = chunks[0] if len(chunks) == 1 else np.concatenate(chunks or [_EMPTY])
        storage = Storage(values, quantised)
        if storage_id != -1:
            self.storages[storage_id] = storage
        return storage_id, storage
