"""Infer: an example that makes the model fail takes no neighbour along."""

from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.errors import ModelError
from beam_serving.models.base import TensorSpec
from beam_serving.models.shared import WorkerModel
from beam_serving.records import Examples, Failure, Flush, Origin, Origins, Predictions, ProtocolVersion, Result
from beam_serving.telemetry.context import service_context
from beam_serving.transforms import Infer
from beam_serving.transforms.infer import for_client, predict_all

UNLUCKY, FORBIDDEN = 13.0, 14.0


class Doubling:
    """A model that doubles its values, fails on 13, and breaks in a way that is no ModelError on 14."""

    engine = "test"
    class_names: Mapping[str, tuple[str, ...]] = {}
    one_by_one = False
    inputs = (TensorSpec("x", (None,), np.dtype(np.float32)),)
    outputs = (TensorSpec("y", (None,), np.dtype(np.float32)),)

    def __init__(self, dropped_rows: int = 0) -> None:
        self.batches: list[int] = []
        self._dropped_rows = dropped_rows

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        rows = batch["x"]
        self.batches.append(len(rows))
        if (rows == FORBIDDEN).any():
            raise ZeroDivisionError
        if (rows == UNLUCKY).any():
            raise ModelError("a value is 13")
        return {"y": rows[: len(rows) - self._dropped_rows] * 2}


class OneModel:
    """Stands where a `SharedModel` does; gives the model above."""

    def acquire(self) -> WorkerModel:
        return WorkerModel(Doubling())


def example(number: int, *values: float) -> Examples:
    """Gives a block of one record."""
    origin = Origin(b"stream", b"%d-0" % number, b"r%d" % number, ProtocolVersion.NATIVE)
    return Examples(Origins.of([origin]), {"x": np.array([values], np.float32)})


def block(*values: float, first: int = 0) -> Examples:
    """Gives a block of records of one value each."""
    origins = [
        Origin(b"stream", b"%d-0" % at, b"r%d" % at, ProtocolVersion.NATIVE) for at in range(first, first + len(values))
    ]
    return Examples(Origins.of(origins), {"x": np.array(values, np.float32)[:, np.newaxis]})


def shown(outcomes: Sequence[Predictions | Result]) -> list[tuple[bytes, Any]]:
    """Gives what became of each request: its row, or the reason why there is none."""
    answered: list[tuple[bytes, Any]] = []
    for outcome in outcomes:
        if isinstance(outcome, Result):
            assert isinstance(outcome.outcome, Failure)
            answered.append((outcome.origin.uri, outcome.outcome.reason))
        else:
            rows = zip(outcome.origins.each(), outcome.outputs["y"].tolist(), strict=True)
            answered += [(origin.uri, row) for origin, row in rows]
    return answered


def test_a_batch_that_works_is_predicted_once() -> None:
    model = Doubling()
    (predictions,) = predict_all(model, [block(0, 1, 2, 3)])
    assert shown([predictions]) == [(b"r0", [0.0]), (b"r1", [2.0]), (b"r2", [4.0]), (b"r3", [6.0])]
    assert model.batches == [4]


def test_one_example_that_fails_is_found_by_halving() -> None:
    model = Doubling()
    outcomes = predict_all(model, [block(0, 1, UNLUCKY, 3)])
    assert shown(outcomes) == [(b"r0", [0.0]), (b"r1", [2.0]), (b"r2", "a value is 13"), (b"r3", [6.0])]
    assert model.batches == [4, 2, 2, 1, 1]


@given(
    some.lists(some.sampled_from([1.0, 2.0, UNLUCKY]), min_size=1, max_size=33),
    some.lists(some.integers(0, 33), max_size=4),
)
def test_every_request_has_one_outcome_in_the_order_of_its_batch_however_it_is_cut_into_blocks(
    values: list[float], cuts: list[int]
) -> None:
    ends = sorted({min(cut, len(values)) for cut in cuts} - {0} | {len(values)})
    blocks = [block(*values[start:end], first=start) for start, end in zip([0, *ends], ends, strict=False)]
    outcomes = predict_all(Doubling(), blocks)
    assert shown(outcomes) == [
        (b"r%d" % number, "a value is 13" if value == UNLUCKY else [2 * value]) for number, value in enumerate(values)
    ]


