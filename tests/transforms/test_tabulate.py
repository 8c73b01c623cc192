"""Rows of files: what a client of any version would get, as JSON and as columns."""

import json
import math
from datetime import UTC, datetime

import hypothesis.extra.numpy as arrays
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.export.tabulate import SCHEMA, Row, json_line, parquet_row, row_of
from beam_serving.io.outbox import OutboxRecord
from beam_serving.protocol import encode_result, result_key
from beam_serving.records import Answer, Failure, Origin, ProtocolVersion, Result, TopClasses

TOP = TopClasses(np.array([7, 3]), np.array([0.75, np.nan], np.float32))
AT = datetime(2026, 11, 25, 20, 24, 0, 498_000, UTC)


def kept(
    outcome: Answer | Failure, protocol: ProtocolVersion = ProtocolVersion.NATIVE, uri: bytes = b"a"
) -> OutboxRecord:
    """Gives the row that a commit keeps."""
    origin = Origin(b"stream", b"5-1", uri, protocol, b"id")
    key = result_key(protocol, b"stream", uri)
    return OutboxRecord(
        b"stream", b"%d-0" % (AT.timestamp() * 1000), b"5-1", key, encode_result(Result(origin, outcome))
    )


def as_json(row: OutboxRecord) -> dict[str, object]:
    line = json_line(row_of(row))
    assert b"\n" not in line
    read: dict[str, object] = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    return read


def as_columns(row: OutboxRecord) -> dict[str, object]:
    """Gives a row as it is read back from a table."""
    read: dict[str, object] = pa.Table.from_pylist([parquet_row(row_of(row))], SCHEMA).to_pylist()[0]
    return read


def test_a_row_says_whose_result_it_is_and_when_it_was_there() -> None:
    row = kept(Answer({"prob": TOP}))
    best = [{"class": 7, "score": 0.75}, {"class": 3, "score": None}]
    common = {"uri": "a", "stream": "stream", "entry": "5-1", "request_id": "id", "status": "ok", "error": None}
    assert as_json(row) == {**common, "time": "2026-11-25T20:24:00.498Z", "result": best}
    assert as_columns(row) == {**common, "time": AT, "result": json.dumps(best), "tensors": None}


def test_labels_stand_beside_their_classes() -> None:
    best = [{"class": 7, "score": 0.75, "label": "seven"}, {"class": 3, "score": None, "label": None}]
    few = TopClasses(np.array([1, 9]), np.array([0.5, 0.25]))
    assert as_json(kept(Answer({"prob": few}, ("zero", "one"))))["result"] == [
        {"class": 1, "score": 0.5, "label": "one"},
        {"class": 9, "score": 0.25, "label": None},
    ]
    labels = ("",) * 7 + ("seven",)
    both = Answer({"prob": TopClasses(np.array([7]), np.array([0.75])), "other": few}, labels)
    assert as_json(kept(both))["result"] == {
        "prob": best[:1],
        "other": [{"class": 1, "score": 0.5, "label": ""}, {"class": 9, "score": 0.25, "label": None}],
    }


def test_an_error_is_a_row_too() -> None:
    for protocol in ProtocolVersion:
        row = kept(Failure("request 'a': no image"), protocol)
        for read in (as_json(row), as_columns(row)):
            assert (read["uri"], read["status"], read["error"], read["result"]) == (
                "a",
                "error",
                "request 'a': no image",
                None,
            )


def test_a_request_without_a_uri_is_a_row_without_one() -> None:
    row = OutboxRecord(b"stream", b"1-0", b"5-1", b"", {b"error": b"request without uri"})
    assert as_json(row)["uri"] is None
    assert as_columns(row)["error"] == "request without uri"


def test_a_result_that_cannot_be_read_is_an_error_and_not_the_end_of_the_export() -> None:
    row = OutboxRecord(b"stream", b"1-0", b"5-1", b"cluster-serving_stream:a", {b"value": b"[["})
    assert str(as_json(row)["error"]).startswith("result is not readable: ")


