"""Training windows: a few frames of history, a chunk of future, seen from recorded egos, drawn by step number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from occsora_sim.geometry import compose
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.models.patches import count_vehicles
from occsora_sim.scenes.offers import usable
from occsora_sim.scenes.recorded import Recorded, drawers_of
from occsora_sim.scenes.start import place_of

ROUTE_POINTS = 160
"""Points of a route that a model sees, about 1 m apart, around the ego."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """n windows of h history and f future frames.

    Attributes:
        labels: (n, h + f, x, y, z) uint8.
        poses: (n, h + f, 3) float32 world poses [m, m, rad].
        displacement: (n, f, x, y, 2) float32 [m], how far the road users of the last history frame will have moved at
            each future frame, in its axes.
        route: (n, r, 2) float32 world points [m], NaN-padded.
        history: h.
        scene: (n, 2) float32, the kind of place and the vehicles in view in the last frame (`ScenePrompt.tensor`).

    """

    labels: Tensor
    poses: Tensor
    displacement: Tensor
    route: Tensor
    history: int
    scene: Tensor

    def to(self, device: torch.device) -> Windows:
        """The same on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Windows:
        """The same in memory that a GPU reads directly."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Windows:
        return Windows(
            labels=change(self.labels),
            poses=change(self.poses),
            displacement=change(self.displacement),
            route=change(self.route),
            history=self.history,
            scene=change(self.scene),
        )


def clip_route(route: Tensor, pose: Tensor, points: int = ROUTE_POINTS) -> Tensor:
    """The `points` points of route (r, 2) [m] around the ego pose (3,), NaN-padded: (points, 2)."""
    out = torch.full((points, 2), math.nan, device=pose.device)
    if len(route):
        nearest = int((route - pose[:2]).norm(dim=-1).argmin())
        begin = max(0, nearest - points // 3)
        part = route[begin : begin + points]
        out[: len(part)] = part.to(out)
    return out


class WindowSource(Protocol):
    """What windows can be had from by step number: a `WindowSampler`, or a `Prefetcher` of one."""

    def draw(self, count: int, step: int) -> Windows:
        """`count` windows for training step `step`."""
        ...


class WindowSampler:
    """Draws windows from scenes; the same (seed, step) draws the same windows, so a resumed run is exact."""

    def __init__(
        self, scenes: Sequence[Recorded], grid: Grid, *, history: int = 4, future: int = 2, seed: int = 0,
        device: torch.device | str = "cpu", workers: int = 0,
    ) -> None:  # fmt: skip
        self.scenes, self.grid, self.history, self.future = list(scenes), grid, history, future
        self.seed, self.device = seed, torch.device(device)
        self.voxelisers = drawers_of(self.scenes, grid, device, workers)
        self.spans: list[tuple[int, int, int, int]] = []  # scene, ego, first and last admissible present step
        for index, scene in enumerate(self.scenes):
            stride = round(FRAME_SECONDS / scene.dt)
            for ego in range(len(scene.ego_kind)):
                valid = np.flatnonzero(scene.ego_valid[ego])
                if len(valid) > (history + future) * stride:
                    span = (int(valid[0]) + (history - 1) * stride, int(valid[-1]) - future * stride)
                    self.spans.append((index, ego, *span))
        used = {index for index, *_ in self.spans}
        short = f"no ego motion of more than {(history + future) * FRAME_SECONDS:g} s"
        usable(self.scenes, ["" if k in used else short for k in range(len(self.scenes))], "training window")

    def draw(self, count: int, step: int) -> Windows:
        """`count` windows for training step `step`.

        A third of the windows bend the recorded future by a random turn and stretch, so that the models meet every
        prompt from every place and not only what a driver did there.
        """
        rng = np.random.default_rng((self.seed, step))
        rows = [self._window(rng) for _ in range(count)]
        labels, poses, displacement, route, scene = (torch.stack(part) for part in zip(*rows, strict=True))
        scene[:, 1] = count_vehicles(labels[:, -1])
        return Windows(
            labels=labels,
            poses=poses,
            displacement=displacement,
            route=route,
            history=self.history,
            scene=scene,
        )

    def _window(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        index, ego, first, last = self.spans[rng.integers(len(self.spans))]
        scene, voxeliser = self.scenes[index], self.voxelisers[index]
        stride = round(FRAME_SECONDS / scene.dt)
        now = int(rng.integers(first, last + 1))
        steps = now + stride * np.arange(-self.history + 1, self.future + 1)
        poses = torch.from_numpy(scene.ego_pose[ego, steps]).float()
        if rng.random() < 1 / 3:
            poses = self._bend(poses, rng)
        poses = poses.to(self.device)
        times = torch.from_numpy(steps * scene.dt).float().to(self.device)
        exclude = torch.full((len(steps),), int(scene.ego_track[ego]), device=self.device)
        labels = voxeliser.frames(poses, times, exclude)
        at = slice(self.history - 1, self.history)
        seconds = FRAME_SECONDS * torch.arange(1, self.future + 1)
        displacement = voxeliser.displacement(poses[at], times[at], seconds, exclude[at])[0]
        route = clip_route(torch.from_numpy(scene.route(ego)).float(), poses[self.history - 1])
        return labels, poses, displacement, route, place_of(scene).tensor().to(self.device)

    def _bend(self, poses: Tensor, rng: np.random.Generator) -> Tensor:
        """Replace the future by the motion of another driver: constant speed and yaw rate, drawn at random."""
        h = self.history
        now = poses[h - 1]
        speed = float((now[:2] - poses[h - 2, :2]).norm()) / FRAME_SECONDS
        speed = float(np.clip(speed + rng.normal(0, 2.0), 0, 16))
        yaw_rate = float(np.clip(rng.normal(0, 0.25), -0.6, 0.6)) * min(1.0, speed / 3)
        seconds = FRAME_SECONDS * torch.arange(1, self.future + 1)
        yaw = yaw_rate * seconds
        along = speed * seconds
        offset = torch.stack((along * torch.cos(yaw / 2), along * torch.sin(yaw / 2), yaw), dim=-1)
        return torch.cat((poses[:h], compose(now, offset)))
