"""The layers of a generated world, one above the other: the picture of docs/how-it-works.md.

    python experiments/layers.py docs/images/layers.png

Goes on from a shipped start along its recorded way. Three views from above: what the start's frames saw, the ground
with what was drawn beside it, and road users in it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from occsora_sim.atomic_file import atomic_path
from occsora_sim.envs.starts import shipped_scenes
from occsora_sim.geometry import relative, to_frame
from occsora_sim.grid import FRAME_SECONDS, FREE, OCC3D
from occsora_sim.rendering.birdseye import render_birdseye
from occsora_sim.rendering.palette import INK, PAPER
from occsora_sim.scenes.source import open_scenes
from occsora_sim.scenes.start import ego_poses, make_start
from occsora_sim.worlds.diffusion import load_world

GAP, TITLE = 12, 30
"""Between two views, and above them [pixels]."""


def layers(town: int, ego: int, step: int, seconds: float) -> dict[str, np.ndarray]:
    """Views from above (h, w, 3) uint8 by title, `seconds` after the start."""
    scene = open_scenes(shipped_scenes())[town]
    start, world = make_start(scene, ego, step), load_world()
    state = world.reset([start], [0])
    count = round(seconds / FRAME_SECONDS)
    time = step * scene.dt + FRAME_SECONDS * torch.arange(count + 1)
    way = ego_poses(scene, ego, time).float()
    for k in range(count):
        state = world.step(state, relative(way[k], way[k + 1])[None, None])
    pose, ground = state.ego_pose[:, -1], state.memory.ground
    drawn = ground.read(pose[:, None], world.ground, OCC3D).columns()[0, 0]
    codes = ground.seen.look(ground.seen.points(pose[:, None], OCC3D), OCC3D)[0, 0]
    seen = torch.where((codes > 0)[..., None], drawn, FREE)
    route = to_frame(start.route, pose).numpy()
    views = {
        "1  what the start's frames saw": seen,
        "2  ground, the rest of it drawn": drawn,
        "3  road users in it": state.occupancy[0, -1],
    }
    return {title: render_birdseye(view.numpy(), route=route, scale=2) for title, view in views.items()}


def sheet(views: dict[str, np.ndarray]) -> Image.Image:
    """The views side by side, each below its title."""
    height, width = next(iter(views.values())).shape[:2]
    picture = Image.new("RGB", (len(views) * (width + GAP) + GAP, height + TITLE + GAP), PAPER)
    draw = ImageDraw.Draw(picture)
    for k, (title, view) in enumerate(views.items()):
        left = GAP + k * (width + GAP)
        draw.text((left, 8), title, fill=INK, font_size=15)
        picture.paste(Image.fromarray(view), (left, TITLE))
    return picture


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--town", type=int, default=2)
    parser.add_argument("--ego", type=int, default=10)
    parser.add_argument("--step", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=6.0)
    given = parser.parse_args()
    with atomic_path(given.out) as temporary:
        sheet(layers(given.town, given.ego, given.step, given.seconds)).save(temporary, format="PNG")
