"""DDPM with a learned variance: schedule, hybrid loss and respaced ancestral sampling.

Ho et al. 2020 ("DDPM") and Nichol & Dhariwal 2021 ("improved DDPM"), whose equations are cited below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.models.noise import randn

Answer = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(noisy (b, c, ...), step (b,)) -> (b, 2c, ...): the noise, and where the variance lies in its range."""

GuidedAnswer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""As `Answer`, with keep (b,) bool: False where the prompt must be left out."""

BIN = 2.0 / 255.0
"""Width of the bins in the likelihood of the last step.

A density's loss would have no lower bound. The reference keeps the bins of 8-bit images, and so do we."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How fast noise comes in.

    Attributes:
        betas: (n,) float64, the variance added at each step.
        steps: (n,) long, the step numbers that the network knows these by; 0 ... n-1 unless respaced.

    """

    betas: torch.Tensor
    steps: torch.Tensor

    @property
    def kept(self) -> torch.Tensor:
        """(n,) float64: alpha-bar, the share of the signal's variance left after each step."""
        return (1.0 - self.betas).cumprod(0)

    def __len__(self) -> int:
        return len(self.betas)


def linear_schedule(steps: int = 1000) -> Schedule:
    """DDPM's linear schedule (section 4): 1e-4 to 0.02 over 1000 steps, scaled for other numbers."""
    if steps < 20:
        raise ConfigurationError(f"ddpm: {steps} steps are too few for a linear schedule; give 20 at least")
    scale = 1000.0 / steps
    betas = torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64)
    return Schedule(betas=betas, steps=torch.arange(steps))


