"""Confidence intervals of a mean."""

import numpy as np
import pytest

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import CAR, DRIVEABLE, FREE
from occsora_sim.scoring.confusion import Confusion
from occsora_sim.scoring.interval import mean_interval, pooled_intervals


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


def scene(hits: int, misses: int) -> Confusion:
    """A scene of cars, of which some are found, and of road that always is."""
    part = Confusion()
    part.counts[CAR, CAR], part.counts[CAR, FREE] = hits, misses
    part.counts[DRIVEABLE, DRIVEABLE] = 100
    return part


def ends(scenes: list[Confusion]) -> tuple[float, float]:
    found = pooled_intervals(scenes)["dynamic_miou"]
    assert found is not None
    return found


def test_scenes_that_agree_leave_no_doubt_and_one_scene_tells_nothing():
    alike = pooled_intervals([scene(60, 40)] * 5)
    assert alike["dynamic_miou"] == pytest.approx((0.6, 0.6)) and alike["miou"] == pytest.approx((0.8, 0.8))
    assert pooled_intervals([scene(60, 40)]) == {"miou": None, "dynamic_miou": None}


def test_the_pooled_interval_holds_the_pooled_figure_and_widens_with_disagreement():
    scenes = [scene(20 + 10 * k, 80 - 10 * k) for k in range(7)]
    low, high = ends(scenes)
    assert low < Confusion.pooled(scenes).metrics()["dynamic_miou"] < high and high - low > 0.15
    calm_low, calm_high = ends([scene(48 + k, 52 - k) for k in range(7)])
    assert calm_high - calm_low < 0.1 * (high - low)


def test_a_steady_gain_is_sure_although_the_scenes_differ():
    scenes = [scene(20 + 10 * k, 80 - 10 * k) for k in range(7)]
    better = [scene(25 + 10 * k, 75 - 10 * k) for k in range(7)]
    assert pooled_intervals(better, scenes)["dynamic_miou"] == pytest.approx((0.05, 0.05))
