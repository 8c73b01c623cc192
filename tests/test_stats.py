"""Histograms of durations: their quantiles are right within 9 %, and they add up."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.stats import STAGES, Histogram, WorkerStats

DURATIONS = some.lists(some.floats(1e-6, 1e6), min_size=1, max_size=200)


def histogram(durations_s: list[float]) -> Histogram:
    recorded = Histogram()
    for duration_s in durations_s:
        recorded.record(duration_s)
    return recorded


@given(DURATIONS, some.floats(0, 1))
def test_a_quantile_is_right_within_nine_percent(durations_s: list[float], share: float) -> None:
    exact = float(np.quantile(durations_s, share, method="inverted_cdf"))
    assert histogram(durations_s).quantile(share) == pytest.approx(exact, rel=0.09)


@given(DURATIONS, some.floats(0, 1), some.floats(0, 1))
def test_a_higher_share_has_no_lower_quantile(durations_s: list[float], one: float, two: float) -> None:
    recorded = histogram(durations_s)
    assert recorded.quantile(min(one, two)) <= recorded.quantile(max(one, two))


@given(DURATIONS, DURATIONS)
def test_histograms_add_up_and_what_is_added_later_can_be_told(earlier: list[float], later: list[float]) -> None:
    both = histogram(earlier) + histogram(later)
    assert both.counts == histogram(earlier + later).counts
    assert both.since(histogram(earlier)).counts == histogram(later).counts


def test_a_duration_may_stand_for_several_records() -> None:
    recorded = Histogram()
    recorded.record(0.001, times=3)
    recorded.record(1.0)
    assert sum(recorded.counts.values()) == 4
    assert recorded.quantile(0.75) == pytest.approx(0.001, rel=0.09)
    assert recorded.quantile(0.76) == pytest.approx(1.0, rel=0.09)


def test_a_histogram_without_records_has_no_quantile() -> None:
    assert math.isnan(Histogram().quantile(0.5))


@pytest.mark.parametrize("duration_s", [0.0, -3.0, 1e-9])
def test_what_is_shorter_than_a_microsecond_counts_as_one(duration_s: float) -> None:
    assert histogram([duration_s]).quantile(0.5) == pytest.approx(1e-6, rel=0.09)


def test_what_is_longer_than_twelve_days_counts_as_twelve() -> None:
    assert histogram([1e300]).quantile(0.5) == pytest.approx(2**40 * 1e-6, rel=0.09)


def test_a_process_has_one_set_of_numbers() -> None:
    assert service_context().stats is service_context().stats
    assert service_context().stats.state == "starting"


def test_a_worker_starts_with_an_empty_histogram_per_stage() -> None:
    stats = WorkerStats()
    assert list(stats.stages) == list(STAGES)
    assert not any(histogram.counts for histogram in stats.stages.values())
    assert not stats.counts
