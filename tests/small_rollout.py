"""A rollout of a small street made by hand: a car that drives, a pedestrian that stands, a house and a tree."""

import numpy as np

from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE, PEDESTRIAN, TERRAIN, VEGETATION, Grid
from occsora_sim.rendering.recorded_users import RecordedUsers
from occsora_sim.rendering.rollout import Rollout

GRID = Grid(shape=(60, 60, 16), voxel=0.4, lower=(-12.0, -12.0, -1.0))
FRAMES = 7
GROUND = 2
"""The layer of the ground."""


def small_rollout(header: dict | None = None, frames: int = FRAMES) -> Rollout:
    """The ego drives 1 m a frame along x, the car 2 m."""
    occupancy = np.full((frames, *GRID.shape), FREE, np.uint8)
    occupancy[..., GROUND] = TERRAIN
    occupancy[:, :, 20:40, GROUND] = DRIVEABLE
    poses = np.stack([[1.0 * k, 0.0, 0.0] for k in range(frames)]).astype(np.float32)
    car = np.stack([[4.0 + 2.0 * k, 2.0, 0.0] for k in range(frames)])
    person = np.tile([6.0, -5.2, 0.0], (frames, 1))
    for k in range(frames):
        frame = occupancy[k]
        fill(frame, (0.0 - k, -7.4), (6.0, 4.0), 9, MANMADE)
        fill(frame, (-5.0 - k, 8.0), (2.4, 2.4), 6, VEGETATION)
        fill(frame, (car[k, 0] - k, 2.0), (4.0, 2.0), 4, CAR)
        fill(frame, (6.0 - k, -5.2), (0.8, 0.8), 5, PEDESTRIAN)
    pose = np.stack((car, person), axis=1).astype(np.float32)
    users = RecordedUsers(
        pose=pose,
        size=np.tile(np.array([[4.0, 2.0, 1.6], [0.8, 0.8, 1.8]], np.float32), (frames, 1, 1)),
        label=np.tile(np.array([CAR, PEDESTRIAN], np.uint8), (frames, 1)),
        id=np.tile(np.array([7, 123456789012]), (frames, 1)),
        velocity=np.tile(np.array([[4.0, 0.0], [0.0, 0.0]], np.float32), (frames, 1, 1)),
        valid=np.ones((frames, 2), bool),
    )
    return Rollout(
        occupancy=occupancy,
        ego_pose=poses,
        actions=np.zeros((frames - 1, 2), np.float32),
        rewards=np.zeros(frames - 1, np.float32),
        planned=np.tile(np.array([[[2.0, 0, 0], [5.0, 0, 0]]], np.float32), (frames, 1, 1)),
        route=np.array([[-10.0, 0.0], [30.0, 0.0]], np.float32),
        users=users,
        steps=tuple({"nc": 1.0, "ttc": k / frames, "reward": 0.1 * k} for k in range(frames)),
        header=header or {"world": "diffusion", "agent": "idm", "name": "by hand", "score": {"score": 0.5}},
        grid=GRID,
    )


def fill(
    frame: np.ndarray, centre: tuple[float, float], size: tuple[float, float], height: int, label: int
) -> None:
    """Fill a block on the ground, `size` [m] around `centre` [m] of the ego frame and so many layers high."""
    cells = [
        slice(
            max(0, round((at - side / 2 - GRID.lower[0]) / GRID.voxel)),
            max(0, round((at + side / 2 - GRID.lower[0]) / GRID.voxel)),
        )
        for at, side in zip(centre, size, strict=True)
    ]
    frame[cells[0], cells[1], GROUND + 1 : GROUND + 1 + height] = label
