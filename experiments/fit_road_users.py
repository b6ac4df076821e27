"""How well boxes fitted to voxels match the tracks that these were drawn from.

    python experiments/fit_road_users.py traffic:500000-500003 [logs.pkl or folder ...] [--frames 40]

For each class: found, missed and invented [% of the true ones in view], and of those found the error of position [m],
heading [degrees] and speed [m/s]: median and 90 %. A fitted one is found where the centre of a true one of its class is
nearest and within half its length (at least 0.8 m).
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict

import numpy as np
import torch

from occsora_sim.geometry import relative
from occsora_sim.grid import CLASSES, DYNAMIC, FRAME_SECONDS, OCC3D
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.source import open_scenes
from occsora_sim.scenes.start import ego_poses
from occsora_sim.scenes.voxeliser import Voxeliser
from occsora_sim.voxels.fit_road_users import fit_road_users

HISTORY = 4


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", nargs="+")
    parser.add_argument("--frames", type=int, default=40, help="frames of each scene")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    for spec in options.scenes:
        counts: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(3))  # true, fitted, found
        errors: dict[int, list[tuple[float, ...]]] = defaultdict(list)
        for scene in open_scenes(spec):
            if isinstance(scene, Scene):
                measure(scene, options.frames, rng, counts, errors)
        print(f"\n{spec}")
        report(counts, errors)


def measure(
    scene: Scene,
    frames: int,
    rng: np.random.Generator,
    counts: dict[int, np.ndarray],
    errors: dict[int, list],
) -> None:
    """Add the frames of a scene."""
    stride = round(FRAME_SECONDS / scene.dt)
    offers = [
        (ego, step)
        for ego in range(len(scene.ego_pose))
        for step in np.flatnonzero(scene.ego_valid[ego])
        if step >= stride * (HISTORY - 1) and scene.ego_valid[ego, step - stride * (HISTORY - 1)]
    ]
    voxeliser = Voxeliser(scene, OCC3D)
    for pick in rng.permutation(len(offers))[:frames]:
        ego, step = offers[pick]
        time = step * scene.dt + FRAME_SECONDS * torch.arange(1 - HISTORY, 1, dtype=torch.float64)
        poses = ego_poses(scene, ego, time)
        own = int(scene.ego_track[ego])
        users = fit_road_users(voxeliser.frames(poses, time, torch.full((HISTORY,), own)), poses, OCC3D)
        there = scene.track_valid[:, step] & np.isin(scene.track_class, DYNAMIC)
        if own >= 0:
            there[own] = False
        state = torch.from_numpy(scene.track_state[there, step]).double()
        local = relative(poses[-1], state[:, :3])
        inside = (local[:, :2].abs() < OCC3D.upper[0]).all(1)
        near = (local[:, :2].abs() < OCC3D.upper[0] + 6).all(1).numpy()
        label, size = scene.track_class[there], scene.track_size[there]
        fitted = relative(poses[-1], users.now[0])
        for one in DYNAMIC:
            mine = np.flatnonzero(
                (label == one) & near
            )  # those half in view may be fitted, and count in neither
            ours = torch.nonzero(users.label[0] == one)[:, 0].numpy()
            distance = (local[mine, None, :2] - fitted[None, ours, :2]).norm(dim=-1).numpy()
            reach = np.maximum(size[mine, 0] / 2, 0.8)[:, None]
            distance = np.where(distance < reach, distance, np.inf)
            partner = {}
            while np.isfinite(distance).any():
                i, j = np.unravel_index(distance.argmin(), distance.shape)
                partner[mine[i]] = ours[j]
                distance[i], distance[:, j] = np.inf, np.inf
            within = inside.numpy()[mine]
            counts[one] += (
                within.sum(),
                len(ours) - sum(not inside[i] for i in partner),
                sum(bool(inside[i]) for i in partner),
            )
            for i, j in partner.items():
                if not inside[i]:
                    continue
                turn = abs(float((fitted[j, 2] - local[i, 2] + np.pi) % (2 * np.pi) - np.pi))
                true = state[i, 3:].float()
                errors[one].append(
                    (
                        float((local[i, :2] - fitted[j, :2]).norm()), np.degrees(turn),
                        float((users.velocity[0, j] - true).norm()), float(true.norm()),
                        float(abs(users.size[0, j, 0] - size[i, 0])), float(abs(users.size[0, j, 1] - size[i, 1])),
                    )
                )  # fmt: skip


def report(counts: dict[int, np.ndarray], errors: dict[int, list]) -> None:
    """A line a class."""
    print("class                 true  found%  missed%  invented%   position      heading moving  heading standing  "
          "180deg off%    velocity         length        width")  # fmt: skip
    for one in DYNAMIC:
        true, fitted, found = counts[one]
        if not true or not errors[one]:
            continue
        e = np.array(errors[one])
        moving = e[:, 3] > 0.3

        def pair(values: np.ndarray, form: str = "6.2f") -> str:
            return (
                "      -      -"
                if not len(values)
                else " ".join(f"{np.percentile(values, q):{form}}" for q in (50, 90))
            )

        flipped = 100 * (e[:, 1] > 90).mean()
        print(
            f"{CLASSES[one]:20s} {true:5.0f}  {100 * found / true:5.1f}    {100 - 100 * found / true:5.1f}     "
            f"{100 * (fitted - found) / true:5.1f}   {pair(e[:, 0])}  {pair(e[moving, 1], '6.1f')}   "
            f"{pair(e[~moving, 1], '6.1f')}       {flipped:5.1f}   {pair(e[:, 2])}  {pair(e[:, 4])}  {pair(e[:, 5])}"
        )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
