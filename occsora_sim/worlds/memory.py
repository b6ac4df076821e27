"""What generated worlds remember from frame to frame; a value, with the batch axis first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.grid import Grid
from occsora_sim.models.columns import UNSEEN, is_dynamic, without_road_users
from occsora_sim.models.world_model import WorldModel
from occsora_sim.road_users import HISTORY, SLOTS, RoadUsers, alike, seen_from, stack
from occsora_sim.scenes.start import Start
from occsora_sim.voxels.fit_road_users import fit_road_users
from occsora_sim.voxels.shape import observe_shape
from occsora_sim.worlds.ground import Ground
from occsora_sim.worlds.scripts import Scripts
from occsora_sim.worlds.scripts import alike as scripts_alike

_ROUTE_POINTS = 160  # [about m]


@dataclass(frozen=True, kw_only=True)
class DiffusionMemory:
    """What the generated worlds remember; every field has the batch axis first.

    Attributes:
        ground: what stands still.
        users: the road users.
        poses: (b, h, 3) float32, the ego's last world poses.
        route: (b, r, 2) world points [m], NaN-padded.
        scene: (b, 2) scene prompts (`ScenePrompt.tensor`).
        key: (b, 2) int64, the seed of each world and the frames that it has drawn; all randomness follows from it.
        scripts: what some road users do for a while.
        asks: whether any of the scene prompts asks for a number of vehicles; on the host, so that nobody waits for it.

    """

    ground: Ground
    users: RoadUsers
    poses: Tensor
    route: Tensor
    scene: Tensor
    key: Tensor
    scripts: Scripts
    asks: bool

    def map(self, change: Callable[[Tensor], Tensor]) -> DiffusionMemory:
        """Every tensor changed in the same way: rows picked, say."""
        return DiffusionMemory(
            ground=self.ground.map(change),
            users=self.users.map(change),
            poses=change(self.poses),
            route=change(self.route),
            scene=change(self.scene),
            key=change(self.key),
            scripts=self.scripts.map(change),
            asks=self.asks,
        )

    def replace(self, rows: Tensor, other: DiffusionMemory) -> DiffusionMemory:
        """These worlds with `rows` (m,) int64 taken from `other`, in order."""
        length = max(self.route.shape[1], other.route.shape[1])
        codes = max(memory.ground.seen.palette.shape[1] for memory in (self, other))
        mine, theirs = (
            replace(
                memory,
                ground=replace(memory.ground, seen=memory.ground.seen.with_codes(codes)),
                route=F.pad(memory.route, (0, 0, 0, length - memory.route.shape[1]), value=math.nan),
                users=users,
                scripts=scripts,
            )
            for memory, users, scripts in zip(
                (self, other),
                alike(self.users, other.users),
                scripts_alike(self.scripts, other.scripts),
                strict=True,
            )
        )
        rest = iter(tensors_of(theirs))

        def put(field: Tensor) -> Tensor:
            out = field.clone()
            out[rows] = next(rest).to(field)
            return out

        return replace(mine.map(put), asks=self.asks or other.asks)


def tensors_of(memory: DiffusionMemory) -> list[Tensor]:
    """The memory's tensors in the order of `DiffusionMemory.map`."""
    found: list[Tensor] = []
    memory.map(lambda field: found.append(field) or field)  # type: ignore[func-returns-value]
    return found


def remember(
    starts: Sequence[Start], seeds: Sequence[int], model: WorldModel, device: torch.device
) -> tuple[DiffusionMemory, Tensor]:
    """What worlds remember that begin from the last frames of `starts`, of a start without frames nothing; and the
    newest frames (b, x, y, z) uint8.
    """
    grid, history = model.config.grid, model.config.history
    nothing = torch.full((history, *grid.shape), UNSEEN, dtype=torch.uint8)
    seen = [start.occupancy[-history:].cpu() if len(start.occupancy) else nothing for start in starts]
    frames = torch.stack(seen).to(device)
    poses = torch.stack([start.ego_pose[-history:] for start in starts]).to(device, torch.float32)
    length = max(_ROUTE_POINTS, *(len(start.route) for start in starts))
    route = torch.full((len(starts), length, 2), math.nan, device=device)
    for row, start in enumerate(starts):
        route[row, : len(start.route)] = start.route.to(route)
    users = stack([road_users_of(start, frames[row], poses[row], grid) for row, start in enumerate(starts)])
    memory = DiffusionMemory(
        ground=Ground.of(without_road_users(frames), poses, model.ground, grid),
        users=users,
        poses=poses,
        route=route,
        scene=torch.stack([start.prompt.tensor() for start in starts]).to(device),
        key=torch.tensor([[int(seed), 0] for seed in seeds], device=device),
        scripts=Scripts.of(starts, device),
        asks=any(start.prompt.vehicles is not None for start in starts),
    )
    return memory, frames[:, -1]


def road_users_of(start: Start, frames: Tensor, poses: Tensor, grid: Grid) -> RoadUsers:
    """The road users that a world begins with, one row of SLOTS: those of the start's tracks that were in view in its
    history; where it has no tracks, boxes fitted to its frames (h, x, y, z), which keep the voxels that were seen.
    """
    device = frames.device
    if not len(start.occupancy):
        return RoadUsers.empty(1, SLOTS, HISTORY, device)
    if start.users is not None:
        users = start.users.map(lambda field: field.to(device))
        # Loose objects, cones say, stand still: they are in the record.
        users = users.where(seen_from(users, poses[None], grid) & is_dynamic(users.label))
    else:
        users = road_users_in(frames, poses, grid)
    return users.nearest(poses[-1:, :2].double(), SLOTS)


def road_users_in(frames: Tensor, poses: Tensor, grid: Grid) -> RoadUsers:
    """The road users that frames (h, x, y, z) show, seen from `poses` (h, 3): one row, with their voxels."""
    users = fit_road_users(frames, poses, grid).padded(1).map(lambda field: field.to(frames.device))
    return replace(users, shape=observe_shape(frames[-1:], users, poses[-1:].double(), grid))
