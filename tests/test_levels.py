"""Claims on the diffusion of finite levels: what is likely, expected and lost, and the noise that follows from it."""

import math

import pytest
import torch

from occsora_sim.models.ddpm import cosine_schedule, ddpm_sample
from occsora_sim.models.levels import Levels

SCHEDULE = cosine_schedule(100)
LEVELS = Levels((3, 2), 1.5)
CLEAN = torch.tensor([[-1.5, 0.0, 1.5], [-1.5, 1.5, 1.5]]).view(1, 2, 1, 1, 3)
"""Levels 0, 1, 2 of three, and 0, 1, 1 of two."""


def certain(latent: torch.Tensor) -> torch.Tensor:
    """An answer (b, c l, t, h, w) that is sure of every level."""
    logits = torch.nn.functional.one_hot(LEVELS.of(latent), 3).float() * 100  # (b, c, t, h, w, l)
    return logits.movedim(-1, 2).flatten(1, 2)


def test_levels_are_evenly_spaced_and_known_by_their_numbers():
    assert LEVELS.logits == 6 and LEVELS.values[0].tolist() == [-1.5, 0.0, 1.5]
    assert LEVELS.of(CLEAN).flatten(1).tolist() == [[0, 1, 2, 0, 1, 1]]


def test_what_is_sure_is_expected_and_what_is_not_is_the_mean_of_a_channels_own_levels():
    torch.testing.assert_close(LEVELS.expected(certain(CLEAN)), CLEAN)
    unsure = torch.zeros(1, 6, 1, 1, 3)
    unsure[:, 0] = math.log(3.0)  # the lowest of three: 3 of 5 parts
    expected = LEVELS.expected(unsure)
    torch.testing.assert_close(expected[0, :, 0, 0, 0], torch.tensor([-1.5 * 3 / 5 + 1.5 / 5, 0.0]))


@pytest.mark.parametrize(("answer", "loss"), [("sure", 0.0), ("even", (math.log(3) + math.log(2)) / 2)])
def test_the_loss_is_the_cross_entropy_of_the_levels(answer, loss):
    answers = {"sure": certain(CLEAN), "even": torch.zeros(1, 6, 1, 1, 3)}
    value, logs = LEVELS.loss(
        lambda noisy, step: answers[answer], CLEAN, SCHEDULE, torch.Generator().manual_seed(0)
    )
    assert value.item() == pytest.approx(loss, abs=1e-6) and logs["loss"] == value.item()


def test_the_noise_of_an_answer_is_what_is_left_of_the_noisy_latent():
    noise, step = torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(0)), torch.tensor([60])
    kept = SCHEDULE.kept[60].float()
    noisy = kept.sqrt() * CLEAN + (1 - kept).sqrt() * noise
    found, variance = LEVELS.as_noise(certain(CLEAN), noisy, SCHEDULE, step).chunk(2, dim=1)
    torch.testing.assert_close(found, noise)
    assert (variance == -1).all()


def test_a_network_that_knows_the_clip_draws_it():
    def knows(noisy: torch.Tensor, step: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return LEVELS.as_noise(certain(CLEAN.expand_as(noisy)), noisy, SCHEDULE, step)

    noise = torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(1))
    for steps in (1, 7, 100):
        drawn = ddpm_sample(knows, noise, SCHEDULE, steps, [torch.Generator().manual_seed(2)], guidance=2.0)
        torch.testing.assert_close(drawn, CLEAN, atol=1e-3, rtol=0)
