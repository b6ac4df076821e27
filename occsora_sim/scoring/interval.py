"""How sure a mean is: confidence intervals by the bootstrap."""

from __future__ import annotations

import numpy as np

from occsora_sim.errors import ConfigurationError

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
