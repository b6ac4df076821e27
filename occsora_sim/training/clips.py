"""Training clips of OccSora's model: many frames on end, seen from recorded egos, drawn by step number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.scenes.offers import usable
from occsora_sim.scenes.recorded import Recorded, drawer_of
from occsora_sim.training.processes import WHOLE, Part
from occsora_sim.training.report import say


@dataclass(frozen=True, kw_only=True)
class Clips:
    """n clips of f frames at 2 Hz.

    Attributes:
        labels: (n, f, x, y, z) uint8, each frame in its own ego frame.
        poses: (n, f, 3) float32 world poses of the ego: x, y [m], yaw [rad].

    """

    labels: Tensor
    poses: Tensor


class ClipSampler:
    """Draws clips from scenes; the same (seed, step) draws the same clips, so a resumed run is exact.

    The motions are the recorded ones, off-expert motions among them, as the scenes hold them. Every admissible
    beginning of a clip, over all scenes and egos, is equally likely.
    """

    def __init__(
        self, scenes: Sequence[Recorded], grid: Grid, *, frames: int = 32, seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """Look through the scenes and rasterise them.

        Args:
            scenes: where to draw from.
            grid: the voxel grid.
            frames: f, frames in a clip.
            seed: of the draws.
            device: where the clips are made.

        Raises:
            SceneError: no scene holds a motion of `frames` frames.

        """
        self.frames, self.seed, self.device = frames, seed, torch.device(device)
        self.spans: list[tuple[int, int, int]] = []  # scene, ego, step at which its first clip begins
        counts: list[int] = []  # beginnings in each span
        for index, scene in enumerate(scenes):
            length = (frames - 1) * round(FRAME_SECONDS / scene.dt) + 1
            for ego in range(len(scene.ego_kind)):
                valid = np.flatnonzero(scene.ego_valid[ego])
                if len(valid) >= length:
                    self.spans.append((index, ego, int(valid[0])))
                    counts.append(len(valid) - length + 1)
        used = {index for index, *_ in self.spans}
        short = f"no ego motion of {frames} frames, {(frames - 1) * FRAME_SECONDS:g} s"
        usable(scenes, ["" if k in used else short for k in range(len(scenes))], "training clip")
        self._ends = np.cumsum(counts)
        self.scenes = list(scenes)
        say(f"preparing {len(self.scenes)} scenes ...")
        self.voxelisers = [drawer_of(scene, grid, device) for scene in self.scenes]

    def __len__(self) -> int:
        """Number of different clips."""
        return int(self._ends[-1])

    def clip(self, number: int) -> tuple[Tensor, Tensor]:
        """Labels (f, x, y, z) uint8 and poses (f, 3) float32 of one of the clips, 0 to len - 1."""
        span = int(np.searchsorted(self._ends, number, side="right"))
        index, ego, first = self.spans[span]
        scene = self.scenes[index]
        begin = first + number - (int(self._ends[span - 1]) if span else 0)
        steps = begin + round(FRAME_SECONDS / scene.dt) * np.arange(self.frames)
        poses = torch.from_numpy(scene.ego_pose[ego, steps]).float().to(self.device)
        times = torch.from_numpy(steps * scene.dt).float().to(self.device)
        exclude = torch.full((self.frames,), int(scene.ego_track[ego]), device=self.device)
        return self.voxelisers[index].frames(poses, times, exclude), poses

    def draw(self, count: int, step: int, part: Part = WHOLE) -> Clips:
        """A part of the `count` clips for training step `step`."""
        rng = np.random.default_rng((self.seed, step))
        rows = [self.clip(int(number)) for number in part.cut(rng.integers(len(self), size=count))]
        labels, poses = (torch.stack(part) for part in zip(*rows, strict=True))
        return Clips(labels=labels, poses=poses)
