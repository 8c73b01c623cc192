"""Batch: full batches where there is enough, and never a wait for more."""

from collections.abc import Sequence

import apache_beam as beam
import numpy as np
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from beam_serving.records import Examples, Flush, Origin, Origins, ProtocolVersion
from beam_serving.transforms import Batch


def example(number: int) -> Examples:
    origins = Origins.of([Origin(b"stream", b"%d-0" % number, b"a", ProtocolVersion.NATIVE)])
    return Examples(origins, {"x": np.zeros((1, 1))})


def shown(batch: Sequence[Examples | Flush]) -> str:
    return " ".join("|" if isinstance(element, Flush) else element.origins.ids[0].decode()[0] for element in batch)


CASES = {
    "less than a batch": ("12|", 4, ["1 2", "|"]),
    "a full batch": ("1234|", 4, ["1 2 3 4", "|"]),
    "more than a batch": ("12345|6|", 4, ["1 2 3 4", "5", "|", "6", "|"]),
    "batches of one": ("12|34|", 1, ["1", "2", "|", "3", "4", "|"]),
    "the end of the bundle": ("12|3", 4, ["1 2", "|", "3"]),
    "nothing": ("", 4, []),
}
"""By name: what is polled (`|` is a flush), the batch size, the batches."""


def polled(elements: str) -> list[Examples | Flush]:
    return [Flush() if element == "|" else example(int(element)) for element in elements]


def test_a_flush_pushes_out_what_is_there() -> None:
    with beam.Pipeline(FnApiRunner()) as pipeline:
        for name, (elements, batch_size, wanted) in CASES.items():
            given = pipeline | f"Create {name}" >> beam.Create(polled(elements), reshuffle=False)
            batches = given | f"Batch {name}" >> Batch(batch_size) | f"Show {name}" >> beam.Map(shown)
            assert_that(batches, equal_to(wanted), label=name)


@beam.typehints.with_input_types(list[Examples | Flush])
class _Order(beam.DoFn):
    """Checks, where the next fused step sees it, that a batch is out before the flush that follows it is consumed."""

    def setup(self) -> None:
        self._seen: list[str] = []

    def process(self, batch: list[Examples | Flush]) -> list[str]:
        self._seen.append(shown(batch))
        return [" / ".join(self._seen)]


def test_batches_come_in_the_order_of_the_entries() -> None:
    with beam.Pipeline(FnApiRunner()) as pipeline:
        seen = pipeline | beam.Create([0]) | beam.FlatMap(lambda _: polled("12|3|")) | Batch(8) | beam.ParDo(_Order())
        assert_that(seen, equal_to(["1 2", "1 2 / |", "1 2 / | / 3", "1 2 / | / 3 / |"]))
