"""Tabulate: from a result as it stands in Redis to a row of a file, for Parquet or as a line of JSON."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeGuard, cast

import numpy as np
import pyarrow as pa

from beam_serving.errors import ResultError
from beam_serving.io.outbox import OutboxRecord
from beam_serving.protocol import result_key
from beam_serving.protocol.replies import decode_reply
from beam_serving.protocol.text import is_text
from beam_serving.records import ProtocolVersion

TENSOR = pa.struct(
    [
        ("name", pa.string()),
        ("dtype", pa.string()),
        ("shape", pa.list_(pa.int64())),
        ("values", pa.list_(pa.float64())),
    ]
)
SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("stream", pa.string()),
        ("entry", pa.string()),
        ("request_id", pa.string()),
        ("time", pa.timestamp("ms", tz="UTC")),
        ("status", pa.string()),
        ("error", pa.string()),
        ("result", pa.string()),
        ("tensors", pa.list_(TENSOR)),
    ]
)
"""The columns of Parquet files. `result` is JSON; whole tensors are in `tensors`, their values in C order."""


class Row(NamedTuple):
    """A result as a table has it: all text but `time`, in UTC, and `result`, None where there is an `error`.

    `result` is what `decode_reply` gave: best classes by index, an array, a text, or these by output name. `labels` are
    the names of the classes, in their order.
    """

    uri: str | None
    stream: str
    entry: str
    request_id: str | None
    time: datetime
    error: str | None
    result: object
    labels: object


def row_of(kept: OutboxRecord) -> Row:
    """Read a kept result; one that cannot be read, of whatever future version, becomes an error."""
    result, error = None, None
    try:
        result = decode_reply(kept.fields)
    except ResultError as err:
        error = str(err)
    labels = kept.fields.get(b"labels")
    return Row(
        _text(_uri_of(kept)),
        str(_text(kept.stream)),
        kept.entry.decode(),
        _text(kept.fields.get(b"id", b"")),
        datetime.fromtimestamp(int(kept.record_id.partition(b"-")[0]) / 1000, UTC),
        error,
        result,
        json.loads(labels) if labels else None,
    )


def json_line(row: Row) -> bytes:
    """Return a row as one line of JSON; what is no number in it is null."""
    time = row.time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    result = None if row.error is not None else _plain(row.result, row.labels)
    return json.dumps(
        {**_identity(row), "time": time, "status": _status(row), "error": row.error, "result": result}
    ).encode()


def parquet_row(row: Row) -> dict[str, object]:
    """Return a row by the columns of `SCHEMA`."""
    tensors = list(_tensors(row.result))
    classes = _classes(row.result)
    return {
        **_identity(row),
        "time": row.time,
        "status": _status(row),
        "error": row.error,
        "result": None if classes is None else json.dumps(_plain(classes, row.labels)),
        "tensors": tensors or None,
    }


def _identity(row: Row) -> dict[str, str | None]:
    return {"uri": row.uri, "stream": row.stream, "entry": row.entry, "request_id": row.request_id}


def _status(row: Row) -> str:
    return "ok" if row.error is None else "error"


def _uri_of(kept: OutboxRecord) -> bytes:
    """Cut the uri out of the result's key; a uri may hold anything, so only the known beginnings are cut off."""
    for protocol in (ProtocolVersion.NATIVE, ProtocolVersion.IMAGE):
        beginning = result_key(protocol, kept.stream, b"")
        if kept.key.startswith(beginning):
            return kept.key.removeprefix(beginning)
    return b""


def _text(raw: bytes) -> str | None:
    r"""Return text that every reader of a file takes: bytes that are no UTF-8 become `\xff`; None for no bytes."""
    return raw.decode("utf-8", "backslashreplace") if raw else None


def _is_classes(value: object) -> TypeGuard[Mapping[int, float]]:
    return isinstance(value, dict) and all(isinstance(key, int) for key in value)


def _is_numbers(value: object) -> TypeGuard[np.ndarray]:
    return isinstance(value, np.ndarray) and not is_text(value)


def _plain(value: object, labels: object) -> object:
    """Return a result in types of JSON: best classes as objects, tensors and texts as nested lists."""
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray):
        return _nested(value)
    if isinstance(value, list):
        return [_plain(member, None) for member in value]
    if _is_classes(value):
        of_text = any(isinstance(score, str) for score in value.values())
        return list(value.values() if of_text else _best(value, cast("Sequence[str | None] | None", labels)))
    by_name = cast(Mapping[str, object], labels or {})
    return {name: _plain(output, by_name.get(name)) for name, output in cast(Mapping[str, object], value).items()}


def _best(scores: Mapping[int, float], labels: Sequence[str | None] | None) -> Iterator[dict[str, object]]:
    for rank, (index, score) in enumerate(scores.items()):
        best: dict[str, object] = {"class": index, "score": score if math.isfinite(score) else None}
        yield best if labels is None else {**best, "label": labels[rank]}


def _nested(tensor: np.ndarray) -> object:
    if tensor.dtype.kind != "f":
        return tensor.tolist()
    # As text a number has the fewest digits that read back to the same value in its own precision.
    texts = tensor.astype("U32").ravel().tolist()
    numbers = [number if math.isfinite(number) else None for number in map(float, texts)]
    return np.array(numbers, object).reshape(tensor.shape).tolist()


def _classes(result: object) -> object:
    """Return what of a result is not tensors of numbers, None where nothing is."""
    if isinstance(result, dict) and not _is_classes(result):
        return {name: output for name, output in result.items() if not _is_numbers(output)} or None
    return None if isinstance(result, list) or _is_numbers(result) else result


def _tensors(result: object) -> Iterator[dict[str, object]]:
    """Yield the tensors of a result; the only output and those of older clients have no name."""
    if _is_numbers(result):
        yield _tensor("", result)
    elif isinstance(result, list):
        yield from (_tensor("", tensor) for tensor in result)
    elif isinstance(result, dict) and not _is_classes(result):
        yield from (_tensor(name, output) for name, output in result.items() if _is_numbers(output))


def _tensor(name: str, tensor: np.ndarray) -> dict[str, object]:
    values = tensor.astype(np.float64).ravel()
    return {"name": name, "dtype": tensor.dtype.name, "shape": list(tensor.shape), "values": values}
