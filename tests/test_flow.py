"""Claims about the few-step objective and its sampler, against denoisers that are known exactly."""

from itertools import pairwise

import pytest
import torch

from occsora_sim.models.flow import flow_loss, flow_sample, noise_levels, sampling_levels
from occsora_sim.models.noise import randn


def noise(rows: int, size: int) -> torch.Tensor:
    return randn(
        (rows, size), [torch.Generator().manual_seed(seed) for seed in range(rows)], torch.device("cpu")
    )


def test_levels_fall_from_noise_to_nothing_and_linger_near_noise():
    assert sampling_levels(4, shift=1.0) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert sampling_levels(2, shift=3.0) == pytest.approx([1.0, 0.75, 0.0])
    assert sampling_levels(1) == [1.0, 0.0]


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_a_denoiser_that_knows_the_answer_is_believed(steps):
    answer = torch.linspace(-2, 2, 6).view(2, 3)
    drawn = flow_sample(lambda z, t: answer, noise(2, 3), steps)
    torch.testing.assert_close(drawn, answer)


def gaussian(mean: float, spread: float):
    """The denoiser of x ~ N(mean, spread^2): its conditional mean given z = (1 - t) x + t e. In steps without end it
    makes mean + spread e of noise e.
    """

    def denoise(z, t):
        t = t.view(-1, 1)
        gain = (1 - t) * spread**2 / ((1 - t) ** 2 * spread**2 + t**2)
        return mean + gain * (z - (1 - t) * mean)

    return denoise


def test_samples_of_a_gaussian_have_its_mean_and_spread():
    mean, spread = 0.7, 0.4
    denoise = gaussian(mean, spread)
    drawn = flow_sample(denoise, noise(4, 5000), 64)
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.02)
    assert float(drawn.std()) == pytest.approx(spread, rel=0.08)
    once = flow_sample(denoise, noise(4, 5000), 1)
    assert float((once - mean).abs().max()) < 1e-6  # one step is the mean


@pytest.mark.parametrize(("steps", "nearer"), [(8, 0.95), (16, 0.6), (32, 0.1)])
def test_two_answers_lead_nearer_to_where_each_noise_belongs_than_one(steps, nearer):
    mean, spread = 0.7, 0.4
    denoise = gaussian(mean, spread)
    start = noise(2, 1000)
    euler = start
    for now, after in pairwise(sampling_levels(steps)):
        clean = denoise(euler, torch.full((2,), now))
        euler = clean + (after / now) * (euler - clean)
    drawn = flow_sample(denoise, start, steps)
    missed, euler_missed = ((x - mean - spread * start).abs().mean() for x in (drawn, euler))
    assert float(missed) < nearer * float(euler_missed)


def test_a_step_calls_the_network_once():
    levels = []

    def denoise(z, t):
        levels.append(float(t[0]))
        return torch.zeros_like(z)

    flow_sample(denoise, noise(1, 3), 8)
    assert levels == pytest.approx(sampling_levels(8)[:-1])


def test_a_fifth_of_the_training_levels_is_pure_noise_and_the_rest_between():
    levels = noise_levels(20000, torch.Generator().manual_seed(0))
    assert float((levels == 1).float().mean()) == pytest.approx(0.2, abs=0.01)
    assert float(levels.min()) > 0 and float(levels.max()) == 1.0


def test_the_loss_is_the_weighted_error_of_the_estimate_at_the_levels_asked_for():
    x, level = torch.full((2, 3, 1, 2, 2), 2.0), torch.tensor([1.0, 0.5])
    seen = []

    def denoise(z, t):
        seen.append(t)
        return torch.zeros_like(z)

    weight = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1, 1)
    loss, estimate = flow_loss(denoise, x, weight, torch.Generator().manual_seed(0), level)
    assert torch.equal(seen[0], level) and float(estimate.abs().max()) == 0
    assert float(loss) == pytest.approx((4 * 1 / 1.0 + 4 * 3 / 0.5) / 2)
