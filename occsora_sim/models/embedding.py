"""The class embedding: labels to channels with z folded in, and back by similarity (OccSora, OccWorld)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F


class ClassEmbedding(nn.Module):
    """One vector a class, shared by the way in and the way out."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(classes, width))

    def encode(self, occupancy: torch.Tensor) -> torch.Tensor:
        """Labels (b, t, x, y, z), any integer type -> (b, z * width, t, x, y)."""
        vectors: torch.Tensor = self.vectors
        device = vectors.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            vectors = vectors.to(torch.get_autocast_dtype(device))  # autocast itself leaves look-ups alone
        # int32 halves the index memory of a clip (20 million voxels) against int64.
        return rearrange(F.embedding(occupancy.int(), vectors), "b t x y z c -> b (z c) t x y")

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        """Features (b, z * width, t, x, y) -> logits (b, t, x, y, z, classes): dot products."""
        width = self.vectors.shape[1]
        return rearrange(features, "b (z c) t x y -> b t x y z c", c=width) @ self.vectors.T
