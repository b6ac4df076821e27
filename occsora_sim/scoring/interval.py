"""How sure a figure is: confidence intervals by the bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import DYNAMIC, FREE
from occsora_sim.scoring.confusion import Confusion

RESAMPLES = 4000
"""Bootstrap samples; the ends of the interval then move by little between seeds."""


def mean_interval(
    values: np.ndarray, generator: np.random.Generator, confidence: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The percentile interval of the mean (Efron and Tibshirani, An Introduction to the Bootstrap, section 13.3).

    The values are drawn again with replacement, as many as there are; the interval holds the middle `confidence` of
    the means. With few values it is too narrow, and with one it has no width.

    Args:
        values: (n,) one for each episode.
        generator: draws the samples.
        confidence: in (0, 1).
        resamples: how many.

    Returns:
        its ends, low and high.

    Raises:
        ConfigurationError: no values, values that are not finite, or `confidence` out of range.

    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ConfigurationError(f"interval: needs one finite value or more, got an array of {values.shape}")
    if not 0 < confidence < 1:
        raise ConfigurationError(f"interval: confidence {confidence} must lie between 0 and 1")
    drawn = generator.integers(len(values), size=(resamples, len(values)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[drawn].mean(axis=1), (tail, 1 - tail))
    return float(low), float(high)


def pooled_intervals(
    scenes: Sequence[Confusion],
    other: Sequence[Confusion] | None = None,
    *,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> dict[str, tuple[float, float] | None]:
    """Percentile intervals of the pooled `miou` and `dynamic_miou` (`Confusion.metrics`), scenes drawn again with
    replacement: what other scenes of the same kind could have shown.

    Args:
        scenes: counts of each scene.
        other: of a contestant on the same scenes; the intervals are then of the difference to it, scene for scene.
        seed: of the draws.
        confidence: in (0, 1).
        resamples: how many.

    Returns:
        Both ends of each; None with fewer than two scenes, or where a draw holds none of the classes.

    """
    empty: dict[str, tuple[float, float] | None] = {"miou": None, "dynamic_miou": None}
    if len(scenes) < 2:
        return empty
    drawn = np.random.default_rng(seed).integers(len(scenes), size=(resamples, len(scenes)))
    times = torch.from_numpy(np.stack([np.bincount(row, minlength=len(scenes)) for row in drawn])).double()
    values = _drawn_means(scenes, times)
    if other is not None:
        values = values - _drawn_means(other, times)
    tail = (1 - confidence) / 2
    for name, row in zip(empty, values, strict=True):
        if bool(torch.isfinite(row).all()):
            low, high = torch.quantile(row, torch.tensor([tail, 1 - tail], dtype=row.dtype)).tolist()
            empty[name] = (low, high)
    return empty


def _drawn_means(scenes: Sequence[Confusion], times: Tensor) -> Tensor:
    """MIoU and dynamic mIoU (2, r) of r draws that hold each scene `times` (r, scenes) over."""
    counts = torch.stack([scene.counts for scene in scenes]).double()
    pooled = torch.einsum("rs,stp->rtp", times, counts)
    hit, truth = pooled.diagonal(dim1=1, dim2=2), pooled.sum(2)
    iou = torch.where(truth > 0, hit / (truth + pooled.sum(1) - hit), torch.nan)[:, :FREE]
    return torch.stack((iou.nanmean(1), iou[:, list(DYNAMIC)].nanmean(1)))
