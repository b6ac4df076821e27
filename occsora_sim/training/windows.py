"""Training windows: a few frames of history, a chunk of future, seen from recorded egos, drawn by step number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from occsora_sim.geometry import compose
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.scenes.offers import usable
from occsora_sim.scenes.recorded import Recorded, drawers_of
from occsora_sim.training.processes import WHOLE, Part
from occsora_sim.training.report import say


@dataclass(frozen=True, kw_only=True)
class Windows:
    """n windows of h history and f future frames.

    Attributes:
        labels: (n, h + f, x, y, z) uint8.
        poses: (n, h + f, 3) float32 world poses [m, m, rad].

    """

    labels: Tensor
    poses: Tensor

    def to(self, device: torch.device) -> Windows:
        """The same on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Windows:
        """The same in memory that a GPU reads directly."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Windows:
        return Windows(labels=change(self.labels), poses=change(self.poses))


class WindowSampler:
    """Draws windows from scenes; the same (seed, step) draws the same windows, so a resumed run is exact."""

    def __init__(
        self, scenes: Sequence[Recorded], grid: Grid, *, history: int = 4, future: int = 2, seed: int = 0,
        device: torch.device | str = "cpu", workers: int = 0,
    ) -> None:  # fmt: skip
        self.scenes, self.grid, self.history, self.future = list(scenes), grid, history, future
        self.seed, self.device = seed, torch.device(device)
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
        say(f"preparing {len(self.scenes)} scenes ...")
        self.voxelisers = drawers_of(self.scenes, grid, device, workers)

    def draw(self, count: int, step: int, part: Part = WHOLE) -> Windows:
        """A part of the `count` windows for training step `step`.

        A third of the windows bend the recorded future by a random turn and stretch, so that two looks at one
        moment are from places as far apart as those that a driver might have come to.
        """
        rng = np.random.default_rng((self.seed, step))
        rows = [self._look(*look) for look in part.cut([self._choose(rng) for _ in range(count)])]
        labels, poses = (torch.stack(each) for each in zip(*rows, strict=True))
        return Windows(labels=labels, poses=poses)

    def _choose(self, rng: np.random.Generator) -> tuple[int, int, np.ndarray, Tensor]:
        """A window's scene, ego, steps and poses."""
        index, ego, first, last = self.spans[rng.integers(len(self.spans))]
        scene = self.scenes[index]
        stride = round(FRAME_SECONDS / scene.dt)
        at = int(rng.integers(first, last + 1))
        steps = at + stride * np.arange(-self.history + 1, self.future + 1)
        poses = torch.from_numpy(scene.ego_pose[ego, steps]).float()
        return index, ego, steps, self._bend(poses, rng) if rng.random() < 1 / 3 else poses

    def _look(self, index: int, ego: int, steps: np.ndarray, poses: Tensor) -> tuple[Tensor, Tensor]:
        """A window's labels and poses."""
        scene = self.scenes[index]
        poses = poses.to(self.device)
        times = torch.from_numpy(steps * scene.dt).float().to(self.device)
        exclude = torch.full((len(steps),), int(scene.ego_track[ego]), device=self.device)
        return self.voxelisers[index].frames(poses, times, exclude), poses

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
