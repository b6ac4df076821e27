"""Does a drive of 25 minutes stay a street, in the same memory and time?

    python experiments/long_drive.py [--minutes 25] [--seed 0] [--out FOLDER]

A start from nothing, with a route as long as the drive, which the ego follows at up to 8 m/s whatever is in the way.
For each minute: milliseconds a frame, resident memory (Linux), shares of the columns in view that are road and
walls, road users in view and how many of them stand; with --out a picture of every fourth minute.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch

from occsora_sim.geometry import relative
from occsora_sim.grid import DRIVEABLE, FRAME_SECONDS, MANMADE, OCC3D
from occsora_sim.road_users import seen_from
from occsora_sim.scenes.blank import blank_start
from occsora_sim.scoring.pursuit import CRUISE, drive_route
from occsora_sim.scoring.route import make_routes
from occsora_sim.worlds.diffusion import load_world

FRAMES = 120  # a minute


def main() -> None:
    """Drive, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    world, frames = load_world(), options.minutes * FRAMES
    length = CRUISE * FRAME_SECONDS * frames + 200.0
    start = blank_start(np.random.default_rng(options.seed), length=length)
    routes = make_routes([start.route])
    poses = drive_route(routes, start.ego_pose[-1:], torch.tensor([6.0]), frames)[0].float()
    way = torch.cat((start.ego_pose[-1:], poses))
    state, chunk = world.reset([start], [options.seed]), world.frames_per_chunk
    print("| minute | ms a frame | memory [MB] | road [%] | walls [%] | in view | standing |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for minute in range(options.minutes):
        begun, sums = time.perf_counter(), np.zeros(4)
        for k in range(minute * FRAMES, (minute + 1) * FRAMES, chunk):
            state = world.step(state, relative(way[k : k + 1], way[k + 1 : k + 1 + chunk])[None])
            frame, users = state.occupancy[0, -1], state.users
            seen = seen_from(users, state.ego_pose[:, -1:], OCC3D)
            road, wall = (float((frame == label).any(-1).float().mean()) for label in (DRIVEABLE, MANMADE))
            sums += 100 * road, 100 * wall, int(seen.sum()), int((seen & (users.speed < 0.2)).sum())
        taken, mean = time.perf_counter() - begun, sums * chunk / FRAMES
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        parts = (minute + 1, f"{1000 * taken / FRAMES:.0f}", f"{memory:.0f}", *(f"{x:.1f}" for x in mean))
        print(f"| {' | '.join(map(str, parts))} |", flush=True)
        if options.out and minute % 4 == 0:
            from PIL import Image

            from occsora_sim.rendering.birdseye import render_birdseye

            options.out.mkdir(parents=True, exist_ok=True)
            picture = render_birdseye(frame.numpy(), scale=2)
            Image.fromarray(picture).save(options.out / f"minute_{minute + 1:02d}.png")


if __name__ == "__main__":
    main()
