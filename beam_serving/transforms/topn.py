"""TopN: from the model's raw outputs to the best classes of each record."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import apache_beam as beam
import numpy as np

from beam_serving.records import Answer, Predictions, Result, TopClasses
from beam_serving.stats import stats_of_process


def top_classes(scores: np.ndarray, n: int) -> list[TopClasses]:
    """Gives the `n` best of each row of scores, best first; the earlier index wins a tie and NaN comes last.

    An `n` above the number of classes gives all of them.
    """
    # Ascending order of these is descending order of the scores: NumPy sorts NaN last, and ~ reverses integers exactly.
    reverse = -scores if scores.dtype.kind == "f" else ~scores
    if n == 1 and scores.size and not np.isnan(reverse.min()):
        best = reverse.argmin(axis=1)[:, np.newaxis]
    else:
        best = np.stack([_least_of_row(row, n) for row in reverse])
    return list(map(TopClasses, best, np.take_along_axis(scores, best, axis=1)))


def _least_of_row(row: np.ndarray, n: int) -> np.ndarray:
    if n < row.size // 8:
        # Everything that ties with the n-th must take part, so that the earlier index wins.
        most = np.partition(row, n - 1)[n - 1]
        if most == most:
            candidates = np.flatnonzero(row <= most)
            return candidates[np.argsort(row[candidates], kind="stable")[:n]]
    return np.argsort(row, kind="stable")[:n]


def answers(outputs: Mapping[str, np.ndarray], rows: int, n: int, labels: tuple[str, ...] = ()) -> list[Answer]:
    """Splits a batch of outputs into one `Answer` per row; `n` of 0 keeps the whole tensors."""
    if n == 0:
        return [Answer({name: output[row] for name, output in outputs.items()}, labels) for row in range(rows)]
    # Not reshape(rows, -1): an output may be empty.
    flat = {name: output.reshape(rows, math.prod(output.shape[1:])) for name, output in outputs.items()}
    ranked = {name: top_classes(scores, n) for name, scores in flat.items()}
    return [Answer(dict(zip(ranked, row, strict=True)), labels) for row in zip(*ranked.values(), strict=True)]


class TopN(beam.PTransform[Any, Any]):
    """Turns `Predictions` into a list of `Result` records with the `n` best classes each; 0 keeps whole tensors."""

    def __init__(self, n: int, labels: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._step = _TopNFn(n, labels)

    def expand(self, predictions: beam.PCollection[Predictions]) -> beam.PCollection[list[Result]]:
        return predictions | "Rank" >> beam.ParDo(self._step)


class _TopNFn(beam.DoFn):
    def __init__(self, n: int, labels: tuple[str, ...]) -> None:
        self._n = n
        self._labels = labels

    def setup(self) -> None:
        self._stats = stats_of_process()

    def process(self, predictions: Predictions) -> Iterable[list[Result]]:
        started = time.perf_counter()
        origins = predictions.origins
        ranked = answers(predictions.outputs, len(origins), self._n, self._labels)
        results = [Result(origin, answer) for origin, answer in zip(origins, ranked, strict=True)]
        self._stats.stages["top_n"].record(time.perf_counter() - started, len(results))
        return (results,)
