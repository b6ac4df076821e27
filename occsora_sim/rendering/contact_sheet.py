"""Many scenes on one sheet, each from above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from occsora_sim.atomic_file import atomic_path
from occsora_sim.geometry import to_frame
from occsora_sim.grid import OCC3D
from occsora_sim.rendering.birdseye import render_birdseye
from occsora_sim.rendering.palette import PAPER
from occsora_sim.scenes.recorded import Recorded, drawer_of
from occsora_sim.scenes.start import ego_poses

MOST = 16
"""Scenes on a sheet; of more, as many spread evenly."""

COLUMNS = 4
_SCALE = 2  # pixels a voxel
_GAP = 8  # pixels


def write_contact_sheet(scenes: Sequence[Recorded], path: str | Path) -> None:
    """Draw up to MOST scenes into a PNG file, whole or not at all.

    Raises:
        ConfigurationError: the file cannot be written.
        SceneError: a frame cannot be read.

    """
    with atomic_path(path) as temporary:
        Image.fromarray(contact_sheet(scenes)).save(temporary, format="PNG")


def contact_sheet(scenes: Sequence[Recorded]) -> np.ndarray:
    """The scenes from above, (height, width, 3) uint8, in rows of COLUMNS; at least one scene."""
    chosen = np.unique(np.linspace(0, len(scenes) - 1, min(len(scenes), MOST)).round().astype(int))
    tiles = [scene_from_above(scenes[k]) for k in chosen]
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    height, width = tiles[0].shape[:2]
    sheet = np.empty((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), dtype=np.uint8)
    sheet[:] = PAPER
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def scene_from_above(scene: Recorded) -> np.ndarray:
    """A scene half way through its first ego's motion, forward up, with its name and route; (400, 400, 3) uint8."""
    valid = np.flatnonzero(scene.ego_valid[0]) if len(scene.ego_valid) else np.zeros(0, dtype=int)
    if not len(valid):
        time, pose = torch.zeros(1), torch.zeros(1, 3)
        exclude, route = -1, None
    else:
        step = int(valid[len(valid) // 2])
        time = torch.tensor([step * scene.dt])
        pose = ego_poses(scene, 0, time)
        exclude = int(scene.ego_track[0])
        points = torch.from_numpy(scene.route(0).astype(np.float64))
        route = to_frame(points, pose[0].expand(len(points), 3)).numpy()
    frame = drawer_of(scene, OCC3D).frames(pose, time, torch.tensor([exclude]))[0].numpy()
    text = [scene.name, f"{float(time[0]):.1f} s"]
    return render_birdseye(frame, route=route, scale=_SCALE, text=text, ego=len(valid) > 0)
