"""TopN: from the model's raw outputs to the best classes of each record, or to its first rows."""

import logging
import math
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import apache_beam as beam
import numpy as np

from beam_serving.config.own_code import OwnCode
from beam_serving.config.post_processing import PostProcessing
from beam_serving.errors import ModelError
from beam_serving.models.base import LoadedModel
from beam_serving.models.batches import check_rows
from beam_serving.models.shared import SharedModel
from beam_serving.protocol.text import is_text
from beam_serving.records import Answer, Predictions, Ranked, Result, TopClasses
from beam_serving.telemetry.context import service_context
from beam_serving.transforms.own_steps import Postprocess, own_postprocess

_log = logging.getLogger(__name__)
_FEW_CLASSES = 64
"""Up to so many classes all rows are sorted at once; beyond, looking for the best first is faster."""


def top_classes(scores: np.ndarray, n: int) -> list[TopClasses]:
    """Return the `n` best of each row of scores, best first; the earlier index wins a tie and NaN comes last.

    An `n` above the number of classes gives all of them.
    """
    return list(map(TopClasses, *best_of(scores, n)))


def best_of(scores: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what `top_classes` gives as two arrays, classes and scores, of shape (rows, n)."""
    # Ascending order of these is descending order of the scores: NumPy sorts NaN last, and ~ reverses integers exactly.
    reverse = -scores if scores.dtype.kind == "f" else ~scores
    if n == 1 and scores.size and not np.isnan(reverse.min()):
        best = reverse.argmin(axis=1)[:, np.newaxis]
    elif scores.shape[1] <= _FEW_CLASSES:
        best = np.argsort(reverse, axis=1, kind="stable")[:, :n]
    else:
        best = np.stack([_least_of_row(row, n) for row in reverse])
    return best, np.take_along_axis(scores, best, axis=1)


def _least_of_row(row: np.ndarray, n: int) -> np.ndarray:
    if n < row.size // 8:
        # Everything that ties with the n-th must take part, so that the earlier index wins.
        most = np.partition(row, n - 1)[n - 1]
        if most == most:
            candidates = np.flatnonzero(row <= most)
            return candidates[np.argsort(row[candidates], kind="stable")[:n]]
    return np.argsort(row, kind="stable")[:n]


def answers(
    outputs: Mapping[str, np.ndarray],
    rows: int,
    n: int,
    labels: tuple[str, ...] = (),
    as_lists: bool = False,
    only: Collection[str] | None = None,
) -> list[Answer]:
    """Split a batch of outputs into one `Answer` per row; `n` of 0 keeps the whole tensors.

    Texts have no best ones: an output of these is kept whole, and so is one that is not among `only`.
    """
    if n == 0:
        # with the ellipsis a row is an array, also where it is one text
        return [
            Answer({name: output[row, ...] for name, output in outputs.items()}, labels, as_lists)
            for row in range(rows)
        ]
    ranked = {name: _ranked(output, rows, n if only is None or name in only else 0) for name, output in outputs.items()}
    if len(ranked) == 1:
        ((name, tops),) = ranked.items()
        return [Answer({name: top}, labels, as_lists) for top in tops]
    return [Answer(dict(zip(ranked, row, strict=True)), labels, as_lists) for row in zip(*ranked.values(), strict=True)]


def _ranked(output: np.ndarray, rows: int, n: int) -> Sequence[TopClasses | np.ndarray]:
    if is_text(output) or n == 0:
        return [output[row, ...] for row in range(rows)]
    # Not reshape(rows, -1): an output may be empty.
    return top_classes(output.reshape(rows, math.prod(output.shape[1:])), n)


def first_rows(outputs: Mapping[str, np.ndarray], rows: int, n: int) -> list[Answer]:
    """Return the first `n` rows of the outputs of each record of a batch, or as many as there are.

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


def check_predictions(predictions: Predictions) -> None:
    """Make sure that predictions, which a step of the operator's may have made, have a row for each record.

    Raises:
        ModelError: an output has another number of rows, or there is no output.
    """
    if not predictions.outputs:
        raise ModelError("the predictions have no output, wanted is at least one")
    check_rows(predictions.outputs, len(predictions.origins.ids))


AUTO_CLASSES = 5
"""How many classes `top_n: auto` serves."""
_NO_CLASSES = re.compile(r"embed|feature|hidden|pool|latent|vector|encod|descriptor", re.IGNORECASE)


class Served(NamedTuple):
    """What is served of a model's outputs: the best classes of those in `ranked`, the others whole."""

    post_processing: PostProcessing
    ranked: frozenset[str] | None = None
    labels: tuple[str, ...] = ()


def served_of(model: LoadedModel, labels: tuple[str, ...] = ()) -> Served:
    """Tell what of a model's outputs is worth serving: the best classes of one vector of scores, else whole tensors.

    A vector of scores is the only output, has a fixed number of at least two floats and no name of an embedding. An
    output whose classes have names is one all the same. What a model means by two numbers, nobody can tell from its
    file: `top_n` says it.
    """
    if len(model.class_names) == 1 and not labels:
        ((name, names),) = model.class_names.items()
        return Served(PostProcessing(AUTO_CLASSES), frozenset({name}), names)
    if len(model.outputs) == 1:
        (spec,) = model.outputs
        sizes = [size for size in spec.shape or (None,) if size != 1]
        is_vector = len(sizes) == 1 and bool(sizes[0]) and not _NO_CLASSES.search(spec.name)
        if spec.dtype.kind == "f" and (labels or is_vector):
            return Served(PostProcessing(AUTO_CLASSES), labels=labels)
    return Served(PostProcessing(0))


class TopN(beam.PTransform):
    """Turns `Predictions` into what is served of the outputs: `Ranked`, or a list of `Result` records.

    Args:
        served: a number stands for as many best classes, 0 for whole tensors, None for what `served_of` makes of the
            model (whole tensors without a `model`), code for the operator's own function in their place
            (`beam_serving.transforms.own_steps`).
        labels: the names of all classes, in their order; empty for those in the file of a model with one output.
        model: the model, whose outputs and names of classes are looked at on the worker; None where they do not count.
    """

    def __init__(
        self,
        served: int | PostProcessing | OwnCode | None,
        labels: tuple[str, ...] = (),
        model: SharedModel | None = None,
    ) -> None:
        super().__init__()
        own = served if isinstance(served, OwnCode) else None
        built_in = None if isinstance(served, OwnCode) else served
        built_in = PostProcessing(built_in) if isinstance(built_in, int) else built_in
        self._step = _TopNFn(built_in, labels, model, own)

    def expand(self, predictions: beam.PCollection[Predictions]) -> beam.PCollection[Ranked | list[Result]]:
        return predictions | "Rank" >> beam.ParDo(self._step)


class _TopNFn(beam.DoFn):
    def __init__(
        self, served: PostProcessing | None, labels: tuple[str, ...], model: SharedModel | None, own: OwnCode | None
    ) -> None:
        self._own_code = own
        self._given = served
        self._labels = labels
        self._model = model

    def setup(self) -> None:
        self._stats = service_context().stats
        self._step: Postprocess = self._rank
        if self._own_code is not None:
            self._step = own_postprocess(self._own_code)
            return
        model = self._model.acquire().model if self._model else None
        if self._given is not None or model is None:
            names = next(iter(model.class_names.values()), ()) if model and len(model.outputs) == 1 else ()
            self._served = Served(self._given or PostProcessing(0), labels=self._labels or names)
            return
        self._served = served_of(model, self._labels)
        n, ranked = self._served.post_processing.n, self._served.ranked
        of = ", ".join(ranked or [spec.name for spec in model.outputs])
        _log.info("top_n: auto: results are %s of output %s", f"the {n} best classes" if n else "whole tensors", of)

    def process(self, predictions: Predictions) -> Iterable[Ranked | list[Result]]:
        started = time.perf_counter()
        try:
            check_predictions(predictions)
        except ModelError as err:
            _log.warning("%s", err)
            return (predictions.origins.failed(str(err)),)
        served = self._step(predictions)
        self._stats.stages["top_n"].record(time.perf_counter() - started, len(predictions.origins.ids))
        return (served,)

    def _rank(self, predictions: Predictions) -> Ranked | list[Result]:
        return self._ranked(predictions) or self._one_by_one(predictions)

    def _ranked(self, predictions: Predictions) -> Ranked | None:
        """Rank the only output of all records at once; None where there are several, or it is served otherwise."""
        (n, rows, as_lists), only, labels = self._served
        if n == 0 or rows or len(predictions.outputs) > 1:
            return None
        ((name, output),) = predictions.outputs.items()
        if is_text(output) or (only is not None and name not in only):
            return None
        # Not reshape(rows, -1): an output may be empty.
        scores = output.reshape(len(output), math.prod(output.shape[1:]))
        return Ranked(predictions.origins, name, *best_of(scores, n), labels, as_lists)

    def _one_by_one(self, predictions: Predictions) -> list[Result]:
        origins = predictions.origins.each()
        (n, rows, as_lists), only, labels = self._served
        if rows:
            ranked = first_rows(predictions.outputs, len(origins), n)
        else:
            ranked = answers(predictions.outputs, len(origins), n, labels, as_lists, only)
        return [Result(origin, answer) for origin, answer in zip(origins, ranked, strict=True)]