def cosine_schedule(steps: int = 1000, shift: float = 0.5) -> Schedule:
    """Alpha-bar as a squared cosine (improved DDPM, equation 17), noisier (Hoogeboom et al. 2023, equation 4).

    Fewer steps are nearly all noise than in the linear one. `shift` times the signal: what a token is shows in those
    around it, so that layout is decided where each alone is already lost in noise.
    """
    angles = (torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * math.pi / 2
    signal = shift**2 * angles.cos().square()
    kept = signal / (signal + angles.sin().square())
    return Schedule(betas=(1 - kept[1:] / kept[:-1]).clamp_max(0.999), steps=torch.arange(steps))


SCHEDULES = {"linear": linear_schedule, "cosine": cosine_schedule}


def respaced(schedule: Schedule, count: int) -> Schedule:
    """The same process in `count` steps, evenly spaced from first to last (improved DDPM, section 4).

    Raises:
        ConfigurationError: count is not within 1 to the schedule's own number.

    """
    if not 1 <= count <= len(schedule):
        raise ConfigurationError(f"ddpm: cannot sample in {count} steps; choose 1 to {len(schedule)}")
    # One step alone must be the last, at which sampling starts from pure noise.
    places = torch.linspace(len(schedule) - 1, 0, count, dtype=torch.float64).round().long().flip(0)
    kept = schedule.kept[places]
    before = torch.cat([kept.new_ones(1), kept[:-1]])
    return Schedule(betas=1.0 - kept / before, steps=schedule.steps[places])


@dataclass(frozen=True, kw_only=True)
class _Terms:
    """A schedule's numbers at one place a row, each of shape (b, 1, ...) float32."""

    signal: torch.Tensor  # sqrt(alpha-bar)
    noise: torch.Tensor  # sqrt(1 - alpha-bar)
    from_clean: torch.Tensor  # weights of the posterior mean (DDPM, equation 7)
    from_noisy: torch.Tensor
    log_least: torch.Tensor  # log posterior variance: the smallest that makes sense
    log_most: torch.Tensor  # log beta: the largest


def _terms(schedule: Schedule, places: torch.Tensor, like: torch.Tensor) -> _Terms:
    betas, kept = schedule.betas, schedule.kept
    before = torch.cat([kept.new_ones(1), kept[:-1]])
    posterior = betas * (1 - before) / (1 - kept)
    # The first step's posterior variance is zero: its logarithm is the second's, as in improved DDPM.
    posterior = torch.cat([posterior[1:2], posterior[1:]]) if len(betas) > 1 else betas
    tables = (
        kept.sqrt(),
        (1 - kept).sqrt(),
        before.sqrt() * betas / (1 - kept),
        (1 - betas).sqrt() * (1 - before) / (1 - kept),
        posterior.log(),
        betas.log(),
    )
    shape = (-1, *[1] * (like.ndim - 1))
    picked = [table[places.cpu()].to(like.device, torch.float32).view(shape) for table in tables]
    signal, noise, from_clean, from_noisy, log_least, log_most = picked
    return _Terms(
        signal=signal,
        noise=noise,
        from_clean=from_clean,
        from_noisy=from_noisy,
        log_least=log_least,
        log_most=log_most,
    )


def _reverse(answer: torch.Tensor, noisy: torch.Tensor, terms: _Terms) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and log variance of the step back (DDPM, equations 7 and 15; improved DDPM, equation 15)."""
    noise, range_ = answer.float().chunk(2, dim=1)
    clean = (noisy - terms.noise * noise) / terms.signal
    share = (range_ + 1.0) / 2.0  # -1 is the least variance, 1 the most
    return (
        terms.from_clean * clean + terms.from_noisy * noisy,
        share * terms.log_most + (1 - share) * terms.log_least,
    )


def _bits(values: torch.Tensor) -> torch.Tensor:
    """Nats (b, ...) -> mean bits a number (b,)."""
    return values.flatten(1).mean(1) / math.log(2.0)


def _binned_log_likelihood(x: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Log mass of a Gaussian on the bin around x (DDPM, equation 13, without its open ends)."""
    normal = torch.distributions.Normal(torch.zeros_like(x), torch.ones_like(x), validate_args=False)
    inverse = torch.exp(-0.5 * log_variance)
    upper, lower = inverse * (x - mean + BIN / 2), inverse * (x - mean - BIN / 2)
    return (normal.cdf(upper) - normal.cdf(lower)).clamp_min(1e-12).log()


def ddpm_loss(
    answer: Answer,
    clean: torch.Tensor,
    schedule: Schedule,
    generator: torch.Generator | None = None,
    *,
    noise: torch.Tensor | None = None,
    places: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Hybrid loss: squared error of the noise, and the bound for the variance (improved DDPM, equation 16).

    The bound counts once a step drawn, which is the paper's weight of 1 / 1000 on the sum over 1000 steps; no
    gradient of it reaches the noise estimate.

    Args:
        answer: the network with its conditions bound.
        clean: (b, c, ...) latents, near unit variance or below.
        schedule: a whole one, not respaced.
        generator: of steps and noise; needed unless both are given.
        noise: as clean, in place of a draw.
        places: (b,) long, in place of a draw.

    Returns:
        Scalar loss, and what to log.

    """
    if generator is None and (noise is None or places is None):
        raise ConfigurationError("ddpm: the loss draws noise; give it a generator, or both noise and places")
    device = generator.device if generator is not None else clean.device
    if places is None:
        places = torch.randint(len(schedule), (len(clean),), generator=generator, device=device)
    if noise is None:
        noise = torch.randn(clean.shape, generator=generator, device=device)
    places, noise, clean = places.to(clean.device), noise.to(clean.device), clean.float()
    terms = _terms(schedule, places, clean)
    noisy = terms.signal * clean + terms.noise * noise  # DDPM, equation 4
    given = answer(noisy, schedule.steps.to(clean.device)[places])
    estimate, range_ = given.float().chunk(2, dim=1)
    simple = (estimate - noise).square().flatten(1).mean(1)
    mean, log_variance = _reverse(torch.cat([estimate.detach(), range_], dim=1), noisy, terms)
    true_mean = terms.from_clean * clean + terms.from_noisy * noisy
    # Kullback-Leibler divergence between two Gaussians, true to estimated.
    gap = (true_mean - mean).square() * torch.exp(-log_variance)
    divergence = 0.5 * (
        log_variance - terms.log_least + torch.exp(terms.log_least - log_variance) + gap - 1.0
    )
    last = -_binned_log_likelihood(clean, mean, log_variance)
    bound = torch.where(places == 0, _bits(last), _bits(divergence))
    loss = (simple + bound).mean()
    return loss, {"loss": loss.item(), "noise_error": simple.mean().item(), "bound": bound.mean().item()}


@torch.no_grad()
def ddpm_sample(
    answer: GuidedAnswer,
    x: torch.Tensor,
    schedule: Schedule,
    steps: int,
    generators: Sequence[torch.Generator],
    guidance: float = 1.0,
) -> torch.Tensor:
    """Ancestral sampling (DDPM, algorithm 2) in `steps` of the schedule's steps.

    Classifier-free guidance w (Ho & Salimans 2022), with w counted as the reference does: the noise is
    unprompted + w * (prompted - unprompted), on all channels; the reference guides the first 3 of 128. The
    variance is the prompted one's.

    Args:
        answer: the network. Under guidance it is called on 2b rows: all with the prompt, then all without.
        x: (b, c, ...) standard normal noise.
        schedule: a whole one.
        steps: at most the schedule's number.
        generators: b of them, of the noise of each row.
        guidance: w; 1 leaves the unprompted half out.

    Returns:
        (b, c, ...) float32.

    """
    short = respaced(schedule, steps)
    rows = len(x)
    keep = torch.ones(rows, dtype=torch.bool, device=x.device)
    for place in range(len(short) - 1, -1, -1):
        step = short.steps[place].to(x.device).expand(rows)
        if guidance == 1.0:
            given = answer(x, step, keep)
        else:
            both = answer(torch.cat([x, x]), torch.cat([step, step]), torch.cat([keep, ~keep]))
            prompted, unprompted = both.float().chunk(2)
            noise, range_ = prompted.chunk(2, dim=1)
            free = unprompted.chunk(2, dim=1)[0]
            given = torch.cat([free + guidance * (noise - free), range_], dim=1)
        x, log_variance = _reverse(given, x, _terms(short, torch.full((rows,), place), x))
        if place > 0:  # the last step answers its mean
            x = x + torch.exp(0.5 * log_variance) * randn(x.shape, generators, x.device)
    return x
