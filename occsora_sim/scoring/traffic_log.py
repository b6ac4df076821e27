"""A traffic log: where the road users around an ego were; recorded, rolled out, or at constant velocity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import relative, wrap_angle
from occsora_sim.grid import DYNAMIC, FRAME_SECONDS, FREE, Grid, class_mask
from occsora_sim.models.entry_view import in_view
from occsora_sim.scenes.raster import rasterise
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import ego_poses
from occsora_sim.scoring.footprint import columns_at
from occsora_sim.worlds.protocol import WorldState

AREA = 64.0
"""Road users within this distance of the ego are logged [m]: the simulated area, wider than the view."""

UNKNOWN = FREE
"""Ground under a road user where none is known: outside the view, or nothing is drawn there."""


@dataclass(frozen=True, kw_only=True)
class TrafficLog:
    """n road users around one ego over t frames, FRAME_SECONDS apart. The ego itself is not one of them.

    Attributes:
        pose: (t, n, 3) float64 world poses of the boxes' centres: x, y [m], yaw [rad]; any where not present.
        present: (t, n) bool, within AREA of the ego.
        size: (n, 3) float32: length, width, height [m].
        label: (n,) uint8, of `grid.DYNAMIC`.
        id: (n,) int64.
        ego_pose: (t, 3) float64 world poses of the ego's rear axle.
        ground: (t, n) uint8, the label of the ground voxel under the centre, or UNKNOWN.

    """

    pose: Tensor
    present: Tensor
    size: Tensor
    label: Tensor
    id: Tensor
    ego_pose: Tensor
    ground: Tensor

    def in_view(self, grid: Grid) -> Tensor:
        """(t, n) bool: present, and the centre lies above the square of `grid`, in the ego frame."""
        return self.present & in_view(relative(self.ego_pose[:, None], self.pose), grid)

    def first(self, frames: int) -> TrafficLog:
        """The log up to its `frames`-th frame."""
        parts = {name: getattr(self, name)[:frames] for name in ("pose", "present", "ego_pose", "ground")}
        return replace(self, **parts)

    def in_chunks(self, frames: int) -> TrafficLog:
        """The log as `logs_of_states` would read it from a world that steps by so many frames: without those who leave
        within a chunk.
        """
        at = torch.arange(len(self.present))
        end = ((at + frames - 1) // frames * frames).clamp(max=len(at) - 1)
        return replace(self, present=self.present & self.present[end])


class GroundMap:
    """The ground of a scene, as the frames that are drawn of it show it.

    Args:
        scene: the scene.
        grid: the voxels around the ego.

    """

    def __init__(self, scene: Scene, grid: Grid) -> None:
        raster = rasterise(scene, grid, 0.2)
        self._grid, self._cell, self._origin = grid, raster.cell, raster.origin
        self._label = raster.palette[:, grid.ground][raster.columns.int()]  # (w, h)

    def under(self, ego_pose: Tensor, pose: Tensor) -> Tensor:
        """The labels (t, n) uint8 of the voxels under `pose` (t, n, 3) in frames from `ego_pose` (t, 3)."""
        grid = self._grid
        local = relative(ego_pose[:, None], pose)[..., :2]
        lower = local.new_tensor(grid.lower[:2])
        index = torch.floor((local - lower) / grid.voxel)
        inside = ((index >= 0) & (index < index.new_tensor(grid.shape[:2]))).all(dim=-1)
        # The voxel's centre decides, with the voxeliser's own arithmetic: a replayed frame answers the same.
        axis = ((index.float() + 0.5) * grid.voxel + lower.float()) / self._cell
        start = ((ego_pose[:, :2] - ego_pose.new_tensor(self._origin)) / self._cell + 0.5).float()[:, None]
        cos, sin = (turn(ego_pose[:, 2]).float()[:, None] for turn in (torch.cos, torch.sin))
        i = (cos * axis[..., 0] + start[..., 0]) - sin * axis[..., 1]
        j = (sin * axis[..., 0] + start[..., 1]) + cos * axis[..., 1]
        width, height = self._label.shape
        found = self._label[i.clamp(0, width - 1).long(), j.clamp(0, height - 1).long()]
        return torch.where(inside, found, torch.full_like(found, UNKNOWN))


def recorded_log(scene: Scene, ego: int, step: int, frames: int, grid: Grid, ground: GroundMap) -> TrafficLog:
    """What was recorded around ego motion `ego` from time step `step` on: `frames` frames, the first of it included.

    Raises:
        SceneError: the ego motion is not known for so long.

    """
    times = step * scene.dt + FRAME_SECONDS * torch.arange(frames, dtype=torch.float64)
    ego_pose = ego_poses(scene, ego, times)
    state, valid = _tracks_at(scene, times)
    return _log(scene, ego, ego_pose, state[..., :3], valid, grid, ground)


def constant_velocity_log(
    scene: Scene, ego: int, step: int, frames: int, grid: Grid, ground: GroundMap
) -> TrafficLog:
    """Whoever is in view at time step `step` goes straight on at its velocity, and nobody enters; otherwise as
    `recorded_log`. A floor that a traffic model must beat.
    """
    ahead = FRAME_SECONDS * torch.arange(frames, dtype=torch.float64)
    ego_pose = ego_poses(scene, ego, step * scene.dt + ahead)
    state, valid = _tracks_at(scene, torch.tensor([step * scene.dt], dtype=torch.float64))
    moved = state[..., :2] + state[..., 3:] * ahead[:, None, None]
    pose = torch.cat((moved, state[..., 2:3].expand(frames, -1, 1)), dim=-1)
    log = _log(scene, ego, ego_pose, pose, valid.expand(frames, -1), grid, ground)
    seen = log.in_view(grid)[0]
    return replace(
        log,
        pose=log.pose[:, seen],
        present=log.present[:, seen],
        size=log.size[seen],
        label=log.label[seen],
        id=log.id[seen],
        ground=log.ground[:, seen],
    )


def logs_of_states(states: Iterable[WorldState], grid: Grid) -> list[TrafficLog]:
    """One log for each of the worlds whose states follow one another, the state of a reset first.

    The frames of a chunk are read from the poses that road users carry. Somebody who leaves within a chunk is missing
    from all of that chunk: the state at its end no longer knows it.

    Args:
        states: of b worlds each, read one at a time and let go.
        grid: the voxels around the egos.

    Raises:
        ConfigurationError: a state carries no road users, or a chunk is longer than what they remember.

    """
    parts = [_read(state, grid) for state in states]
    ego = torch.cat([part[0] for part in parts], dim=1)  # (b, t, 3)
    logs = []
    for row in range(len(ego)):
        begin, entries = 0, []
        for poses, slots, present in parts:
            frame, slot = present[row].nonzero(as_tuple=True)
            entries.append((frame + begin, *(value[row, frame, slot] for value in slots)))
            begin += poses.shape[1]
        frame, identity, pose, size, label, ground = (
            torch.cat(values) for values in zip(*entries, strict=True)
        )
        ids, column = identity.unique(return_inverse=True)
        t, n = ego.shape[1], len(ids)
        log = TrafficLog(
            pose=pose.new_zeros(t, n, 3).index_put_((frame, column), pose),
            present=torch.zeros(t, n, dtype=torch.bool).index_put_((frame, column), torch.tensor(True)),
            size=size.new_zeros(n, 3).index_put_((column,), size),
            label=label.new_zeros(n).index_put_((column,), label),
            id=ids,
            ego_pose=ego[row],
            ground=ground.new_full((t, n), UNKNOWN).index_put_((frame, column), ground),
        )
        logs.append(log)
    return logs


def _read(state: WorldState, grid: Grid) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Of a chunk of f frames: ego poses (b, f, 3); id, pose, size, label and ground, each (b, f, n, ...); who is
    present (b, f, n).
    """
    users = getattr(state, "users", None)
    if users is None:
        raise ConfigurationError(
            "traffic: this world's states carry no road users as instances; use a world or scenes that have them"
        )
    ego, frames = state.ego_pose.double().cpu(), state.ego_pose.shape[1]
    if frames > users.pose.shape[2]:
        raise ConfigurationError(
            f"traffic: chunks of {frames} frames, but road users remember {users.pose.shape[2]} poses; step fewer"
        )
    users = users.map(lambda value: value.cpu())
    pose = users.pose[:, :, -frames:].transpose(1, 2)  # (b, f, n, 3)
    present = users.present[:, :, -frames:].transpose(1, 2) & users.valid[:, None]
    present = present & class_mask(DYNAMIC)[users.label.long()][:, None] & _near(ego, pose)
    floor = state.occupancy[..., grid.ground : grid.ground + 1].cpu()
    local = relative(ego[:, :, None], pose)[..., :2]
    ground = columns_at(floor.flatten(0, 1), grid, local.flatten(0, 1))[..., 0].unflatten(0, pose.shape[:2])

    def spread(value: Tensor) -> Tensor:
        return value[:, None].expand(-1, frames, *value.shape[1:])

    return ego, (spread(users.id), pose, spread(users.size), spread(users.label), ground), present


