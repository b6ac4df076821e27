"""Claims on the correlations, with known answers."""

import numpy as np
import pytest

from occsora_sim.errors import ConfigurationError
from occsora_sim.scoring.correlation import correlation_interval, pearson, ranks, spearman


def test_a_line_correlates_fully_and_a_falling_one_against_it():
    x = np.array([0.1, 0.4, 0.2, 0.9])
    assert pearson(x, 3 * x + 1) == pytest.approx(1.0) and pearson(x, -x) == pytest.approx(-1.0)
    assert spearman(x, -x) == pytest.approx(-1.0)


def test_any_rising_curve_has_the_same_ranks():
    x = np.array([0.1, 0.4, 0.2, 0.9, 0.5])
    assert spearman(x, np.exp(9 * x)) == pytest.approx(1.0)
    linear = pearson(x, np.exp(9 * x))
    assert linear is not None and linear < 0.9


def test_pearson_by_hand():
    # Deviations (-1, 0, 1) and (-1, 1, 0): 1 / sqrt(2 * 2).
    assert pearson(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 1.0])) == pytest.approx(0.5)


def test_spearman_by_hand():
    # Rank differences 0, 1, -1, 0, 0: 1 - 6 * 2 / (5 * 24).
    assert spearman(np.arange(5.0), np.array([0.0, 2.0, 1.0, 3.0, 4.0])) == pytest.approx(0.9)


def test_ties_share_the_mean_of_their_ranks():
    assert ranks(np.array([0.0, 0.0, 0.7, 0.2])).tolist() == [1.5, 1.5, 4.0, 3.0]
    assert ranks(np.array([5.0, 5.0, 5.0])).tolist() == [2.0, 2.0, 2.0]
    # Ranks (1.5, 1.5, 3) and (1, 2, 3): deviations (-.5, -.5, 1) and (-1, 0, 1).
    assert spearman(np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(1.5 / np.sqrt(3))


def test_a_list_that_does_not_vary_has_no_correlation():
    assert pearson(np.zeros(3), np.arange(3.0)) is None
    assert spearman(np.arange(3.0), np.full(3, 0.3)) is None


@pytest.mark.parametrize(
    ("x", "y"), [([1.0], [1.0]), ([1.0, 2.0], [1.0, 2.0, 3.0]), ([1.0, np.nan], [1.0, 2.0])]
)
def test_what_is_no_pair_of_lists_is_refused_in_one_line(x, y):
    with pytest.raises(ConfigurationError, match=r"^[^\n]+$"):
        spearman(np.array(x), np.array(y))


def test_the_interval_holds_the_correlation_and_narrows_with_the_episodes():
    generator = np.random.default_rng(0)
    skill = np.linspace(0, 1, 8)[:, None]

    def interval(episodes):
        x, y = (skill + generator.normal(0, 0.5, (8, episodes)) for _ in range(2))
        found = correlation_interval(spearman, x, y, np.random.default_rng(1))
        assert found is not None
        low, high = found
        return low, spearman(x.mean(axis=1), y.mean(axis=1)), high

    low, value, high = interval(8)
    assert -1 <= low <= value <= high <= 1
    many = interval(400)
    assert many[2] - many[0] < (high - low) / 2


def test_the_interval_of_certain_scores_is_a_point():
    scores = np.repeat(np.array([[0.1], [0.5], [0.4]]), 4, axis=1)
    assert correlation_interval(pearson, scores, 2 * scores, np.random.default_rng(0)) == pytest.approx(
        (1, 1)
    )
    assert correlation_interval(pearson, 0 * scores, scores, np.random.default_rng(0)) is None
    with pytest.raises(ConfigurationError, match=r"^[^\n]+$"):
        correlation_interval(pearson, scores, scores[:2], np.random.default_rng(0))
