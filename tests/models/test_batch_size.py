import logging
from collections.abc import Mapping

import numpy as np
import pytest

from beam_serving.errors import ModelError
from beam_serving.models.base import TensorSpec
from beam_serving.models.batch_size import best_batch_size


class Timed:
    """A model that takes, by its own clock, `fixed_s` per batch and `record_s` per record; it refuses above `most`."""

    engine = "timed"
    inputs = (TensorSpec("x", (2,), np.dtype(np.float32)),)
    outputs = inputs
    class_names: Mapping[str, tuple[str, ...]] = {}
    one_by_one = False

    def __init__(self, fixed_s: float, record_s: float, most: int = 1000) -> None:
        self.now = 0.0
        self.tried: set[int] = set()
        self._costs = (fixed_s, record_s, most)

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        fixed_s, record_s, most = self._costs
        rows = len(batch["x"])
        if rows > most:
            raise ModelError("too large")
        self.tried.add(rows)
        self.now += fixed_s + record_s * rows
        return batch

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("model", "best", "within_s"),
    [
        (Timed(0.001, 0.0001), 64, 2.1),
        (Timed(0.0, 0.001), 1, 2.1),
        (Timed(0.0001, 0.001), 4, 2.1),
        (Timed(0.001, 0.0001, most=16), 16, 2.1),
        (Timed(0.5, 0.5), 1, 4.0),
        (Timed(10.0, 0.0), 1, 21.0),
    ],
)
def test_the_size_with_the_most_records_per_second_is_taken(model: Timed, best: int, within_s: float) -> None:
    assert best_batch_size(model, model.clock) == best
    assert model.now <= within_s


def test_what_was_measured_stands_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    model = Timed(0.0625, 0.0625, most=2)
    with caplog.at_level(logging.INFO, "beam_serving"):
        best_batch_size(model, model.clock)
    assert caplog.messages == [
        "a batch of 4 fails: too large",
        "batch size 2 serves most, in records/s by batch size: 1: 8, 2: 11",
    ]


def test_a_model_that_takes_one_record_at_a_time_is_not_tried_with_more() -> None:
    model = Timed(0.001, 0.0001)
    model.one_by_one = True
    assert best_batch_size(model, model.clock) == 1
    assert model.tried == {1}
