"""What generated worlds remember from chunk to chunk; a value, with the batch axis first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from occsora_sim.grid import Grid
from occsora_sim.models.anchor import Anchor
from occsora_sim.models.columns import UNSEEN, road_user_image, without_road_users
from occsora_sim.models.record import Record
from occsora_sim.scenes.start import Start

_ROUTE_POINTS = 160  # [about m]


@dataclass(frozen=True, kw_only=True)
class DiffusionMemory:
    """What the generated worlds remember; every field has the batch axis first.

    Attributes:
        record: what stands still, in the world frame.
        images: (b, h, x, y, 2) uint8, `road_user_image` of the last frames, each in its own ego frame.
        offsets: (b, h, x, y, 2) float16 [m], how far off the middles of their columns the small road users are.
        poses: (b, h, 3) their world poses.
        last: (b, x, y, z) uint8, the newest frame.
        anchor: earlier frames, from which standing road users are drawn.
        route: (b, r, 2) world points [m], NaN-padded.
        noise: (b, n) uint8, the state of each world's random generator.
        scene: (b, 2) scene prompts (`ScenePrompt.tensor`).

    """

    record: Record
    images: Tensor
    offsets: Tensor
    poses: Tensor
    last: Tensor
    anchor: Anchor
    route: Tensor
    noise: Tensor
    scene: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> DiffusionMemory:
        """`function` applied to every tensor."""
        record = replace(
            self.record,
            labels=function(self.record.labels),
            place=function(self.record.place),
            stamp=function(self.record.stamp),
            origin=function(self.record.origin),
        )
        names = ("images", "offsets", "poses", "last", "route", "noise", "scene")
        fields = {name: function(getattr(self, name)) for name in names}
        anchor = Anchor(labels=function(self.anchor.labels), pose=function(self.anchor.pose))
        return DiffusionMemory(record=record, anchor=anchor, **fields)

    def generators(self) -> list[torch.Generator]:
        """Each world's random generator, as its last chunk left it."""
        generators = [torch.Generator() for _ in self.noise]
        for generator, row in zip(generators, self.noise, strict=True):
            generator.set_state(row.clone())  # a view would be read from its storage's start
        return generators

    def after(
        self, *, record: Record, occupancy: Tensor, images: Tensor, offsets: Tensor, poses: Tensor,
        generators: Sequence[torch.Generator] | None,
    ) -> DiffusionMemory:  # fmt: skip
        """What is remembered after a chunk of t frames.

        Args:
            record: with what stands still in the chunk.
            occupancy: (b, t, x, y, z) uint8.
            images: (b, t, x, y, 2) uint8, their `road_user_image`.
            offsets: (b, t, x, y, 2) [m], of their small road users.
            poses: (b, t, 3) their world poses.
            generators: as the chunk left them; None: it drew nothing.

        """
        h, noise = self.images.shape[1], self.noise
        if generators is not None:
            noise = torch.stack([generator.get_state() for generator in generators])
        return replace(
            self,
            record=record,
            images=torch.cat((self.images, images), dim=1)[:, -h:],
            offsets=torch.cat((self.offsets, offsets.half()), dim=1)[:, -h:],
            poses=torch.cat((self.poses, poses), dim=1)[:, -h:],
            last=occupancy[:, -1],
            anchor=self.anchor.renew(occupancy[:, -1], poses[:, -1]),
            noise=noise,
        )

    def lengthen(self, points: int) -> DiffusionMemory:
        """The same with routes padded to `points` points."""
        pad = points - self.route.shape[1]
        return replace(self, route=torch.nn.functional.pad(self.route, (0, 0, 0, pad), value=math.nan))

    @staticmethod
    def merge(parts: Sequence[DiffusionMemory]) -> DiffusionMemory:
        """The batches of `parts`, one after another."""
        if len(parts) == 1:
            return parts[0]
        rest = iter(list(zip(*(list(tensors_of(part)) for part in parts), strict=True)))
        return parts[0].map(lambda _: torch.cat(next(rest)))


def remember(
    starts: Sequence[Start],
    seeds: Sequence[int],
    grid: Grid,
    history: int,
    motion_frames: int,
    device: torch.device,
) -> DiffusionMemory:
    """What worlds remember that begin from the last `history` frames of `starts`, of which the motion estimator will
    read `motion_frames`; of a start without frames nothing is known.
    """
    nothing = torch.full((history, *grid.shape), UNSEEN, dtype=torch.uint8)
    seen = [start.occupancy[-history:].cpu() if len(start.occupancy) else nothing for start in starts]
    frames = torch.stack(seen).to(device)
    poses = torch.stack([start.ego_pose[-history:] for start in starts]).to(device, torch.float32)
    length = max(_ROUTE_POINTS, *(len(start.route) for start in starts))
    route = torch.full((len(starts), length, 2), math.nan, device=device)
    for row, start in enumerate(starts):
        route[row, : len(start.route)] = start.route.to(route)
    h = motion_frames
    return DiffusionMemory(
        record=Record.of(without_road_users(frames), poses, grid),
        images=road_user_image(frames[:, -h:]),
        offsets=torch.zeros(len(starts), h, *grid.shape[:2], 2, dtype=torch.float16, device=device),
        poses=poses[:, -h:],
        last=frames[:, -1],
        anchor=Anchor(labels=frames.flip(1), pose=poses.flip(1)),
        route=route,
        noise=torch.stack([torch.Generator().manual_seed(int(seed)).get_state() for seed in seeds]),
        scene=torch.stack([start.prompt.tensor() for start in starts]).to(device),
    )


def tensors_of(memory: DiffusionMemory) -> list[Tensor]:
    """The memory's tensors in the order of `DiffusionMemory.map`."""
    found: list[Tensor] = []
    memory.map(lambda field: found.append(field) or field)  # type: ignore[func-returns-value]
    return found
