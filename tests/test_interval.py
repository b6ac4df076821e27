"""Confidence intervals of a mean."""

import numpy as np
import pytest

from occsora_sim.errors import ConfigurationError
from occsora_sim.scoring.interval import mean_interval


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_interval_is_that_of_the_normal_distribution_for_many_values():
    values = rng(1).normal(5.0, 2.0, size=400)
    low, high = mean_interval(values, rng())
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_nineteen_of_twenty_intervals_hold_the_true_mean():
    inside = 0
    for trial in range(200):
        low, high = mean_interval(rng(trial).uniform(size=40), rng(trial), resamples=500)
        inside += low <= 0.5 <= high
    assert 0.90 <= inside / 200 <= 0.98


def test_equal_values_have_no_width_and_the_seed_decides():
    assert mean_interval(np.full(5, 0.25), rng()) == (0.25, 0.25)
    assert mean_interval(np.array([0.7]), rng()) == (0.7, 0.7)
    values = np.array([0.0, 1.0, 1.0, 0.5])
    assert mean_interval(values, rng(3)) == mean_interval(values, rng(3))
    narrow, wide = (mean_interval(values, rng(), confidence=c) for c in (0.5, 0.95))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize("values", [[], [[1.0]], [np.nan, 1.0]])
def test_values_without_a_mean_are_refused(values):
    with pytest.raises(ConfigurationError, match=r"^[^\n]+$"):
        mean_interval(np.array(values), rng())
    with pytest.raises(ConfigurationError, match="confidence"):
        mean_interval(np.ones(3), rng(), confidence=95)
