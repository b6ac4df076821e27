"""Pooled intersection over union: counts per class, gathered over as many frames as one likes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import CLASSES, DYNAMIC, FREE, NUM_CLASSES


class Confusion:
    """Voxels by true and predicted class, pooled over all frames added (the protocol of OccWorld)."""

    def __init__(self) -> None:
        self.counts = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)  # [truth, prediction]

    def add(self, prediction: Tensor, truth: Tensor) -> None:
        """Count frames of labels, uint8 of one shape (..., x, y, z).

        Raises:
            ConfigurationError: the shapes differ.

        """
        if prediction.shape != truth.shape:
            raise ConfigurationError(
                f"confusion: prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} differ"
            )
        joint = truth.flatten().int() * NUM_CLASSES + prediction.flatten().int()
        self.counts += torch.bincount(joint, minlength=NUM_CLASSES**2).view(NUM_CLASSES, NUM_CLASSES).cpu()

    @staticmethod
    def pooled(parts: Sequence[Confusion]) -> Confusion:
        """All frames of `parts`."""
        total = Confusion()
        for part in parts:
            total.counts += part.counts
        return total

    def iou(self) -> Tensor:
        """Intersection over union per class, (NUM_CLASSES,) float64; NaN for a class absent from the truth."""
        hit = self.counts.diagonal().double()
        union = self.counts.sum(0) + self.counts.sum(1) - hit
        return torch.where(self.counts.sum(1) > 0, hit / union, torch.nan)

    def metrics(self) -> dict[str, Any]:
        """`miou` over the classes present in the truth, `dynamic_miou` over the road users among them, `miou_occworld`
        over all 17 with an absent class counting 1 (OccWorld's convention), `iou` of occupied against free, and
        `per_class` (null where absent). All in [0, 1]; free is no class.
        """
        iou = self.iou()[:FREE]
        dynamic = iou[list(DYNAMIC)]
        occupied = self.counts[:FREE, :FREE].sum()
        union = self.counts.sum() - self.counts[FREE, FREE]
        return {
            "miou": _mean(iou),
            "iou": int(occupied) / int(union) if union else 1.0,
            "dynamic_miou": _mean(dynamic),
            "miou_occworld": float(iou.nan_to_num(1.0).mean()),
            "per_class": {
                name: None if value != value else value
                for name, value in zip(CLASSES[:-1], iou.tolist(), strict=True)
            },
        }


def _mean(values: Tensor) -> float | None:
    """The mean of what is not NaN; None if nothing is."""
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else None
