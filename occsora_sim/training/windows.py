"""Training windows: a few frames of history, a chunk of future, seen from recorded egos, drawn by step number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from occsora_sim.errors import SceneError
from occsora_sim.geometry import compose, relative
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.models.bodies import draw_bodies
from occsora_sim.models.columns import UNSEEN, ground_image, road_user_image, without_road_users
from occsora_sim.models.context import Context, build_context
from occsora_sim.models.motion import MotionEstimator, smooth_displacement
from occsora_sim.models.patches import count_vehicles
from occsora_sim.models.vehicle_motion import move_as_vehicles
from occsora_sim.models.walkers import stop_before, walk_on
from occsora_sim.models.warp import warp, warp_nearest
from occsora_sim.scenes.recorded import Recorded, drawer_of, drawers_of
from occsora_sim.scenes.start import place_of
from occsora_sim.training.fraying import fray

ROUTE_POINTS = 160
"""Points of a route that a model sees, about 1 m apart, around the ego."""


BLANK = 0.3
"""Share of the windows with forgotten ground in which all of it is; there alone a scene prompt decides everything."""


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
        self.voxelisers = (
            drawers_of(self.scenes, grid, workers)
            if self.device.type == "cpu"
            else [drawer_of(scene, grid, device) for scene in self.scenes]
        )
        self.spans: list[tuple[int, int, int, int]] = []  # scene, ego, first and last admissible present step
        for index, scene in enumerate(self.scenes):
            stride = round(FRAME_SECONDS / scene.dt)
            for ego in range(len(scene.ego_kind)):
                valid = np.flatnonzero(scene.ego_valid[ego])
                if len(valid) > (history + future) * stride:
                    span = (int(valid[0]) + (history - 1) * stride, int(valid[-1]) - future * stride)
                    self.spans.append((index, ego, *span))
        if not self.spans:
            raise SceneError(
                f"training: none of {len(self.scenes)} scenes holds {history + future} frames of ego motion"
            )

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


def aligned_images(labels: Tensor, poses: Tensor, grid: Grid, frames: int) -> Tensor:
    """Road-user images of the last `frames` frames, warped into the newest ego frame.

    labels (b, h, x, y, z), poses (b, h, 3) -> (b, frames, x, y, 2) uint8; older frames that do not exist repeat the
    oldest one.
    """
    h = labels.shape[1]
    newest = poses[:, -1:]
    images = []
    for k in range(frames):
        at = max(0, h - frames + k)
        image = road_user_image(labels[:, at])
        images.append(image if at == h - 1 else warp(image, poses[:, at], newest, grid, fill=0)[:, 0])
    return torch.stack(images, dim=1)


def window_context(
    windows: Windows,
    motion: MotionEstimator,
    grid: Grid,
    future: Sequence[int],
    *,
    generator: torch.Generator,
    route_dropout: float = 0.3,
    corruption: float = 0.0,
    fraying: float = 0.0,
) -> Context:
    """The context of the future frames `future` (0-based) of each window, from its history alone.

    `corruption` and `fraying` are the shares of windows whose known ground `forget` and `fray` spoil.
    """
    h = windows.history
    labels, poses = windows.labels[:, :h], windows.poses[:, :h]
    target = windows.poses[:, [h + k for k in future]]
    with torch.no_grad():
        images = aligned_images(labels, poses, grid, motion.frames)
        displacement = smooth_displacement(
            motion(images, ground_image(labels[:, -1], grid)).float(), images[:, -1]
        )
        own = road_user_image(labels[:, -motion.frames :])  # each in its own ego frame
        nowhere = torch.zeros(*own.shape[:4], 2, device=own.device)
        displacement, offset = walk_on(displacement, own, nowhere, poses[:, -motion.frames :], grid)
        after = relative(poses[:, -1:], windows.poses[:, h:])
        displacement = stop_before(displacement, images[:, -1], after, grid)
        displacement = move_as_vehicles(displacement, images[:, -1], grid, ego=after)[:, list(future)]
        bodies = draw_bodies(labels[:, -1], displacement, offset, poses[:, -1], target, grid)
        # As the record answers that a world begins with: of as near columns, the newest frame's. (What a resampler
        # would put right at edges is left as it is: it may be trained after the rest.)
        everywhere = torch.ones(*labels.shape[:4], dtype=torch.bool, device=labels.device)
        static = warp_nearest(without_road_users(labels).flip(1), everywhere, poses.flip(1), target, grid)
        forgotten = None
        if corruption > 0:
            forgotten, nobody = forget(len(labels), corruption, grid, generator)
            forgotten, nobody = (mask.to(labels.device) for mask in (forgotten, nobody))
            static = static.masked_fill(forgotten[:, None, :, :, None], UNSEEN)
        if fraying > 0:
            static = fray(static, target, fraying, grid, generator)
        route = windows.route.clone()
        dropped = torch.rand(len(route), generator=generator) < route_dropout
        route[dropped.to(route.device)] = math.nan
        known = build_context(
            static=static,
            last=bodies.rest,
            last_pose=poses[:, -1],
            last_image=warp(images[:, -1], poses[:, -1], target, grid, fill=0),
            displacement=displacement,
            target_pose=target,
            seconds=torch.tensor([(k + 1) * FRAME_SECONDS for k in future], device=labels.device),
            route=route,
            grid=grid,
            drawn=(bodies.labels, bodies.way),
        )
        return known if forgotten is None else without_known(known, forgotten & nobody)


def forget(count: int, share: float, grid: Grid, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What to make unseen in a `share` of `count` windows, so that the models learn to draw much more than the thin
    strip that one chunk uncovers: everything beyond a random straight line, or everything at all (a start from
    nothing), in all frames alike.

    Returns:
        (count, x, y) bool, the forgotten columns; and (count, 1, 1) bool, whether nobody is remembered there either: in
        half of these windows, and wherever everything is forgotten. New ground has road users of its own, and a model
        that was always shown them would draw none.

    """
    nx, ny, _ = grid.shape
    chance = torch.rand(count, generator=generator)
    angle = torch.rand(count, generator=generator) * 2 * math.pi
    offset = torch.rand(count, generator=generator) * 1.2 - 0.2  # in half views
    nobody = torch.rand(count, generator=generator) < 0.5
    grid_x, grid_y = torch.meshgrid(torch.linspace(-1, 1, nx), torch.linspace(-1, 1, ny), indexing="ij")
    beyond = grid_x * angle.cos()[:, None, None] + grid_y * angle.sin()[:, None, None] > offset[:, None, None]
    blank = chance < share * BLANK
    beyond = (beyond | blank[:, None, None]) & (chance < share)[:, None, None]
    return beyond, (nobody | blank)[:, None, None]


def without_known(known: Context, columns: Tensor) -> Context:
    """`known` without road users in `columns` (b, x, y), which are unseen, of every frame; its route stays."""
    columns = columns[:, None]
    auxiliary = known.auxiliary.clone()
    auxiliary[:, :, :4] = auxiliary[:, :, :4].masked_fill(columns[:, :, None], 0.0)
    prior = known.prior.masked_fill(columns[..., None], UNSEEN)
    return replace(known, prior=prior, auxiliary=auxiliary)
