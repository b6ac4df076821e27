"""Claims about the DDPM schedule, loss and sampler."""

import math

import pytest
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.models.ddpm import cosine_schedule, ddpm_loss, ddpm_sample, linear_schedule, respaced

SCHEDULE = linear_schedule(1000)


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def gaussian_answer(mean: float, variance: float, schedule=SCHEDULE):
    """The exact network for data N(mean, variance): its noise estimate, and the least variance."""

    def answer(noisy, step, keep=None):
        kept = schedule.kept[step].float().view(-1, *[1] * (noisy.ndim - 1))
        total = kept * variance + 1 - kept  # of the noisy data
        noise = (1 - kept).sqrt() * (noisy - kept.sqrt() * mean) / total
        return torch.cat([noise, -torch.ones_like(noise)], dim=1)

    return answer


def test_the_linear_schedule_is_the_papers():
    assert SCHEDULE.betas[0].item() == pytest.approx(1e-4) and SCHEDULE.betas[-1].item() == pytest.approx(
        0.02
    )
    assert SCHEDULE.kept[-1].item() == pytest.approx(4.04e-5, rel=0.01)
    with pytest.raises(ConfigurationError):
        linear_schedule(5)


def test_the_cosine_schedule_has_a_quarter_of_the_papers_signal_to_noise():
    kept = cosine_schedule(1000).kept
    middle = 495  # (496 / 1000 + 0.008) / 1.008 is a half: as much signal as noise in the paper's
    assert kept[middle].item() == pytest.approx(0.2, abs=1e-3)
    assert (
        kept[0].item() == pytest.approx(1.0, abs=1e-3) and kept[-1].item() < 1e-6 and (kept.diff() < 0).all()
    )


@pytest.mark.parametrize("count", [1, 2, 10, 250, 1000])
def test_a_respaced_schedule_keeps_the_same_signal_at_its_steps(count):
    short = respaced(SCHEDULE, count)
    assert len(short) == count and short.steps[-1] == 999
    assert count == 1 or short.steps[0] == 0
    torch.testing.assert_close(short.kept, SCHEDULE.kept[short.steps])


def test_more_steps_than_the_schedule_has_are_refused():
    with pytest.raises(ConfigurationError, match="1 to 1000"):
        respaced(SCHEDULE, 1001)


def test_noise_comes_in_with_the_schedules_variance():
    clean = torch.full((2, 1, 20000), 2.0)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    places = torch.tensor([0, 500])
    seen = []

    def silent(noisy, step):
        seen.append(noisy)
        return torch.zeros_like(torch.cat([noisy, noisy], dim=1))

    ddpm_loss(silent, clean, SCHEDULE, noise=noise, places=places)
    (noisy,) = seen
    for row, place in enumerate(places):
        kept = SCHEDULE.kept[place].item()
        assert noisy[row].mean().item() == pytest.approx(2 * math.sqrt(kept), abs=0.02)
        assert noisy[row].var().item() == pytest.approx(1 - kept, rel=0.05)


def test_loss_of_a_silent_network_is_the_noise_and_the_bound_of_its_step():
    clean, noise = torch.zeros(1, 1, 4), torch.tensor([[[1.0, -1.0, 2.0, 0.0]]])

    def silent(noisy, step):
        return torch.cat([torch.zeros_like(noisy), -torch.ones_like(noisy)], dim=1)  # least variance

    place = 600
    _, logs = ddpm_loss(silent, clean, SCHEDULE, noise=noise, places=torch.tensor([place]))
    assert logs["noise_error"] == pytest.approx(6 / 4)
    # Equal variances leave the gap of the means; on the noise its weight is that of DDPM's equation 12.
    beta, kept, before = SCHEDULE.betas[place], SCHEDULE.kept[place], SCHEDULE.kept[place - 1]
    variance = beta * (1 - before) / (1 - kept)
    weight = beta**2 / (2 * variance * (1 - beta) * (1 - kept))
    assert logs["bound"] == pytest.approx((weight * 6 / 4 / math.log(2)).item(), rel=1e-3)


def test_a_perfect_network_costs_nothing_at_inner_steps():
    clean, noise = torch.randn(2, 3, 5, generator=seeded(1)[0]), torch.randn(2, 3, 5, generator=seeded(2)[0])

    def perfect(noisy, step):
        return torch.cat([noise, -torch.ones_like(noise)], dim=1)

    loss, _ = ddpm_loss(perfect, clean, SCHEDULE, noise=noise, places=torch.tensor([400, 900]))
    assert abs(loss.item()) < 1e-4


