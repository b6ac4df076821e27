"""How much each class counts in the cross-entropy of the closed-loop presets."""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.grid import (
    BICYCLE,
    BUS,
    CAR,
    CONSTRUCTION_VEHICLE,
    DRIVEABLE,
    MOTORCYCLE,
    NUM_CLASSES,
    OTHER_FLAT,
    PEDESTRIAN,
    SIDEWALK,
    TERRAIN,
    TRAILER,
    TRUCK,
)

CLASS_WEIGHTS = {
    DRIVEABLE: 4.0, SIDEWALK: 4.0, OTHER_FLAT: 3.0, TERRAIN: 1.5,
    PEDESTRIAN: 4.0, BICYCLE: 4.0, MOTORCYCLE: 4.0,
    CAR: 2.0, BUS: 2.0, TRUCK: 2.0, TRAILER: 2.0, CONSTRUCTION_VEHICLE: 2.0,
}  # fmt: skip
"""Cross-entropy weights other than 1. The ground is one voxel thin where a wall is a dozen, and a street without its
road is none; small road users would vanish without a weight and appear falsely with a strong one."""


def class_weights(device: str) -> Tensor:
    """CLASS_WEIGHTS as a tensor (NUM_CLASSES,) float32 on `device`."""
    weight = torch.ones(NUM_CLASSES, device=device)
    for label, value in CLASS_WEIGHTS.items():
        weight[label] = value
    return weight
