"""How well two lists of scores agree: linear and rank correlation, and how sure they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from occsora_sim.errors import ConfigurationError
from occsora_sim.scoring.interval import RESAMPLES


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """The linear correlation of x (n,) and y (n,), in [-1, 1] (Pearson 1896).

    None where it is not defined: one of the lists does not vary.

    Raises:
        ConfigurationError: not two lists of the same length of two finite numbers or more.

    """
    x, y = _pair(x, y)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return None if size <= 1e-12 * len(x) else float(np.clip(x @ y / size, -1.0, 1.0))


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """The rank correlation of x (n,) and y (n,), in [-1, 1] (Spearman 1904): Pearson's of the ranks.

    None and errors as of `pearson`.
    """
    x, y = _pair(x, y)
    return pearson(ranks(x), ranks(y))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks (n,) float64 from 1, the least first; equal values share the mean of the places that they take."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[where]


def correlation_interval(
    measure: Callable[[np.ndarray, np.ndarray], float | None],
    x: np.ndarray,
    y: np.ndarray,
    generator: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = RESAMPLES // 4,
) -> tuple[float, float] | None:
    """The percentile interval of a correlation of means over episodes, by the bootstrap (see `mean_interval`).

    The episodes are drawn again with replacement, the same for all policies and both worlds, because every policy
    drives the same ones. The policies are not drawn again: the interval holds for these.

    Args:
        measure: `pearson` or `spearman`.
        x: (p, n) scores of p policies over n episodes in one world.
        y: (p, n) in the other.
        generator: draws the samples.
        confidence: in (0, 1).
        resamples: how many.

    Returns:
        its ends, low and high; None where the measure is not defined for most samples.

    Raises:
        ConfigurationError: the shapes disagree, or `confidence` is out of range.

    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 2 or x.shape != y.shape or not x.size:
        raise ConfigurationError(f"correlation: scores of {x.shape} and {y.shape}; both must be (p, n)")
    if not 0 < confidence < 1:
        raise ConfigurationError(f"correlation: confidence {confidence} must lie between 0 and 1")
    drawn = generator.integers(x.shape[1], size=(resamples, x.shape[1]))
    found = [measure(x[:, rows].mean(axis=1), y[:, rows].mean(axis=1)) for rows in drawn]
    known = [value for value in found if value is not None]
    if len(known) < resamples / 2:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, (tail, 1 - tail))
    return float(low), float(high)


def _pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2 or not (np.isfinite(x) & np.isfinite(y)).all():
        raise ConfigurationError(
            f"correlation: needs two lists of the same length, two finite numbers or more each, got {x.shape} "
            f"and {y.shape}"
        )
    return x, y
