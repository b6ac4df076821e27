"""Recorded drives, of a person above all, as situations and answers that a policy can imitate beside its teacher's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from occsora_sim.agents.features import features, mirrored
from occsora_sim.agents.protocol import Observation
from occsora_sim.envs.motion import EGO_BOUNDS
from occsora_sim.envs.observation import ROUTE_BOUND, ROUTE_POINTS, ROUTE_SPACING
from occsora_sim.errors import SceneError
from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.rendering.rollout import Rollout, load_rollout
from occsora_sim.scoring.route import make_routes
from occsora_sim.vehicle import Vehicle

FIRST = 2
"""The first frame whose observation can be rebuilt: its acceleration needs the two motions before it."""


@dataclass(frozen=True, kw_only=True)
class RecordedDrives:
    """What was seen and answered in recorded drives, each situation also mirrored.

    Attributes:
        seen: (m, d) features.
        answers: (m, 2) controls in [-1, 1].
        share: the least part of an imitation's pairs that these are to be, above 0 and below 1.

    """

    seen: Tensor
    answers: Tensor
    share: float

    def join(self, seen: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """A teacher's pairs (n, d) and (n, 2), then these, whole and as often as their share needs."""
        wanted = self.share / (1 - self.share) * len(seen)
        times = max(1, int(np.ceil(wanted / len(self.seen))))
        return torch.cat((seen, self.seen.repeat(times, 1))), torch.cat(
            (answers, self.answers.repeat(times, 1))
        )


def read_drives(paths: Sequence[Path], grid: Grid, frames: int, share: float) -> RecordedDrives:
    """Read rollouts that were driven by acceleration and steering.

    Args:
        paths: of at least one rollout.
        grid: of the world to learn in.
        frames: that a decision lasts there.
        share: see `RecordedDrives`.

    Raises:
        SceneError: a file is no rollout, of another grid, without such actions or a route, or too short.

    """
    seen: list[np.ndarray] = []
    answers: list[np.ndarray] = []
    for path in paths:
        rollout = load_rollout(path)
        try:
            check_drive(rollout, grid, frames)
        except SceneError as error:
            raise SceneError(f"{path}: {error}") from error
        for situation, answer in situations(rollout, frames):
            seen += [features(situation, grid), features(mirrored(situation), grid)]
            answers += [answer, answer * np.array([1.0, -1.0])]
    return RecordedDrives(
        seen=torch.from_numpy(np.concatenate(seen)),
        answers=torch.from_numpy(np.stack(answers).astype(np.float32)),
        share=share,
    )


def check_drive(rollout: Rollout, grid: Grid, frames: int) -> None:
    """See that a rollout can be learned from in a world of `grid` whose decisions last `frames`.

    Raises:
        SceneError: it cannot.

    """
    if rollout.grid != grid:
        raise SceneError(
            f"a rollout of a grid of {rollout.grid.shape} voxels of {rollout.grid.voxel:g} m, but this world has "
            f"{grid.shape} of {grid.voxel:g} m; give drives in a world of the same grid"
        )
    actions, moves = rollout.actions, rollout.frames - 1
    whole = actions.ndim == 2 and actions.shape[1] == 2 and len(actions) > 0 and moves % len(actions) == 0
    if not whole or not moves or not (np.abs(actions) <= 1 + 1e-6).all():
        raise SceneError(
            "a rollout without actions of acceleration and steering; `occsora-sim play` records them"
        )
    if len(rollout.route) < 2 or not np.isfinite(rollout.route).all():
        raise SceneError("a rollout without a route; `occsora-sim play` records it")
    if not len(_decisions(rollout, frames)):
        least = (max(FIRST, moves // len(actions)) + frames) * FRAME_SECONDS
        raise SceneError(f"a rollout of {rollout.seconds:g} s; a demonstration takes {least:g} s or more")


def situations(
    rollout: Rollout, frames: int, vehicle: Vehicle | None = None
) -> Iterator[tuple[Observation, np.ndarray]]:
    """What the learner's environment would have shown at each decision of a checked rollout, and what was answered.

    Occupancy and route are those of the environment. Speed and acceleration follow from the poses and the action under
    way, exact but for the poses' float32. Decisions in the first second are left out, for what was before them
    is not recorded, and so are those at the end that did not last.

    Args:
        rollout: as `check_drive` wants it.
        frames: that the learner's decision lasts. Where a recorded one is shorter, the answer is the mean of the
            controls over that time.
        vehicle: that was driven.

    Yields:
        an observation of one row, with the newest `frames` frames of the occupancy, two at most, and controls (2,).

    """
    car = vehicle or Vehicle()
    held = np.repeat(rollout.actions.astype(np.float64), (rollout.frames - 1) // len(rollout.actions), axis=0)
    pull = np.where(held[:, 0] >= 0, held[:, 0] * car.max_acceleration, -held[:, 0] * car.min_acceleration)
    pose = torch.from_numpy(rollout.ego_pose.astype(np.float64))
    offset = relative(pose[:-1], pose[1:])  # (t - 1, 3), the motion to frame 1, 2, ...
    half = offset[:, 2] / 2
    travelled = (offset[:, :2].norm(dim=-1) / torch.sinc(half / torch.pi)).numpy()
    # Travel at constant acceleration; a car that stopped or reached its top speed on the way ends at that.
    speed = np.clip(travelled / FRAME_SECONDS + pull * FRAME_SECONDS / 2, 0.0, car.max_speed)
    routes = _routes_ahead(rollout)
    for k in _decisions(rollout, frames):
        ego = (
            speed[k - 1],
            (speed[k - 1] - speed[k - 2]) / FRAME_SECONDS,
            float(offset[k - 1, 2]) / FRAME_SECONDS,
            held[k - 1, 1] * car.max_steering,
        )
        mean = pull[k : k + frames].mean()
        limit = car.max_acceleration if mean >= 0 else -car.min_acceleration
        yield (
            {
                "occupancy": rollout.occupancy[None, k + 1 - min(frames, 2) : k + 1],
                "ego": np.clip(np.array([ego], np.float32), -EGO_BOUNDS, EGO_BOUNDS),
                "route": routes[k : k + 1],
            },
            np.array([mean / limit, held[k : k + frames, 1].mean()]),
        )


def _decisions(rollout: Rollout, frames: int) -> range:
    """The frames at which a decision began that can be learned."""
    each = (rollout.frames - 1) // len(rollout.actions)
    return range(max(FIRST, each), rollout.frames - frames, each)


def _routes_ahead(rollout: Rollout) -> np.ndarray:
    """The route ahead at each of the t frames, (t, 20, 2) float32 [m] in the ego frame, followed as the score does."""
    pose = torch.from_numpy(rollout.ego_pose.astype(np.float64))
    routes = make_routes([torch.from_numpy(rollout.route)])
    first, _ = routes.project(pose[:1, :2].float(), torch.zeros(1), routes.length)
    moved = pose[:, :2].diff(dim=0).norm(dim=-1).float()
    near, _ = routes.follow(pose[None, 1:, :2].float(), first, 2 * moved[None] + 2.0)
    arcs = torch.cat((first, near[0]))
    ahead = [
        routes.ahead(pose[k : k + 1], arcs[k : k + 1], ROUTE_POINTS, ROUTE_SPACING)
        for k in range(rollout.frames)
    ]
    return torch.cat(ahead).float().clamp(-ROUTE_BOUND, ROUTE_BOUND).numpy()
