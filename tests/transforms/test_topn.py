"""TopN: the best classes in a fixed order, whatever the scores are."""

import math
from collections.abc import Mapping
from typing import Any

import apache_beam as beam
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.config.post_processing import PostProcessing
from beam_serving.models.base import TensorSpec
from beam_serving.records import Answer, Origin, Origins, Predictions, ProtocolVersion, TopClasses
from beam_serving.telemetry.context import service_context
from beam_serving.transforms import TopN
from beam_serving.transforms.topn import answers, first_rows, served_of, top_classes

FEW_VALUES = some.sampled_from([0.0, -0.0, 0.25, 1.0, -1.0, math.inf, -math.inf, math.nan])
FLOATS = arrays.arrays(
    some.sampled_from([np.float16, np.float32, np.float64]),
    some.tuples(some.integers(1, 4), some.integers(1, 60)),
    elements=FEW_VALUES | some.floats(-1000, 1000, width=16),
)
INTEGERS = arrays.arrays(
    some.sampled_from([np.int8, np.uint8, np.int64, np.uint64, np.bool_]),
    some.tuples(some.integers(1, 4), some.integers(1, 60)),
)


def reference(row: np.ndarray, n: int) -> list[int]:
    """Ranks the plain way: NaN last, then the higher score first, then the earlier index."""
    scores = row.tolist()
    is_nan = [score != score for score in scores]
    return sorted(range(len(scores)), key=lambda i: (is_nan[i], 0 if is_nan[i] else -scores[i], i))[:n]


@given(FLOATS | INTEGERS, some.integers(1, 70))
def test_the_best_are_those_of_a_plain_sort(scores: np.ndarray, n: int) -> None:
    top = top_classes(scores, n)
    assert len(top) == len(scores)
    for row, (classes, best) in zip(scores, top, strict=True):
        wanted = reference(row, n)
        assert classes.tolist() == wanted
        np.testing.assert_array_equal(best, row[wanted])
        assert best.dtype == scores.dtype


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_nan_comes_after_minus_infinity(n: int, bad: float) -> None:
    (top,) = top_classes(np.array([[math.nan, bad, -math.inf, 1.0] + [math.nan] * 60], np.float32), n)
    wanted = [3, 1, 2, 0, 4] if bad == -math.inf else [3, 2, 0, 1, 4]
    assert top.classes.tolist() == wanted[:n]


def test_the_earlier_index_wins_a_tie_among_many_classes() -> None:
    scores = np.zeros((1, 1000), np.float32)
    scores[0, 900] = 1.0
    (top,) = top_classes(scores, 4)
    assert top.classes.tolist() == [900, 0, 1, 2]


def test_large_integers_are_told_apart() -> None:
    (top,) = top_classes(np.array([[2**62, 2**62 + 1, 2**62 - 1]]), 3)
    assert top.classes.tolist() == [1, 0, 2]


@pytest.mark.parametrize("n", [1, 3])
def test_a_row_without_classes_has_no_best(n: int) -> None:
    (answer,) = answers({"y": np.zeros((1, 0), np.float32)}, 1, n)
    top = answer.outputs["y"]
    assert isinstance(top, TopClasses)
    assert top.classes.size == top.scores.size == 0


def test_more_than_there_are_gives_all() -> None:
    (top,) = top_classes(np.array([[0.1, 0.9]]), 100)
    assert (top.classes.tolist(), top.scores.tolist()) == ([1, 0], [0.9, 0.1])


def test_each_row_has_its_own_answer() -> None:
    outputs = {"y": np.array([[0.0, 1.0], [1.0, 0.0]]), "z": np.array([[5.0], [6.0]])}
    one, two = answers(outputs, 2, 1, ("cat", "dog"))
    assert [int(top.classes[0]) for answer in (one, two) for top in answer.outputs.values()] == [1, 0, 0, 0]  # type: ignore[union-attr]
    assert one.labels == two.labels == ("cat", "dog")


