"""Batch: groups the examples of one read batch, at most `batch_size` records at a time, and waits for nothing."""

import apache_beam as beam

from beam_serving.records import Examples, Flush


class Batch(beam.PTransform):
    """Emits lists of examples, of up to `batch_size` records together.

    These are whatever has arrived at low load, and full batches at high load.

    Beam's `BatchElements` emits when a batch would exceed its size. A `Flush` counts as more than any batch, so it
    pushes out what is there; it ends in a list of its own, which `Infer` drops.

    Args:
        batch_size: the most records in one batch; `Examples` that hold more are a batch of their own.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self._batch_size = batch_size

    def expand(self, examples: beam.PCollection[Examples | Flush]) -> beam.PCollection[list[Examples | Flush]]:
        over_full = self._batch_size + 1

        def weight(element: Examples | Flush) -> int:
            return over_full if isinstance(element, Flush) else len(element.origins.ids)

        return examples | "Group" >> beam.BatchElements(
            min_batch_size=self._batch_size,
            max_batch_size=self._batch_size,
            element_size_fn=weight,
            record_metrics=False,
        )
