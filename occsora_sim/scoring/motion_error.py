"""How far the ego's registered motion lies from the motion that the trajectory prompt asked for."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from occsora_sim.geometry import relative, wrap_angle
from occsora_sim.scoring.registration import Registration

MAX_VOXELS, MAX_DEGREES, MIN_REGISTERED = 1.0, 2.0, 0.5
"""A prompt is obeyed when the median error of its chunks is below one voxel and 2 degrees, and half of them or more can
be registered at all."""


def chunk_motion(poses: Tensor, frames: int) -> Tensor:
    """Motion over each chunk: world poses (b, 1 + k * frames, 3), the first before the first chunk -> (b, k, 3)."""
    ends = poses[:, ::frames]
    return relative(ends[:, :-1], ends[:, 1:])


def motion_error(measured: Registration, asked: Tensor, voxel: float) -> dict[str, Any]:
    """Errors over n chunks.

    Args:
        measured: n registered motions.
        asked: (n, 3) the motions asked for [m, m, rad].
        voxel: edge of a voxel [m].

    Returns:
        `chunks`, `registered` (share of them), median and 90th percentile of the error over those: `metres`,
        `degrees`, `metres_90`, `degrees_90` (null where none is registered), and `obeyed`.

    """
    found = measured.found.cpu()
    motion, asked = measured.motion.double().cpu()[found], asked.double().cpu()[found]
    metres = (motion[:, :2] - asked[:, :2]).norm(dim=-1)
    degrees = wrap_angle(motion[:, 2] - asked[:, 2]).abs() * (180 / math.pi)
    errors: dict[str, Any] = {
        "chunks": len(found),
        "registered": float(found.double().mean()) if len(found) else 0.0,
    }
    for name, error in (("metres", metres), ("degrees", degrees)):
        errors[name] = float(torch.quantile(error, 0.5)) if len(error) else None
        errors[f"{name}_90"] = float(torch.quantile(error, 0.9)) if len(error) else None
    errors["obeyed"] = bool(
        len(metres)
        and errors["registered"] >= MIN_REGISTERED
        and errors["metres"] < MAX_VOXELS * voxel
        and errors["degrees"] < MAX_DEGREES
    )
    return errors
