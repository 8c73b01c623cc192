"""Equal but for rounding, and nothing else."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from beam_serving.models.trial.compare import all_equal, difference, equal

FLOATS = some.arrays(np.float32, st.integers(0, 9), elements=st.floats(width=32))


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@given(FLOATS)
def test_what_is_the_same_is_equal(array: np.ndarray) -> None:
    assert equal(array, array.copy())
    assert difference(array, array.copy()) == 0


@given(some.arrays(np.float32, 5, elements=st.floats(-1e6, 1e6, width=32)), st.integers(0, 4))
def test_rounding_is_no_difference_and_a_percent_of_the_largest_is(array: np.ndarray, place: int) -> None:
    largest = float(np.abs(array).max())
    assume(largest > 1e-3)
    rounded, changed = array.astype(np.float64), array.astype(np.float64)
    rounded[place] += largest * 1e-6
    changed[place] += largest * 0.05
    assert equal(rounded.astype(np.float32), array)
    assert not equal(changed.astype(np.float32), array)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f32(1), np.array([1.0])),
        (f32(1), f32(1, 1)),
        (f32(1), np.array(1, np.float32)),
        (f32(np.nan), f32(1)),
        (f32(1), f32(np.nan)),
        (f32(np.inf), f32(-np.inf)),
        (f32(np.inf, 1), f32(1, np.inf)),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([True]), np.array([False])),
        (np.array(["a"], object), np.array(["b"], object)),
        (np.array(["a"], object), np.array([b"a"], object)),
    ],
)
def test_anything_else_is_a_difference(one: np.ndarray, other: np.ndarray) -> None:
    assert difference(one, other) == float("inf")
    assert not equal(one, other)
    assert not equal(one, other, coarse=True)


def test_float16_is_compared_as_coarsely_as_it_is() -> None:
    assert equal(np.array([1.001], np.float16), np.array([1.0], np.float16))
    assert not equal(f32(1.01), f32(1))
    assert equal(f32(1.01), f32(1), coarse=True)


def test_small_values_beside_large_ones_are_judged_by_the_large_ones() -> None:
    assert equal(f32(1000, 0.01), f32(1000, 0.001))
    assert not equal(f32(1, 0.01), f32(1, 0.001))
    assert difference(f32(4, 1), f32(4, 2)) == pytest.approx(0.25)


def test_all_outputs_must_be_there() -> None:
    assert all_equal([f32(1)], [f32(1)])
    assert not all_equal([f32(1)], [f32(1), f32(1)])
    assert not all_equal([f32(1), f32(2)], [f32(1), f32(1)])
