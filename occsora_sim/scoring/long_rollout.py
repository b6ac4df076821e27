"""Chained rollouts along routes, looked at from time to time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from occsora_sim.cluster import Told, untold
from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.models.occupancy_encoder import OccupancyEncoder
from occsora_sim.scenes.offers import usable
from occsora_sim.scenes.recorded import Recorded, drawer_of
from occsora_sim.scenes.start import Start, make_start
from occsora_sim.scoring.allocator import give_back
from occsora_sim.scoring.motion_error import chunk_motion
from occsora_sim.scoring.pursuit import drive_route
from occsora_sim.scoring.real_clips import Clips, join, measure_clips
from occsora_sim.scoring.registration import Registration, RegistrationConfig, register
from occsora_sim.scoring.route import make_routes
from occsora_sim.worlds.protocol import World

WINDOW = 4
"""Frames looked at: those that end at the instant."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What n rollouts show in the WINDOW frames that end at one instant.

    Attributes:
        clips: figures of the n windows.
        found: registered motion of the chunks that lie in the window, all rollouts' one after another.
        asked: (m, 3) the motions that their prompts asked for.
        metres: (n,) driven since the start [m].

    """

    clips: Clips
    found: Registration
    asked: Tensor
    metres: Tensor


def drift_starts(scenes: Sequence[Recorded], count: int, grid: Grid, history: int = 4) -> list[Start]:
    """`count` starts with a long way to go: of each scene in turn the expert ego with the longest route, at the
    beginning of its recording; fewer where there are fewer. A `SceneWarning` names the scenes without one.

    Raises:
        SceneError: no scene has an expert ego that is recorded for `history` frames.

    """
    queues: list[list[tuple[float, int, int, int]]] = []
    for number, scene in enumerate(scenes):
        stride, offers = round(FRAME_SECONDS / scene.dt), []
        for ego, kind in enumerate(scene.ego_kind):
            valid = np.flatnonzero(scene.ego_valid[ego])
            if kind == "expert" and len(valid) > (history - 1) * stride:
                metres = float(np.linalg.norm(np.diff(scene.route(ego), axis=0), axis=1).sum())
                offers.append((metres, ego, int(valid[0]) + (history - 1) * stride, number))
        queues.append(sorted(offers, key=lambda offer: -offer[0]))
    longest = max(map(len, queues), default=0)
    usable(scenes, ["" if queue else f"no expert ego is recorded for {history} frames" for queue in queues])
    places = [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)][:count]
    starts: dict[int, Start] = {}
    for number in sorted({place[-1] for place in places}):  # a raster is made once and let go
        voxeliser = drawer_of(scenes[number], grid)
        for row, (_, ego, step, of) in enumerate(places):
            if of == number:
                starts[row] = make_start(scenes[number], ego, step, grid, history, voxeliser)
    return [starts[row] for row in range(len(places))]


def roll(
    world: World,
    unit: tuple[Sequence[Start], Sequence[int]],
    told: Told = untold,
    *,
    instants: Sequence[int],
    config: RegistrationConfig | None = None,
    encoder: OccupancyEncoder | None = None,
) -> list[Look]:
    """Drive the starts' routes to their ends, in one batch; a look at each instant.

    Args:
        world: any world.
        unit: where the rollouts begin, each with a route; and a seed for each.
        told: called after each chunk.
        instants: numbers of frames after the start, ascending, WINDOW or more; the last is the rollout's length.
        config: of the registration.
        encoder: of the frames' features; None: none are taken.

    """
    starts, seeds = unit
    f = world.frames_per_chunk
    chunks = -(-instants[-1] // f)
    poses = route_poses(starts, chunks * f)
    asked = chunk_motion(poses, f)  # (b, chunks, 3)
    metres = poses[..., :2].diff(dim=1).norm(dim=-1).cumsum(dim=1)
    clips: dict[int, Clips] = {}
    motions: dict[int, list[tuple[Registration, Tensor]]] = {at: [] for at in instants}
    state = world.reset(starts, seeds)
    recent = state.occupancy[:, -1:]
    for k in range(chunks):
        before, now = k * f, (k + 1) * f  # frames drawn before and after this chunk
        trajectory = relative(poses[:, before, None], poses[:, before + 1 : now + 1])
        last = recent[:, -1]
        state = world.step(state, trajectory.float())
        recent = torch.cat((recent, state.occupancy), dim=1)[:, -(WINDOW + f) :]
        within = [
            at for at in instants if before < at and now > at - WINDOW
        ]  # the chunk lies in their windows
        if within:
            found = register(last, state.occupancy[:, -1], world.grid, config)
        for at in within:
            motions[at].append((found, asked[:, k]))
            if at <= now:
                end = recent.shape[1] - (now - at)
                seen = poses[:, at - WINDOW + 1 : at + 1]
                clips[at] = measure_clips(recent[:, end - WINDOW : end], seen, world.grid, encoder=encoder)
        give_back()
        told()
    return [
        Look(
            clips=clips[at],
            found=Registration.cat([found for found, _ in motions[at]]),
            asked=torch.cat([wanted for _, wanted in motions[at]]),
            metres=metres[:, at - 1],
        )
        for at in instants
    ]


def route_poses(starts: Sequence[Start], frames: int) -> Tensor:
    """World poses (b, 1 + frames, 3) float64 of egos that follow the starts' routes (`pursuit`)."""
    pose = torch.stack([start.ego_pose[-1] for start in starts]).double()
    speed = torch.stack([_speed(start) for start in starts])
    driven = drive_route(make_routes([start.route for start in starts]), pose, speed, frames)
    return torch.cat((pose[:, None], driven), dim=1)


def merge(looks: Sequence[Look]) -> Look:
    """The rollouts of several looks at one instant, one after another."""
    return Look(
        clips=join([look.clips for look in looks]),
        found=Registration.cat([look.found for look in looks]),
        asked=torch.cat([look.asked for look in looks]),
        metres=torch.cat([look.metres for look in looks]),
    )


def _speed(start: Start) -> Tensor:
    """Speed over the last frame of the history [m/s], a number."""
    if len(start.ego_pose) < 2:
        return torch.zeros((), dtype=torch.float64)
    before, now = start.ego_pose[-2:].double()
    return relative(before, now)[0].clamp(min=0.0) / FRAME_SECONDS
