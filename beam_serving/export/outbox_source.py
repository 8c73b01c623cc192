"""The end of an outbox that Beam reads from, before the rows are written to files."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from apache_beam.transforms.display import DisplayDataItem

from beam_serving.io.outbox import Outbox, OutboxRecord, records_in
from beam_serving.transport.connection import RedisAt


class ReadFromOutbox(beam.PTransform):
    """Reads `kept` rows, a bounded source. Nothing is taken off: `forget` does that when the rows are in files."""

    def __init__(self, at: RedisAt, kept: Iterable[Outbox]) -> None:
        super().__init__()
        self._at = at
        self._kept = list(kept)

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[OutboxRecord]:
        return (
            pbegin
            | "Outboxes" >> beam.Create(self._kept, reshuffle=False)
            | "Rows" >> beam.ParDo(_ReadRowsFn(self._at))
        )

    def display_data(self) -> dict[str, Any]:
        return {"redis": DisplayDataItem(str(self._at), label="Redis server")}


class _ReadRowsFn(beam.DoFn):
    def __init__(self, at: RedisAt) -> None:
        self._at = at

    def setup(self) -> None:
        self._client = self._at.client()

    def process(self, rows: Outbox) -> Iterable[OutboxRecord]:
        return records_in(self._client, rows)

    def teardown(self) -> None:
        self._client.close()