def test_the_variance_ranges_from_the_posteriors_to_beta():
    # At the second step these differ by half. True noise, so the divergence is of the variances alone.
    noise = torch.ones(1, 1, 4)
    kept, before = SCHEDULE.kept[1], SCHEDULE.kept[0]
    ratio = ((1 - before) / (1 - kept)).item()  # posterior variance over beta
    for position, expected in ((-1.0, 0.0), (1.0, 0.5 * (-math.log(ratio) + ratio - 1) / math.log(2))):
        answered = torch.cat([noise, torch.full_like(noise, position)], dim=1)

        def answer(noisy, step, answered=answered):
            return answered

        _, logs = ddpm_loss(answer, torch.zeros(1, 1, 4), SCHEDULE, noise=noise, places=torch.tensor([1]))
        assert logs["bound"] == pytest.approx(expected, abs=1e-4)


def test_the_bound_teaches_the_variance_and_not_the_noise():
    clean, noise = torch.zeros(1, 1, 4), torch.ones(1, 1, 4)
    estimate, range_ = torch.zeros(1, 1, 4, requires_grad=True), torch.zeros(1, 1, 4, requires_grad=True)
    loss, _ = ddpm_loss(
        lambda noisy, step: torch.cat([estimate, range_], dim=1),
        clean,
        SCHEDULE,
        noise=noise,
        places=torch.tensor([300]),
    )
    loss.backward()
    torch.testing.assert_close(estimate.grad, -2 * (noise - 0) / 4)  # of the squared error alone
    assert range_.grad is not None and range_.grad.abs().max() > 0


def test_the_first_step_is_scored_by_its_bins_and_stays_finite():
    zeros = torch.zeros(1, 1, 4)
    for error in (0.0, 100.0):
        answered = torch.cat([zeros + error, zeros - 1], dim=1)

        def answer(noisy, step, answered=answered):
            return answered

        loss, logs = ddpm_loss(answer, zeros, SCHEDULE, noise=zeros, places=torch.tensor([0]))
        assert math.isfinite(loss.item())
        if (
            error == 0
        ):  # the mass of a Gaussian within half a bin of its mean; its variance is the second step's
            kept, before = SCHEDULE.kept[1], SCHEDULE.kept[0]
            spread = (SCHEDULE.betas[1] * (1 - before) / (1 - kept)).sqrt().item()
            expected = -math.log2(math.erf(1 / 255 / (spread * math.sqrt(2))))
            assert logs["bound"] == pytest.approx(expected, rel=1e-3)
        else:
            assert logs["bound"] > 5


@pytest.mark.parametrize(("steps", "tolerance"), [(1000, 0.02), (100, 0.08)])
def test_sampling_with_the_exact_noise_gives_the_datas_mean_and_spread(steps, tolerance):
    # The least variance is a little too small at each step, and the more so the longer the steps are.
    x = torch.randn(2, 1, 4000, generator=torch.Generator().manual_seed(9))
    drawn = ddpm_sample(gaussian_answer(3.0, 0.25), x, SCHEDULE, steps, seeded(0, 1))
    assert drawn.mean().item() == pytest.approx(3.0, abs=0.03)
    assert drawn.std().item() == pytest.approx(0.5, rel=tolerance)


def test_one_step_gives_the_clean_estimate():
    drawn = ddpm_sample(gaussian_answer(3.0, 0.0), torch.randn(1, 1, 50), SCHEDULE, 1, seeded(0))
    torch.testing.assert_close(drawn, torch.full_like(drawn, 3.0), rtol=0, atol=1e-3)


def test_guidance_goes_beyond_the_prompt_on_every_channel():
    # Prompted and unprompted data are points at 1 and 0: a weight of 4 extrapolates to 4.
    prompted, free = gaussian_answer(1.0, 0.0), gaussian_answer(0.0, 0.0)

    def answer(noisy, step, keep):
        rows = keep.view(-1, 1, 1)
        return torch.where(rows, prompted(noisy, step), free(noisy, step))

    x = torch.randn(1, 6, 10, generator=torch.Generator().manual_seed(3))
    for weight in (1.0, 4.0):
        drawn = ddpm_sample(answer, x, SCHEDULE, 20, seeded(0), guidance=weight)
        torch.testing.assert_close(drawn, torch.full_like(drawn, weight), rtol=0, atol=0.02)


def test_a_row_is_the_same_alone_and_in_a_batch():
    x = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(4))
    answer = gaussian_answer(0.0, 1.0)
    batch = ddpm_sample(answer, x, SCHEDULE, 10, seeded(1, 2, 3))
    torch.testing.assert_close(batch[1:2], ddpm_sample(answer, x[1:2], SCHEDULE, 10, seeded(2)))
    assert not torch.equal(batch, ddpm_sample(answer, x, SCHEDULE, 10, seeded(1, 5, 3)))


def test_a_loss_without_randomness_is_refused():
    with pytest.raises(ConfigurationError, match="generator"):
        ddpm_loss(gaussian_answer(0.0, 1.0), torch.zeros(1, 1, 2), SCHEDULE)
