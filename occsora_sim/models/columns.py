"""Columns of voxels: the vertical axis folded into features, computed once per distinct column.

A driving scene of 40,000 columns holds a few hundred distinct ones (road, pavement, wall, car side...), so the
encoder looks up the distinct columns of a batch, runs a small network on those, and scatters the result.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from occsora_sim.grid import (
    BICYCLE,
    DRIVEABLE,
    FREE,
    NUM_CLASSES,
    TERRAIN,
    TRAFFIC_CONE,
    TRUCK,
)

UNSEEN = 255
"""Label of a voxel that no frame has shown yet. It occurs in what is known of the ground, never in observations."""

_MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64  # the golden ratio's bits, as a signed number


def is_dynamic(labels: Tensor) -> Tensor:
    """True where a uint8 label of any shape is a road user's (`grid.DYNAMIC`, written as comparisons for speed)."""
    return (labels >= BICYCLE) & (labels <= TRUCK) & (labels != TRAFFIC_CONE)


def is_ground(labels: Tensor) -> Tensor:
    """True where a uint8 label of any shape is of what one stands on (`grid.FLAT`)."""
    return (labels >= DRIVEABLE) & (labels <= TERRAIN)


def without_road_users(labels: Tensor) -> Tensor:
    """Labels with road users' voxels set free; what stands still is left."""
    return torch.where(is_dynamic(labels), torch.full_like(labels, FREE), labels)


def distinct_columns(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct columns of labels (n, x, y, z) uint8: palette (k, z) uint8 and index (n * x * y,) int64."""
    z = labels.shape[-1]
    flat = labels.reshape(-1, z)
    words = nn.functional.pad(flat, (0, -z % 8)).contiguous().view(torch.int64)  # (n x y, ceil(z / 8))
    # Multiply by an odd number and fold the high bits down, word after word, so that no sum of small differences
    # cancels; a collision among a few thousand columns then has odds of about 1e-12.
    key = torch.zeros(len(words), dtype=torch.int64, device=labels.device)
    for word in words.unbind(1):
        key = (key ^ word) * _MULTIPLIER
        key = key ^ (key >> 32)
    unique, index = torch.unique(key, return_inverse=True)
    first = torch.empty(len(unique), dtype=torch.int64, device=labels.device)
    first[index] = torch.arange(len(flat), device=labels.device)
    return flat[first], index


class ColumnEncoder(nn.Module):
    """Labels of columns to features: class embedding, z folded into channels (as OccSora), then a two-layer network."""

    def __init__(self, height: int, width: int, embedding: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_CLASSES + 1, embedding)  # the last row is UNSEEN
        self.net = nn.Sequential(
            nn.Linear(height * embedding, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, labels: Tensor) -> Tensor:
        """(n, x, y, z) uint8, with UNSEEN allowed -> (n, width, x, y) float32 in channels-last memory."""
        n, x, y, _ = labels.shape
        palette, index = distinct_columns(labels)
        features = self.net(self.embedding(palette.long().clamp(max=NUM_CLASSES)).flatten(1))  # (k, width)
        return features.index_select(0, index).view(n, x, y, -1).permute(0, 3, 1, 2)
