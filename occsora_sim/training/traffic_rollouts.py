"""Windows that the traffic model strayed into by itself: what it must come back from when it is rolled out.

Closed-loop fine-tuning after CAT-K (Zhang et al. 2025, arXiv 2412.05334): in each frame several motions of each road
user are drawn and the one that comes nearest to the recording is taken, so a rollout is the model's own and yet stays
where the recording says what a driver did next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from occsora_sim.geometry import relative
from occsora_sim.models.traffic import AHEAD, TrafficModel
from occsora_sim.models.traffic_motion import STANDS, Motion, apply
from occsora_sim.road_users import RoadUsers
from occsora_sim.training.processes import WHOLE, Part
from occsora_sim.training.traffic_windows import TrafficSampler, TrafficWindows

CANDIDATES = 4
"""Motions drawn of each road user, of which the one nearest to the recording is taken."""

_ASIDE, _ALONG = 1.5, 3.0
"""Who is farther than this from where it was recorded [m], beside or along its way, is put back there."""

Row = tuple[int, int, int]
"""Scene, ego track and frame of a window."""


class RolloutSampler:
    """Draws windows from the model's own rollouts, one frame after another.

    Args:
        model: the model as it is trained.
        sampler: of the recording.
        frames: length of a rollout; then others begin. Checkpoints at multiples of it make a resumed run exact.
        part: of a batch, whose windows it draws.

    """

    def __init__(
        self, model: TrafficModel, sampler: TrafficSampler, frames: int = 10, part: Part = WHOLE
    ) -> None:
        self.model, self.sampler, self.frames, self.part = model, sampler, frames, part
        self.rows: list[Row] = []
        self.windows: TrafficWindows | None = None
        self.spans = [span for span in sampler.spans if span[3] - span[2] > frames + AHEAD]

    def draw(self, count: int, step: int) -> TrafficWindows:
        """The part of `count` windows of the frame of this training step."""
        if self.windows is None or step % self.frames == 0:
            rng = np.random.default_rng((self.sampler.seed, 1, step // self.frames))
            self.rows = []
            for _ in range(count):
                scene, ego, first, last = self.spans[rng.integers(len(self.spans))]
                self.rows.append((scene, ego, int(rng.integers(first, last - self.frames))))
            self.rows = self.part.cut(self.rows)
            self.hidden = torch.from_numpy(self.part.cut(rng.random(count))) < self.sampler.hidden
            self.windows = self.sampler.with_crops(self.sampler.windows(self.rows), self.rows, self.hidden)
        else:
            key = torch.tensor(
                [[row * 7919 + self.sampler.seed, step] for row in self.part.cut(range(count))]
            )
            self.windows = self._next(self.windows, key)
        return self.windows

    @torch.no_grad()
    def _next(self, windows: TrafficWindows, key: Tensor) -> TrafficWindows:
        """The windows a frame later, road users where the model has taken them."""
        was_training = self.model.training
        self.model.eval()
        seen = self.model(windows.users, windows.ego, windows.crops, windows.place)
        head, n = self.model.head, seen.shape[1]
        draws = [
            head.sample(seen, head.luck(key + key.new_tensor([k << 40, 0]), n)) for k in range(CANDIDATES)
        ]
        self.model.train(was_training)
        users = nearest_to(windows, draws)
        self.rows = [(scene, ego, now + 1) for scene, ego, now in self.rows]
        recorded = self.sampler.windows(self.rows)
        strayed = replace(recorded, users=carried_over(users, recorded.users, recorded.ego))
        return self.sampler.with_crops(strayed, self.rows, self.hidden)


def nearest_to(windows: TrafficWindows, draws: Sequence[Motion]) -> RoadUsers:
    """The road users a frame later, each by that of the `draws` that comes nearest to its recorded place."""
    options = [apply(windows.users, motion) for motion in draws]
    target = windows.later[:, :, 0]

    def distance(users: RoadUsers) -> Tensor:
        off = relative(target, users.now)
        return off[..., :2].norm(dim=-1) + 2.0 * off[..., 2].abs()  # a wrong heading is soon a wrong place

    best = torch.stack([distance(option) for option in options]).argmin(dim=0)  # (b, n)
    poses = torch.stack([option.now for option in options])
    speeds = torch.stack([option.velocity for option in options])
    pose = poses.gather(0, best[None, ..., None].expand(1, *best.shape, 3))[0]
    velocity = speeds.gather(0, best[None, ..., None].expand(1, *best.shape, 2))[0]
    return windows.users.moved(pose, velocity)


def carried_over(users: RoadUsers, recorded: RoadUsers, ego: Tensor) -> RoadUsers:
    """The recorded road users, those that are also in `users` with the past that they have there, if they are near and
    stand where they were recorded standing alone: who sets off a moment before the recording is not to learn to stop.
    """
    same = (recorded.id[:, :, None] == users.id[:, None]) & (recorded.id >= 0)[:, :, None]
    found, slot = same.any(-1), same.int().argmax(-1)
    mine = users.gather(slot)
    off = relative(recorded.now, mine.now)
    stand, stands = mine.travel < STANDS, recorded.travel < STANDS
    keep = (
        found
        & ~ego
        & (stand == stands)
        & (off[..., 1].abs() < _ASIDE)
        & (off[..., 0].abs() < _ALONG)
        & (off[..., 2].abs() < 0.8)
    )

    def pick(one: Tensor, other: Tensor) -> Tensor:
        return torch.where(keep.view(*keep.shape, *[1] * (one.ndim - 2)), one, other)

    return replace(
        recorded,
        pose=pick(mine.pose, recorded.pose),
        present=pick(mine.present, recorded.present),
        velocity=pick(mine.velocity, recorded.velocity),
        rested=pick(mine.rested, recorded.rested),
    )