@pytest.mark.parametrize("uri", [b"\xff\n\x00", "日本:\u202e".encode(), b"result:x", b"cluster-serving_stream:y"])
@pytest.mark.parametrize("protocol", list(ProtocolVersion))
def test_uris_come_whole_and_what_is_no_text_in_them_stays_readable(uri: bytes, protocol: ProtocolVersion) -> None:
    wanted = uri.decode("utf-8", "backslashreplace")
    row = kept(Answer({"prob": TOP}), protocol, uri)
    assert as_json(row)["uri"] == as_columns(row)["uri"] == wanted


def test_the_first_clients_best_classes_are_those_of_all() -> None:
    wanted = [{"class": 7, "score": 0.75}, {"class": 3, "score": None}]
    for as_lists in (False, True):
        row = kept(Answer({"prob": TOP}, as_lists=as_lists), ProtocolVersion.IMAGE)
        assert as_json(row)["result"] == wanted
        assert json.loads(str(as_columns(row)["result"])) == wanted


def test_arrow_answers_are_the_arrays_that_their_clients_get() -> None:
    row = kept(Answer({"prob": TopClasses(np.array([7]), np.array([0.75]))}), ProtocolVersion.ARROW)
    assert as_json(row)["result"] == [[7.0, 0.75]]
    (tensor,) = as_columns(row)["tensors"]  # type: ignore[misc]
    assert (tensor["shape"], tensor["values"]) == ([1, 2], [7.0, 0.75])


def test_tensors_are_lists_with_shape_and_dtype() -> None:
    whole = np.array([[0.1, np.inf], [np.nan, 2]], np.float32)
    row = kept(Answer({"boxes": whole, "count": np.int64(2**60 + 1), "prob": TOP}))
    best = [{"class": 7, "score": 0.75}, {"class": 3, "score": None}]
    result = as_json(row)["result"]
    assert result == {"prob": best, "boxes": [[0.1, None], [None, 2.0]], "count": 2**60 + 1}
    columns = as_columns(row)
    assert json.loads(str(columns["result"])) == {"prob": best}
    boxes, count = columns["tensors"]  # type: ignore[misc]
    assert (boxes["name"], boxes["dtype"], boxes["shape"]) == ("boxes", "float32", [2, 2])
    assert boxes["values"][:2] == [float(np.float32(0.1)), math.inf]
    assert math.isnan(boxes["values"][2])
    assert count == {"name": "count", "dtype": "int64", "shape": [], "values": [float(2**60)]}


@given(
    arrays.arrays(
        some.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint64, np.bool_]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0),
    )
)
def test_every_tensor_reads_back_to_the_same_values(tensor: np.ndarray) -> None:
    row = Row("a", "stream", "1-0", None, AT, None, tensor, None)
    read = np.array(json.loads(json_line(row))["result"], float).astype(tensor.dtype).reshape(tensor.shape)
    finite = np.isfinite(tensor)
    if tensor.dtype != np.uint64:
        assert np.array_equal(read[finite], tensor[finite])
    (column,) = parquet_row(row)["tensors"]
    assert column["shape"] == list(tensor.shape)
    assert np.array_equal(column["values"], tensor.astype(float).ravel(), equal_nan=True)


def test_texts_are_in_the_result_and_numbers_in_the_tensors() -> None:
    label, words = np.array("größer", object), np.array([["a"], ["b"]], object)
    for output, value in ((label, "größer"), (words, [["a"], ["b"]])):
        row = kept(Answer({"label": output}))
        assert as_json(row)["result"] == value
        assert (as_columns(row)["result"], as_columns(row)["tensors"]) == (json.dumps(value), None)
    both = kept(Answer({"label": words, "other": np.ones(2, np.float32), "prob": TOP}))
    best = [{"class": 7, "score": 0.75}, {"class": 3, "score": None}]
    assert as_json(both)["result"] == {"prob": best, "label": [["a"], ["b"]], "other": [1, 1]}
    assert json.loads(str(as_columns(both)["result"])) == {"prob": best, "label": [["a"], ["b"]]}
    assert as_columns(both)["tensors"] == [{"name": "other", "dtype": "float32", "shape": [2], "values": [1, 1]}]
    of_image_client = kept(Answer({"label": words}), ProtocolVersion.IMAGE)
    assert as_json(of_image_client)["result"] == ["a", "b"]