def test_a_row_that_is_missing_fails_its_request() -> None:
    outcomes = predict_all(Doubling(dropped_rows=1), [example(1, 1.0), example(2, 2.0)])
    reason = "output 'y' of the model is float32[0, 1], 1 examples need 1 rows"
    assert shown(outcomes) == [(b"r1", reason), (b"r2", reason)]


def test_a_fault_that_is_none_of_the_model_is_not_taken_for_one() -> None:
    with pytest.raises(ZeroDivisionError):
        predict_all(Doubling(), [example(1, FORBIDDEN)])


def test_only_examples_of_one_shape_are_predicted_together() -> None:
    examples = [example(1, 1.0), example(2, 2.0), example(3, 1.0, 2.0), example(4, 1.0)]
    outcomes = [outcome for outcome in predict_all(Doubling(), examples) if isinstance(outcome, Predictions)]
    assert [list(one.origins.uris) for one in outcomes] == [[b"r1"], [b"r2"], [b"r4"], [b"r3"]]


def infer(batches: list[list[Examples | Flush]], predicted: list[Any], failed: list[Any]) -> None:
    """Runs Infer on batches and checks both of its outputs."""
    with beam.Pipeline(FnApiRunner()) as pipeline:
        model: Any = OneModel()
        predictions, failures = pipeline | beam.Create([0]) | beam.FlatMap(lambda _: batches) | Infer(model, 30.0)
        each = predictions | "Show" >> beam.Map(lambda one: shown([one]))
        assert_that(each, equal_to(predicted), label="predictions")
        assert_that(failures | beam.Map(shown), equal_to(failed), label="failures")


def test_what_fails_goes_apart_from_what_is_predicted(caplog: pytest.LogCaptureFixture) -> None:
    infer(
        [[example(1, 1.0), example(2, UNLUCKY)], [example(3, 3.0), example(4, 4.0, 5.0)]],
        [[(b"r1", [2.0])], [(b"r3", [6.0])], [(b"r4", [8.0, 10.0])]],
        [[(b"r2", "a value is 13")]],
    )
    stats = service_context().stats
    assert stats.counts == {"batches": 2, "failed": 1}
    assert sum(stats.stages["infer"].counts.values()) == 4
    (warning,) = [record for record in caplog.records if record.name == "beam_serving.transforms.infer"]
    assert warning.getMessage().startswith("the model failed on request 'r2': ")


def test_a_flush_ends_here() -> None:
    infer([[Flush()], [example(1, 1.0)], [Flush()]], [[(b"r1", [2.0])]], [])
    assert service_context().stats.counts == {"batches": 1}


def test_a_fault_of_ours_ends_the_bundle_so_that_its_entries_are_delivered_again() -> None:
    with pytest.raises(Exception, match="ZeroDivisionError"):
        infer([[example(1, FORBIDDEN)]], [], [])


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("indices[0] = 99 is not in [0, 10)", "indices[0] = 99 is not in [0, 10)"),
        ("the model failed on float32[1,2]: bad input 'x'", "the model failed on float32[1,2]: bad input 'x'"),
        ("at src/inference/infer_request.cpp:116: Shapes differ", "at … Shapes differ"),
        ("Load of /home/me/.cache/beam_serving/models/ab12/model.onnx failed", "Load of … failed"),
        ("Name:'/encoder/MatMul_3' dimension mismatch", "Name:… dimension mismatch"),
        ("[[{{node secret_layer/Gather}}]] out of range", "… out of range"),
        ("Gather node. Name:'node_7' Status", "Gather node. Name:… Status"),
        ("object at 0x7f8a33 in model.pt2", "object at … in …"),
        ("C:\\models\\a.onnx is gone", "… is gone"),
    ],
)
def test_what_an_engine_says_of_its_insides_stays_in_the_log(said: str, sent: str) -> None:
    assert for_client(said, Doubling()) == sent
