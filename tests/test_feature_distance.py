"""Claims about distances between sets of features, against what is known in closed form."""

import pytest
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.scoring.feature_distance import frechet_distance, kernel_distance, precision_recall


def gaussian(count: int, mean: float = 0.0, spread: float = 1.0, seed: int = 0, d: int = 4) -> torch.Tensor:
    noise = torch.randn(count, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mean + spread * noise


def test_frechet_distance_of_gaussians_is_the_closed_form():
    # |m|^2 + d (s - 1)^2 for isotropic Gaussians
    far = frechet_distance(gaussian(20000), gaussian(20000, mean=0.5, spread=2.0, seed=1))
    assert far == pytest.approx(4 * 0.25 + 4 * 1.0, rel=0.03)
    assert frechet_distance(gaussian(50), gaussian(50)) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_sees_correlation_that_means_and_spreads_hide():
    one = gaussian(20000, d=2)
    line = one[:, :1].expand(-1, 2)  # the same marginals, on a line: 2 + 2 - 2 sqrt(2)
    assert frechet_distance(one, line) == pytest.approx(4 - 2 * 2**0.5, rel=0.03)


def test_kernel_distance_is_zero_on_average_for_one_distribution_and_grows_with_distance():
    same = [kernel_distance(gaussian(40, seed=s), gaussian(40, seed=100 + s)) for s in range(200)]
    drawn = torch.tensor(same)
    assert abs(float(drawn.mean())) < 3 * float(drawn.std()) / 200**0.5 and min(same) < 0
    near, far = (kernel_distance(gaussian(500), gaussian(500, mean=m, seed=1)) for m in (0.3, 1.0))
    assert 0 < near < far


def test_precision_falls_with_bad_samples_and_recall_with_missing_ones():
    left, right = gaussian(300) - 10, gaussian(300, seed=1) + 10
    both = torch.cat((left, right))
    precision, recall = precision_recall(both, gaussian(300, seed=2) - 10)  # half of the modes
    assert precision > 0.9 and recall == pytest.approx(0.5, abs=0.08)
    precision, recall = precision_recall(
        left, torch.cat((gaussian(300, seed=2) - 10, right))
    )  # half nonsense
    assert precision == pytest.approx(0.5, abs=0.08) and recall > 0.9


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(ConfigurationError, match="one width"):
        frechet_distance(gaussian(5, d=3), gaussian(5, d=4))
    with pytest.raises(ConfigurationError, match="4 or more"):
        precision_recall(gaussian(3), gaussian(9))
