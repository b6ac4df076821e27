"""The ground's books of tokens and of the plan's patterns from recorded places; how well tokens give ground back."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from occsora_sim.models.ground.model import GroundConfig, GroundModel
from occsora_sim.models.ground.palette import GROUPS, group_of
from occsora_sim.models.ground.plan import common_patterns, groups_of_cells, patterns_of
from occsora_sim.models.ground.tokenizer import PATCH, GroundTokenizer, common_squares
from occsora_sim.training.ground.crops import CropSampler, columns_of, tokens_seen
from occsora_sim.training.ground.towns import GroundTowns

_CROPS_A_PLACE, _CROPS = 100, 3000
"""Crops of a place, and of all at most, whose squares are counted; of the plan, which are larger, an eighth of it."""

_BATCH, _SEED = 50, 2**32 - 1


def vocabulary(towns: GroundTowns, config: GroundConfig, reach: float) -> dict[str, Tensor]:
    """What a ground model is made of: "palette", "book" of the commonest squares, "patterns" of the plan's book; from
    crops within `reach` [m] of egos.
    """
    most = min(_CROPS, _CROPS_A_PLACE * len(towns.names))
    squares, patterns = [], []
    fine = CropSampler(towns, columns_of(config.fine), config.column, reach, seed=_SEED)
    for step in range(-(-most // _BATCH)):
        crops = fine.draw(_BATCH, step)
        seen = tokens_seen(crops.seen, PATCH)
        parts = rearrange(crops.kinds, "n (x p) (y q) -> n x y p q", p=PATCH, q=PATCH)
        squares.append(parts[seen])
    coarse = CropSampler(towns, columns_of(config.plan), config.column, reach, seed=_SEED)
    for step in range(-(-most // (8 * _BATCH))):
        crops = coarse.draw(_BATCH, step)
        seen = tokens_seen(crops.seen, 2 * PATCH)
        patterns.append(patterns_of(groups_of_cells(crops.kinds, towns.palette))[seen])
    return {
        "palette": towns.palette,
        "book": common_squares(torch.cat(squares), config.codes),
        "patterns": common_patterns(torch.cat(patterns), config.patterns),
    }


def set_vocabulary(ground: GroundModel, words: dict[str, Tensor]) -> None:
    """Give an untrained model what `vocabulary` found."""
    ground.palette.copy_(words["palette"])
    ground.fine.contents.copy_(words["book"])
    ground.plan.contents.copy_(words["patterns"])


def edges(kinds: Tensor) -> Tensor:
    """Columns (b, x, y) that have another kind beside them, bool."""
    along, across = kinds[:, 1:] != kinds[:, :-1], kinds[:, :, 1:] != kinds[:, :, :-1]
    along, across = along.float(), across.float()
    around = F.pad(along, (0, 0, 1, 0)) + F.pad(along, (0, 0, 0, 1))
    return (around + F.pad(across, (1, 0)) + F.pad(across, (0, 1))) > 0


@torch.no_grad()
def ceiling(tokenizer: GroundTokenizer, kinds: Tensor) -> dict[str, Any]:
    """How well crops (n, x, y) come back: shares of columns right in all, at edges, by group, and the groups' IoU."""
    back = torch.cat([tokenizer.decode(tokenizer.encode(part)) for part in kinds.split(16)])
    right, group = back == kinds, group_of(tokenizer.palette)
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