def _near(ego_pose: Tensor, pose: Tensor) -> Tensor:
    """Which poses (..., n, 3) lie in the simulated area around egos (..., 3)."""
    return (pose[..., :2] - ego_pose[..., None, :2]).norm(dim=-1) <= AREA


def _log(
    scene: Scene, ego: int, ego_pose: Tensor, pose: Tensor, valid: Tensor, grid: Grid, ground: GroundMap
) -> TrafficLog:
    """A log of a scene's tracks at poses (t, k, 3) where they are valid (t, k): without the ego's own, loose objects
    and those that never come near.
    """
    label = torch.from_numpy(scene.track_class)
    identity = torch.arange(len(label))
    present = valid & (identity != int(scene.ego_track[ego])) & class_mask(DYNAMIC)[label.long()]
    present = present & _near(ego_pose, pose)
    ever = present.any(dim=0)
    pose, present = pose[:, ever], present[:, ever]
    return TrafficLog(
        pose=pose,
        present=present,
        size=torch.from_numpy(scene.track_size)[ever],
        label=label[ever],
        id=identity[ever],
        ego_pose=ego_pose,
        ground=ground.under(ego_pose, pose).masked_fill(~present, UNKNOWN),
    )


def _tracks_at(scene: Scene, times: Tensor) -> tuple[Tensor, Tensor]:
    """States (t, k, 5) float64 of all tracks at times (t,) [s], interpolated between steps, and which exist (t, k)."""
    step = times / scene.dt
    before = torch.floor(step + 1e-4).long().clamp(max=scene.steps - 1)
    weight = (step - before).clamp(min=0)
    weight = torch.where(weight < 1e-4, 0.0, weight)[:, None, None]
    after = (before + (weight[:, 0, 0] > 0)).clamp(max=scene.steps - 1)
    state, valid = torch.from_numpy(scene.track_state), torch.from_numpy(scene.track_valid)
    a, b = state[:, before].transpose(0, 1).double(), state[:, after].transpose(0, 1).double()
    turned = a[..., 2:3] + weight * wrap_angle(b[..., 2:3] - a[..., 2:3])
    between = torch.lerp(a, b, weight)
    known = (valid[:, before] & valid[:, after]).T
    joined = torch.cat((between[..., :2], turned, between[..., 3:]), dim=-1)
    return torch.where(known[..., None], joined, 0.0), known
