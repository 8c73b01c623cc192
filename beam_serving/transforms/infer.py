"""Infer: runs the model on each batch; an example that makes it fail takes no neighbour along."""

import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal, NamedTuple, TypeAlias

import apache_beam as beam
import numpy as np
from apache_beam import pvalue
from apache_beam.metrics import Metrics

from beam_serving.errors import ModelError
from beam_serving.models.base import LoadedModel
from beam_serving.models.batches import check_rows
from beam_serving.models.shared import SharedModel
from beam_serving.protocol.limits import quote
from beam_serving.records import Examples, Failure, Flush, Origins, Predictions, Result
from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.logs import of_request
from beam_serving.transforms.watchdog import Watchdog

_log = logging.getLogger(__name__)
FAILED = "failed"
_Failed: TypeAlias = pvalue.TaggedOutput[Literal["failed"], list[Result]]


class _Stretch(NamedTuple):
    """What became of the rows of a batch from `low` up to `high`: their outputs, or why there are none."""

    low: int
    high: int
    outputs: Mapping[str, np.ndarray] | ModelError


def predict_apart(model: LoadedModel, tensors: Mapping[str, np.ndarray], low: int, high: int) -> Iterable[_Stretch]:
    """Predict the rows of a batch from `low` up to `high`; when that fails, its halves, down to the rows that fail."""
    if model.one_by_one and high - low > 1:
        return [stretch for row in range(low, high) for stretch in predict_apart(model, tensors, row, row + 1)]
    try:
        outputs = model.predict({name: rows[low:high] for name, rows in tensors.items()})
        check_rows(outputs, high - low)
    except ModelError as err:
        if high - low == 1:
            return [_Stretch(low, high, err)]
        middle = (low + high) // 2
        return [*predict_apart(model, tensors, low, middle), *predict_apart(model, tensors, middle, high)]
    return [_Stretch(low, high, outputs)]


def predict_all(model: LoadedModel, blocks: Sequence[Examples]) -> list[Predictions | Result]:
    """Predict examples of whatever shapes, those that fit together in one batch; see `predict_apart`.

    Returns:
        Predictions for stretches of each block, and an error result for each record that makes the model fail.
    """
    alike: dict[Any, list[Examples]] = {}
    for block in blocks:
        form = tuple((name, rows.dtype.str, rows.shape[1:]) for name, rows in block.tensors.items())
        alike.setdefault(form, []).append(block)
    return [outcome for together in alike.values() for outcome in _predict_together(model, together)]


def _predict_together(model: LoadedModel, blocks: Sequence[Examples]) -> Iterator[Predictions | Result]:
    names = blocks[0].tensors
    tensors = {name: _joined([block.tensors[name] for block in blocks]) for name in names}
    ends = list(accumulate(len(block.origins.ids) for block in blocks))
    stretches = predict_apart(model, tensors, 0, ends[-1])
    for block, end in zip(blocks, ends, strict=True):
        start = end - len(block.origins.ids)
        for stretch in stretches:
            low, high = max(stretch.low, start), min(stretch.high, end)
            if low < high:
                yield _outcome(model, block.origins.part(low - start, high - start), stretch, low, high)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _outcome(model: LoadedModel, origins: Origins, stretch: _Stretch, low: int, high: int) -> Predictions | Result:
    if isinstance(stretch.outputs, ModelError):
        (origin,) = origins.each()
        _log.warning("the model failed on request %s: %s", quote(origin.uri), stretch.outputs, extra=of_request(origin))
        return Result(origin, Failure(for_client(str(stretch.outputs), model)))
    rows = slice(low - stretch.low, high - stretch.low)
    return Predictions(origins, {name: output[rows] for name, output in stretch.outputs.items()})


_INTERNALS = re.compile(
    r"""\[?\[?\{\{node\ [^}]*\}\}\]?\]?           # how TensorFlow names a node of its graph
    | (?<![\w.])'[^']*'(?!\w) | "[^"]*"      # what is quoted
    | [^\s'"(),;\[\]]*[/\\][^\s'"(),;\[\]]*  # paths, sources, scopes of names
    | \b[\w-]+\.(?:c|cc|cpp|cu|cxx|h|hpp|py|so|bin|keras|h5|onnx|pb|pt2?|pth|tflite|xml)\b(?::\d+)?
    | \b0x[0-9a-fA-F]+\b""",
    re.VERBOSE,
)


def for_client(reason: str, model: LoadedModel) -> str:
    """Leave out of an engine's reason what is no client's business: paths, sources, addresses, names in the graph.

    The names of the model's inputs and outputs stay, and so do keys of the configuration. The log has all of it.
    """
    declared = {spec.name for spec in (*model.inputs, *model.outputs)}

    def keep(found: re.Match[str]) -> str:
        name = found[0].strip("'\"").removesuffix(":")
        return found[0] if name in declared else "…"

    return _INTERNALS.sub(keep, reason)


class Infer(beam.PTransform):
    """Emits `predictions` for each batch and, as `failed`, lists of error results.

    The model is loaded once per worker process, with the first step that needs it. Of a batch that makes it fail, each
    half is tried, down to the records that fail alone.

    Args:
        model: the model, which is loaded on the worker.
        timeout_s: seconds; the inferences of a batch that take longer end the worker process, and its entries are
            delivered again, one by one.
    """

    def __init__(self, model: SharedModel, timeout_s: float) -> None:
        super().__init__()
        self._step = _InferFn(model, timeout_s)

    def expand(
        self, batches: beam.PCollection[list[Examples | Flush]]
    ) -> Any:  # two collections, which Beam has no type for
        return batches | "Predict" >> beam.ParDo(self._step).with_outputs(FAILED, main="predictions")


class _InferFn(beam.DoFn):
    def __init__(self, model: SharedModel, timeout_s: float) -> None:
        self._shared = model
        self._timeout_s = timeout_s
        self._batch_sizes = Metrics.distribution("beam_serving", "batch_size_records")

    def setup(self) -> None:
        self._worker_model = self._shared.acquire()
        self._watchdog = Watchdog(self._timeout_s)
        self._stats = service_context().stats

    def process(self, batch: list[Examples | Flush]) -> Iterable[Predictions | _Failed]:
        blocks = [element for element in batch if not isinstance(element, Flush)]
        if not blocks:
            return
        records = sum(len(block.origins.ids) for block in blocks)
        started = time.perf_counter()
        # Who waits for the model is not yet inferring.
        with self._worker_model.lock, self._watchdog.watch():
            outcomes = predict_all(self._worker_model.form_for(records), blocks)
        self._stats.stages["infer"].record(time.perf_counter() - started, records)
        self._stats.counts["batches"] += 1
        self._batch_sizes.update(records)
        for outcome in outcomes:
            if isinstance(outcome, Predictions):
                yield outcome
            else:
                self._stats.counts["failed"] += 1
                yield pvalue.TaggedOutput(FAILED, [outcome])

    def teardown(self) -> None:
        self._watchdog.close()