def test_an_output_of_more_axes_is_ranked_flat() -> None:
    (answer,) = answers({"y": np.arange(8.0).reshape(1, 2, 2, 2)}, 1, 2)
    top = answer.outputs["y"]
    assert isinstance(top, TopClasses)
    assert top.classes.tolist() == [7, 6]


def test_zero_keeps_the_whole_tensors() -> None:
    tensor = np.arange(12.0).reshape(2, 2, 3)
    for row, answer in enumerate(answers({"y": tensor}, 2, 0)):
        np.testing.assert_array_equal(answer.outputs["y"], tensor[row])


@pytest.mark.parametrize("n", [0, 1, 3])
def test_an_output_of_text_is_kept_whole(n: int) -> None:
    outputs = {
        "label": np.array(["a", "b"], object),
        "words": np.array([["a", "b"], ["c", "d"]], object),
        "p": np.array([[0.25, 0.75], [0.5, 0.25]], np.float32),
    }
    first, second = answers(outputs, 2, n)
    assert [answer.outputs["label"].shape for answer in (first, second)] == [(), ()]  # type: ignore[union-attr]
    assert [answer.outputs["label"].item() for answer in (first, second)] == ["a", "b"]  # type: ignore[union-attr]
    assert second.outputs["words"].tolist() == ["c", "d"]  # type: ignore[union-attr]
    assert isinstance(first.outputs["p"], TopClasses) == (n > 0)
    (only, _) = answers({"label": outputs["label"]}, 2, n)
    assert only.outputs["label"].item() == "a"  # type: ignore[union-attr]
    assert first_rows(outputs, 2, 1)[1].outputs["words"].tolist() == ["c"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("shape", "n", "wanted"),
    [
        ((5, 7), 2, (2, 7)),
        ((5, 7), 9, (5, 7)),
        ((1, 1, 5, 7), 2, (2, 7)),
        ((1, 7), 3, (1, 7)),
        ((9,), 4, (4,)),
        ((), 1, (1,)),
    ],
)
def test_the_first_rows_of_each_record(shape: tuple[int, ...], n: int, wanted: tuple[int, ...]) -> None:
    batch = np.arange(2 * int(np.prod(shape)), dtype=np.float32).reshape(2, *shape)
    for row, answer in enumerate(first_rows({"y": batch}, 2, n)):
        picked = answer.outputs["y"]
        assert isinstance(picked, np.ndarray)
        assert picked.shape == wanted
        np.testing.assert_array_equal(picked.ravel(), batch[row].ravel()[: picked.size])


def _shown(ranked: Any) -> list[tuple[bytes, Any]]:
    shown = []
    for origin, outcome in ranked.each():
        assert isinstance(outcome, Answer)
        top: Any = outcome.outputs["y"]
        shown.append((origin.uri, top.classes.tolist()))
    return shown


def test_a_batch_of_predictions_is_ranked_at_once() -> None:
    origins = Origins.of([Origin(b"s", b"1-0", uri, ProtocolVersion.NATIVE) for uri in (b"a", b"b")])
    predictions = Predictions(origins, {"y": np.array([[0.1, 0.9, 0.0], [0.5, 0.2, 0.3]], np.float32)})
    with beam.Pipeline(FnApiRunner()) as pipeline:
        results = pipeline | beam.Create([0]) | beam.Map(lambda _: predictions) | TopN(2)
        assert_that(results | beam.Map(_shown), equal_to([[(b"a", [1, 0]), (b"b", [0, 2])]]))
    assert sum(service_context().stats.stages["top_n"].counts.values()) == 2


