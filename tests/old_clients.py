"""The commands and bytes of the released clients of Cluster Serving, written anew from what they put on a server.

Each class sends what that client sends, in its order, and reads a result as it does. Nothing of theirs is copied.
"""

import base64
import json
from typing import Any

import numpy as np
import pyarrow as pa
import redis

ORDER = ("indiceData", "indiceShape", "data", "shape")
KIND = pa.struct([(name, pa.list_(pa.float32() if name == "data" else pa.int32())) for name in ORDER])


def tensor_column(value: np.ndarray) -> pa.Array:
    """A dense tensor: four rows, in each one list is filled and the others are null."""
    flat = value.astype("float32").flatten()
    rows = [{"indiceData": []}, {"indiceShape": []}, {"data": flat}, {"shape": np.array(value.shape)}]
    return pa.array(rows, KIND)


def sparse_column(indices: np.ndarray, values: np.ndarray, shape: np.ndarray) -> pa.Array:
    """A sparse tensor; its indices are cast to float32 on the way, as the clients do."""
    rows = [
        {"indiceData": indices.astype("float32").flatten()},
        {"indiceShape": indices.shape},
        {"data": values},
        {"shape": shape},
    ]
    return pa.array(rows, KIND)


def arrow_data(**columns: pa.Array) -> str:
    """The field `data`: base64 of a stream with one record batch."""
    schema = pa.schema([pa.field(name, column.type) for name, column in columns.items()])
    sink = pa.BufferOutputStream()
    with pa.RecordBatchStreamWriter(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(list(columns.values()), schema=schema))
    return base64.b64encode(sink.getvalue().to_pybytes()).decode()


class OldClient:
    """What all have in common: the constructor makes the group at the end of the stream, and swallows an error."""

    def __init__(self, server: redis.Redis, stream: str, prefix: str) -> None:
        self.server = server
        self.stream = stream
        self.prefix = prefix
        try:
            server.execute_command("XGROUP", "CREATE", stream, "serving", "$")
        except redis.ResponseError as err:
            self.group_error: str | None = str(err)
        else:
            self.group_error = None

    def send(self, **fields: str) -> None:
        self.server.execute_command("INFO")
        self.server.execute_command("XADD", self.stream, "*", *(part for pair in fields.items() for part in pair))

    def raw(self, uri: str) -> dict[bytes, bytes]:
        return self.server.hgetall(self.prefix + uri)

    def dequeue_raw(self) -> dict[str, bytes]:
        """KEYS, then HGETALL and DEL of each; of a uri with a colon the first part is left."""
        taken = {}
        for key in self.server.execute_command("KEYS", self.prefix + "*"):
            taken[key.decode().split(":")[1]] = self.server.hgetall(key)[b"value"]
            self.server.delete(key)
        return taken


class ImageClient(OldClient):
    """0.7 and 0.8: `InputQueue().enqueue_image(uri, image)`, `OutputQueue().query(uri)` and `dequeue()`."""

    def __init__(self, server: redis.Redis) -> None:
        super().__init__(server, "image_stream", "result:")

    def enqueue_image(self, uri: str, file: bytes) -> None:
        self.send(uri=uri, image=base64.b64encode(file).decode())

    def query(self, uri: str) -> Any:
        found = self.raw(uri)
        return json.loads(found[b"value"] if found else "{}")


class ArrowClient(OldClient):
    """0.9 and later, BigDL 2.x: `InputQueue(...).enqueue(uri, **inputs)`, `OutputQueue(...).query(uri)`."""

    def __init__(self, server: redis.Redis, name: str = "serving_stream") -> None:
        super().__init__(server, name, f"cluster-serving_{name}:")

    def enqueue(self, uri: str, **columns: pa.Array) -> None:
        self.send(uri=uri, data=arrow_data(**columns))

    def query(self, uri: str) -> Any:
        found = self.raw(uri)
        return self.decoded(found[b"value"]) if found else "[]"

    @staticmethod
    def decoded(value: bytes) -> Any:
        """Reads an array, or a list of arrays, as they do: the shape is what is not null or 0 in its column."""
        if value == b"NaN":
            return "NaN"
        batches = list(pa.ipc.open_stream(pa.BufferReader(base64.b64decode(value))))
        arrays = [batch[0].to_numpy().reshape([size for size in batch[1].to_pylist() if size]) for batch in batches]
        return arrays[0] if len(arrays) == 1 else arrays
