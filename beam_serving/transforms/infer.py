"""Infer: runs the model on each batch; an example that makes it fail takes no neighbour along."""

import logging
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.metrics import Metrics

from beam_serving.errors import ModelError
from beam_serving.models.base import LoadedModel
from beam_serving.models.batches import alike, predict_batch
from beam_serving.models.shared import SharedModel
from beam_serving.records import Example, Failure, Flush, Predictions, Result
from beam_serving.stats import stats_of_process
from beam_serving.transforms.watchdog import Watchdog

_log = logging.getLogger(__name__)
FAILED = "failed"
_Failed: TypeAlias = pvalue.TaggedOutput[Literal["failed"], list[Result]]


def predict_apart(model: LoadedModel, examples: Sequence[Example]) -> Iterable[Predictions | Result]:
    """Predicts a batch; when that fails, its halves, down to the single examples that make it fail.

    These become error results. The rest is predicted once more, in smaller batches.
    """
    try:
        outputs = predict_batch(model, [example.tensors for example in examples])
    except ModelError as err:
        if len(examples) == 1:
            _log.warning("the model failed on request %r: %s", examples[0].origin.uri[:100], err)
            return [Result(examples[0].origin, Failure(for_client(str(err), model)))]
        middle = len(examples) // 2
        return [*predict_apart(model, examples[:middle]), *predict_apart(model, examples[middle:])]
    return [Predictions(tuple(example.origin for example in examples), outputs)]


def predict_all(model: LoadedModel, examples: Sequence[Example]) -> list[Predictions | Result]:
    """Predict examples of whatever shapes, those that can be stacked together; see `predict_apart`."""
    places = alike([example.tensors for example in examples], model.one_by_one)
    return [outcome for some in places for outcome in predict_apart(model, [examples[place] for place in some])]


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


class Infer(beam.PTransform[Any, Any]):
    """Gives `predictions` for each batch and, as `failed`, lists of error results.

    The model is loaded once per worker process, with the first step that needs it. An inference that takes longer
    than `timeout_s` ends the worker process: its entries are delivered again, one by one.
    """

    def __init__(self, model: SharedModel, timeout_s: float) -> None:
        super().__init__()
        self._step = _InferFn(model, timeout_s)

    def expand(
        self, batches: beam.PCollection[list[Example | Flush]]
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
        self._stats = stats_of_process()

    def process(self, batch: list[Example | Flush]) -> Iterable[Predictions | _Failed]:
        examples = [element for element in batch if not isinstance(element, Flush)]
        if not examples:
            return
        started = time.perf_counter()
        with self._watchdog.watch(), self._worker_model.lock:
            outcomes = predict_all(self._worker_model.model, examples)
        self._stats.stages["infer"].record(time.perf_counter() - started, len(examples))
        self._stats.counts["batches"] += 1
        self._batch_sizes.update(len(examples))
        for outcome in outcomes:
            yield outcome if isinstance(outcome, Predictions) else pvalue.TaggedOutput(FAILED, [self._failure(outcome)])

    def teardown(self) -> None:
        self._watchdog.close()

    def _failure(self, result: Result) -> Result:
        self._stats.counts["failed"] += 1
        return result