@pytest.mark.parametrize("n", [0, 2])
@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ({}, "the predictions have no output, wanted is at least one"),
        ({"y": np.ones((1, 3))}, "output 'y' of the model is float64[1, 3], 2 examples need 2 rows"),
        ({"x": np.ones((2, 3)), "y": np.ones(3)}, "output 'y' of the model is float64[3], 2 examples need 2 rows"),
    ],
)
def test_predictions_that_have_no_row_for_each_record_are_an_error_of_these(
    outputs: dict[str, np.ndarray], told: str, n: int
) -> None:
    origins = Origins.of([Origin(b"s", b"1-0", uri, ProtocolVersion.NATIVE) for uri in (b"a", b"b")])
    with beam.Pipeline(FnApiRunner()) as pipeline:
        results = pipeline | beam.Create([0]) | beam.Map(lambda _: Predictions(origins, outputs)) | TopN(n)
        assert_that(results | beam.Map(list), equal_to([origins.failed(told)]))


def _picked(results: Any) -> list[tuple[Any, bool]]:
    outcomes: list[Any] = [outcome for _, outcome in results]
    return [(outcome.outputs["y"].tolist(), outcome.as_lists) for outcome in outcomes]


def test_rows_are_picked_where_that_is_asked_for() -> None:
    origins = Origins.of([Origin(b"s", b"1-0", uri, ProtocolVersion.NATIVE) for uri in (b"a", b"b")])
    predictions = Predictions(origins, {"y": np.arange(8.0).reshape(2, 2, 2)})
    with beam.Pipeline(FnApiRunner()) as pipeline:
        step = TopN(PostProcessing.of("pickTopN(1)"))
        results = pipeline | beam.Create([0]) | beam.Map(lambda _: predictions) | step
        assert_that(results | beam.Map(_picked), equal_to([[([[0, 1]], True), ([[4, 5]], True)]]))


class Described:
    """A model of which only its outputs count."""

    engine = "none"
    inputs: tuple[TensorSpec, ...] = ()
    one_by_one = False

    def __init__(self, outputs: dict[str, tuple[int | None, ...] | None], dtype: str, classes: dict[str, Any]) -> None:
        self.outputs = tuple(TensorSpec(name, shape, np.dtype(dtype)) for name, shape in outputs.items())
        self.class_names: Mapping[str, tuple[str, ...]] = classes

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return batch


@pytest.mark.parametrize(
    ("outputs", "dtype", "labels", "classes", "n"),
    [
        ({"prob": (10,)}, "float32", (), {}, 5),
        ({"prob": (1, 1, 1000)}, "float16", (), {}, 5),
        ({"prob": (10,)}, "int64", (), {}, 0),
        ({"prob": (10,)}, "object", (), {}, 0),
        ({"price": (1,)}, "float32", (), {}, 0),
        ({"price": ()}, "float32", (), {}, 0),
        ({"y": (None,)}, "float32", (), {}, 0),
        ({"y": None}, "float32", (), {}, 0),
        ({"y": (None,)}, "float32", ("cat", "dog"), {}, 5),
        ({"sentence_embedding": (384,)}, "float32", (), {}, 0),
        ({"boxes": (100, 4)}, "float32", (), {}, 0),
        ({"a": (10,), "b": (10,)}, "float32", (), {}, 0),
        ({"a": (10,), "b": (10,)}, "float32", (), {"b": ("cat", "dog")}, 5),
    ],
)
def test_auto_serves_the_best_classes_of_one_vector_of_scores(
    outputs: dict[str, tuple[int | None, ...] | None],
    dtype: str,
    labels: tuple[str, ...],
    classes: dict[str, Any],
    n: int,
) -> None:
    served = served_of(Described(outputs, dtype, classes), labels)
    assert served.post_processing == PostProcessing(n)
    assert served.ranked == (frozenset(classes) if classes else None)
    assert served.labels == (labels or next(iter(classes.values()), ()))


def test_only_what_is_ranked_loses_its_other_values() -> None:
    (answer,) = answers({"a": np.ones((1, 3)), "b": np.array([[0.0, 1.0]])}, 1, 1, ("cat", "dog"), only={"b"})
    assert isinstance(answer.outputs["a"], np.ndarray)
    assert isinstance(answer.outputs["b"], TopClasses)
