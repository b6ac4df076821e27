"""The ground's tokenizer from recorded towns, and how well it gives ground back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from occsora_sim.models.ground.palette import GROUPS, group_of
from occsora_sim.models.ground.tokenizer import GroundTokenizer, common_squares
from occsora_sim.training.ground.towns import GroundTowns


def make_tokenizer(towns: GroundTowns, crops: int = 2000, seed: int = 0) -> GroundTokenizer:
    """A tokenizer with the commonest squares of that many crops of 64 m."""
    rng = np.random.default_rng((seed, 1))
    kinds = torch.cat([towns.draw(100, 160, rng).kinds for _ in range(-(-crops // 100))])
    return GroundTokenizer(towns.palette, common_squares(kinds))


def edges(kinds: Tensor) -> Tensor:
    """Columns (b, x, y) that have another kind beside them, bool."""
    along, across = kinds[:, 1:] != kinds[:, :-1], kinds[:, :, 1:] != kinds[:, :, :-1]
    along, across = along.float(), across.float()
    around = F.pad(along, (0, 0, 1, 0)) + F.pad(along, (0, 0, 0, 1))
    return (around + F.pad(across, (1, 0)) + F.pad(across, (0, 1))) > 0


@torch.no_grad()
def ceiling(model: GroundTokenizer, kinds: Tensor, palette: Tensor) -> dict[str, Any]:
    """How well crops (n, x, y) come back: shares of columns right in all, at edges, by group, and the groups' IoU."""
    back = torch.cat([model.decode(model.encode(part)) for part in kinds.split(16)])
    right, group = back == kinds, group_of(palette)
    truth, found, edge = group[kinds.int()], group[back.int()], edges(kinds)
    by_group = {
        name: {
            "share": float((truth == k).float().mean()),
            "right": float(right[truth == k].float().mean()),
            "iou": float(((truth == k) & (found == k)).sum() / ((truth == k) | (found == k)).sum()),
        }
        for k, name in enumerate(GROUPS)
        if (truth == k).any()
    }
    return {
        "right": float(right.float().mean()),
        "group right": float((truth == found).float().mean()),
        "right at edges": float(right[edge].float().mean()),
        "share of edges": float(edge.float().mean()),
        "groups": by_group,
    }
