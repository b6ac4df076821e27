"""A few small pictures that tell how an episode went: a rollout from above, at some of its frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from occsora_sim.geometry import relative, to_frame
from occsora_sim.rendering.birdseye import render_birdseye
from occsora_sim.rendering.palette import HAZE
from occsora_sim.rendering.rollout import Rollout

SIDE = 240
"""Of a picture [pixels]."""

REACH = 20.0
"""From the middle of a picture to its edge [m]."""

_AHEAD = 6.0  # the middle lies so far before the ego [m]


def picture_strip(rollout: Rollout, frames: Sequence[int]) -> list[np.ndarray]:
    """What is around the ego at some frames of a rollout, seen from above with its plan, route and past; forward is up.

    Returns:
        (SIDE, SIDE, 3) uint8 for each of `frames`.

    """
    return [_picture(rollout, frame) for frame in frames]


def _picture(rollout: Rollout, k: int) -> np.ndarray:
    poses = torch.from_numpy(np.ascontiguousarray(rollout.ego_pose, dtype=np.float32))
    planned, grid = rollout.planned[k], rollout.grid
    scale = max(1, round(SIDE * grid.voxel / REACH))  # twice the size, then reduced
    whole = render_birdseye(
        rollout.occupancy[k],
        trajectory=planned[planned[:, 0] > 0.5],
        route=to_frame(torch.from_numpy(rollout.route.astype(np.float32)), poses[k]).numpy(),
        history=relative(poses[k], poses[: k + 1]).numpy(),
        scale=scale,
        grid=grid,
    )
    metre = scale / grid.voxel  # pixels
    left, top = (grid.upper[1] - REACH) * metre, (grid.upper[0] - _AHEAD - REACH) * metre
    side = round(2 * REACH * metre)
    picture = Image.new("RGB", (side, side), HAZE)  # a small grid does not fill it
    picture.paste(Image.fromarray(whole), (-round(left), -round(top)))
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
