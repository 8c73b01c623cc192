"""TopN: from the model's raw outputs to the best classes of each record, or to its first rows."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from beam_serving.post_processing import PostProcessing
from beam_serving.records import Answer, Predictions, Result, TopClasses
from beam_serving.stats import stats_of_process
from beam_serving.wire.text import is_text


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


def answers(
    outputs: Mapping[str, np.ndarray], rows: int, n: int, labels: tuple[str, ...] = (), as_lists: bool = False
) -> list[Answer]:
    """Splits a batch of outputs into one `Answer` per row; `n` of 0 keeps the whole tensors.

    Texts have no best ones: an output of these is kept whole.
    """
    if n == 0:
        # with the ellipsis a row is an array, also where it is one text
        return [
            Answer({name: output[row, ...] for name, output in outputs.items()}, labels, as_lists)
            for row in range(rows)
        ]
    ranked = {name: _ranked(output, rows, n) for name, output in outputs.items()}
    if len(ranked) == 1:
        ((name, tops),) = ranked.items()
        return [Answer({name: top}, labels, as_lists) for top in tops]
    return [Answer(dict(zip(ranked, row, strict=True)), labels, as_lists) for row in zip(*ranked.values(), strict=True)]


def _ranked(output: np.ndarray, rows: int, n: int) -> Sequence[TopClasses | np.ndarray]:
    if is_text(output):
        return [output[row, ...] for row in range(rows)]
    # Not reshape(rows, -1): an output may be empty.
    return top_classes(output.reshape(rows, math.prod(output.shape[1:])), n)


def first_rows(outputs: Mapping[str, np.ndarray], rows: int, n: int) -> list[Answer]:
    """Gives each record of a batch the first `n` rows of its outputs, or as many as there are.

    Detection models give a record one axis more than its rows have, of size 1: leading ones are dropped.
    """
    return [
        Answer({name: _rows_of(output[row, ...])[:n] for name, output in outputs.items()}, as_lists=True)
        for row in range(rows)
    ]


def _rows_of(output: np.ndarray) -> np.ndarray:
    while output.ndim > 2 and output.shape[0] == 1:
        output = output[0]
    return np.atleast_1d(output)


class TopN(beam.PTransform[Any, Any]):
    """Turns `Predictions` into a list of `Result` records with what `served` leaves of the outputs.

    A number stands for as many best classes, 0 for whole tensors.
    """

    def __init__(self, served: int | PostProcessing, labels: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._step = _TopNFn(PostProcessing(served) if isinstance(served, int) else served, labels)

    def expand(self, predictions: beam.PCollection[Predictions]) -> beam.PCollection[list[Result]]:
        return predictions | "Rank" >> beam.ParDo(self._step)


class _TopNFn(beam.DoFn):
    def __init__(self, served: PostProcessing, labels: tuple[str, ...]) -> None:
        self._served = served
        self._labels = labels

    def setup(self) -> None:
        self._stats = stats_of_process()

    def process(self, predictions: Predictions) -> Iterable[list[Result]]:
        started = time.perf_counter()
        origins = predictions.origins
        n, rows, as_lists = self._served
        if rows:
            ranked = first_rows(predictions.outputs, len(origins), n)
        else:
            ranked = answers(predictions.outputs, len(origins), n, self._labels, as_lists)
        results = [Result(origin, answer) for origin, answer in zip(origins, ranked, strict=True)]
        self._stats.stages["top_n"].record(time.perf_counter() - started, len(results))
        return (results,)
