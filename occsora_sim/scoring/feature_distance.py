"""How far two sets of features are apart: Frechet and kernel distance, precision and recall."""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.errors import ConfigurationError


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of features (n, d) and (m, d) (Heusel et al. 2017).

    It is biased upwards where n or m is not much larger than d: hold it against a floor of the same sizes.
    """
    _check(a, b)
    mean = a.mean(0) - b.mean(0)
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    # tr (C_a C_b)^(1/2) = tr (S C_b S)^(1/2) with S the root of C_a, which is symmetric: no complex roots.
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return max(0.0, float(mean @ mean + cov_a.trace() + cov_b.trace() - 2 * cross))


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x . y / d + 1)^3 of features (n, d) and (m, d)
    (Binkowski et al. 2018, equation 4). It can be negative: zero is its mean for equal distributions, whatever n.
    """
    _check(a, b)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        k = kernel(x, x)
        return (k.sum() - k.trace()) / (len(x) * (len(x) - 1))

    return float(within(a) + within(b) - 2 * kernel(a, b).mean())


def precision_recall(real: Tensor, made: Tensor, k: int = 3) -> tuple[float, float]:
    """Share of `made` (m, d) that lies within the manifold of `real` (n, d), and the other way round; a manifold is the
    union of balls that reach from each point to its k-th neighbour (Kynkaanniemi et al. 2019, equation 2).

    Raises:
        ConfigurationError: either set holds k points or fewer.

    """
    _check(real, made, k + 1)

    def covered(points: Tensor, by: Tensor) -> float:
        radius = torch.cdist(by, by).topk(k + 1, largest=False).values[:, -1]  # the first neighbour is itself
        return float((torch.cdist(points, by) <= radius).any(1).double().mean())

    return covered(made, real), covered(real, made)


def _check(a: Tensor, b: Tensor, least: int = 2) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < least:
        raise ConfigurationError(
            f"features of shape {tuple(a.shape)} and {tuple(b.shape)}: give two sets of {least} or more, of one width"
        )
