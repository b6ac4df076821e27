"""The score of a batch of episodes, step by step. The state is a value: `advance` returns a new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from occsora_sim.geometry import compose, relative
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.road_users import RoadUsers
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.comfort import HISTORY, comfortable
from occsora_sim.scoring.contact import find_swept_contact, no_collision, time_to_collision
from occsora_sim.scoring.driving import ScoreConfig, ego_progress, off_road_points, pdms
from occsora_sim.scoring.extended import Extended, begin_extended, epdms, extend
from occsora_sim.scoring.moving_collision import moving_time_to_collision
from occsora_sim.scoring.route import Routes, make_routes
from occsora_sim.vehicle import Vehicle


@dataclass(frozen=True, kw_only=True)
class StepScore:
    """What the driving metrics say about one step of b episodes; each (b,), over the step's f frames.

    Attributes:
        nc: least no-at-fault-collision of the frames, in {0, 0.5, 1}.
        dac: least drivable-area compliance, in {0, 1}.
        ttc: share of the frames with time to collision.
        comfort: share of the comfortable frames.
        progress: new arc length gained on the route [m]; never negative.
        off_road: share of the frames with a footprint point off the road.
        contact: bool, an overlap with anything, at fault or not.
        outside: bool, the whole footprint is off the road at the last frame.
        goal: bool, the route's end is reached.
        route_distance: from the route at the last frame [m].

    """

    nc: torch.Tensor
    dac: torch.Tensor
    ttc: torch.Tensor
    comfort: torch.Tensor
    progress: torch.Tensor
    off_road: torch.Tensor
    contact: torch.Tensor
    outside: torch.Tensor
    goal: torch.Tensor
    route_distance: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """The running score of b episodes.

    Attributes:
        occupancy: (b, x, y, z) uint8, the last frame.
        poses: (b, 4, 3) float64, the last world poses.
        routes: the routes to follow.
        start: (b,) arc length of the start [m].
        near: (b,) arc length of the ego [m].
        best: (b,) largest arc length reached on the route [m].
        start_speed: (b,) [m/s].
        blameless: (b,) bool, a contact that began from behind is going on.
        frames: (b,) frames so far.
        nc, dac: (b,) least so far.
        ttc, comfort: (b,) sums over the frames.
        extended: what EPDMS adds; None where PDMS is asked for.

    """

    occupancy: torch.Tensor
    poses: torch.Tensor
    routes: Routes
    start: torch.Tensor
    near: torch.Tensor
    best: torch.Tensor
    start_speed: torch.Tensor
    blameless: torch.Tensor
    frames: torch.Tensor
    nc: torch.Tensor
    dac: torch.Tensor
    ttc: torch.Tensor
    comfort: torch.Tensor
    extended: Extended | None = None

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Episodes:
        """Every tensor changed in the same way."""
        values: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Routes):
                values[entry.name] = Routes(points=change(value.points), arc=change(value.arc))
            elif isinstance(value, Extended):
                values[entry.name] = value.map(change)
            else:
                values[entry.name] = None if value is None else change(value)
        return Episodes(**values)

    def select(self, rows: Sequence[int]) -> Episodes:
        """The episodes `rows`."""
        index = list(rows)
        return self.map(lambda value: value[index])

    def replace(self, rows: Sequence[int], other: Episodes) -> Episodes:
        """These episodes with `rows` taken from `other`, in order."""
        values: dict[str, Any] = {}
        for entry in fields(self):
            mine, theirs = getattr(self, entry.name), getattr(other, entry.name)
            if isinstance(mine, Routes):
                values[entry.name] = mine.replace(rows, theirs)
            elif isinstance(mine, Extended):
                values[entry.name] = Extended(
                    **{name: _put(value, rows, vars(theirs)[name]) for name, value in vars(mine).items()}
                )
            else:
                values[entry.name] = None if mine is None else _put(mine, rows, theirs)
        return Episodes(**values)

    def summary(self, config: ScoreConfig) -> dict[str, torch.Tensor]:
        """Scores so far, each (b,).

        NAVSIM scores windows of 4 s. Over an episode NC and DAC are the least of all frames, TTC and comfort
        the share of the frames that pass, EP the progress from start to now; `score` is their PDMS, or with the other
        terms of `extended` their EPDMS. Beside them: `progress` [m] and `seconds` [s].
        """
        count = self.frames.clamp(min=1)
        seconds = self.frames * FRAME_SECONDS
        progress = self.best - self.start
        available = (self.routes.length - self.start - config.goal_distance).clamp(min=0.0)
        terms = {
            "nc": self.nc,
            "dac": self.dac,
            "ttc": (self.ttc / count).masked_fill(self.frames <= 0, 1.0),
            "ep": ego_progress(progress, available, self.start_speed, seconds, config),
            "comfort": (self.comfort / count).masked_fill(self.frames <= 0, 1.0),
        }
        score = pdms(**terms)
        if self.extended is not None:
            terms |= self.extended.terms(self.frames)
            score = epdms(terms)
        return {"score": score, **terms, "progress": progress, "seconds": seconds}


def _put(mine: torch.Tensor, rows: Sequence[int], theirs: torch.Tensor) -> torch.Tensor:
    """`mine` with `rows` taken from `theirs`, in order."""
    put = mine.clone()
    put[list(rows)] = theirs
    return put


def begin_episodes(
    starts: Sequence[Start], device: torch.device | str = "cpu", config: ScoreConfig | None = None
) -> Episodes:
    """The score of len(starts) episodes before their first step."""
    poses = []
    for start in starts:
        pose = start.ego_pose.double().to(device)[-(HISTORY + 1) :]
        missing = HISTORY + 1 - len(pose)
        if missing:  # as if it had driven on at the first known velocity, or stood
            step = relative(pose[1], pose[0]) if len(pose) > 1 else pose.new_zeros(3)
            first = pose[0]
            for _ in range(missing):
                first = compose(first, step)
                pose = torch.cat((first[None], pose))
        poses.append(pose)
    pose = torch.stack(poses)
    routes = make_routes([start.route.to(device) for start in starts])
    zeros = torch.zeros(len(starts), device=device)
    near, _ = routes.project(pose[:, -1, :2].float(), zeros, routes.length)
    return Episodes(
        occupancy=torch.stack([start.occupancy[-1].to(device) for start in starts]),
        poses=pose,
        routes=routes,
        start=near,
        near=near,
        best=near,
        start_speed=((pose[:, -1, :2] - pose[:, -2, :2]).norm(dim=-1) / FRAME_SECONDS).float(),
        blameless=zeros.bool(),
        frames=zeros,
        nc=zeros + 1,
        dac=zeros + 1,
        ttc=zeros,
        comfort=zeros,
        extended=None if config is None or config.kind == "pdms" else begin_extended(zeros),
    )


def advance(
    episodes: Episodes,
    occupancy: torch.Tensor,
    ego_pose: torch.Tensor,
    speed: torch.Tensor,
    grid: Grid,
    vehicle: Vehicle,
    config: ScoreConfig,
    users: RoadUsers | None = None,
) -> tuple[Episodes, StepScore]:
    """Score one step.

    Args:
        episodes: the score until now.
        occupancy: (b, f, x, y, z) uint8, the new frames.
        ego_pose: (b, f, 3) their world poses.
        speed: (b, f) of the ego at the frames [m/s].
        grid: where the voxels are.
        vehicle: its size.
        config: options.
        users: the road users at the last frame, for their velocities; None: the time to collision takes them for
            standing, as it does in frames from before the poses that they remember.

    """
    frames = occupancy.shape[1]
    history = torch.cat((episodes.poses, ego_pose.double()), dim=1)  # (b, 4 + f, 3)
    comfort = comfortable(history[:, -(frames + HISTORY) :]).float()  # (b, f)
    pose, last = history[:, HISTORY + 1 :], history[:, HISTORY:-1]  # (b, f, 3)
    moved = (pose[..., :2] - last[..., :2]).norm(dim=-1).float()
    layers = torch.cat((episodes.occupancy[:, None], occupancy), dim=1)
    touch = find_swept_contact(layers[:, :-1], occupancy, relative(last, pose).float(), grid, vehicle, config)
    nc, blameless = no_collision(touch, moved / FRAME_SECONDS, episodes.blameless, config)
    points = off_road_points(occupancy, grid, vehicle, config)  # (b, f, 5)
    off, outside = points.any(dim=-1), points.all(dim=-1)
    known = 0 if users is None else min(frames, users.pose.shape[2])
    ttc = []
    if known < frames:
        ttc.append(
            time_to_collision(
                occupancy[:, : frames - known], speed[:, : frames - known], grid, vehicle, config
            )
        )
    if users is not None:
        ttc.append(moving_time_to_collision(users, pose[:, -known:], speed[:, -known:], vehicle, config))
    near, distance = episodes.routes.follow(pose[..., :2].float(), episodes.near, 2 * moved + 2.0)
    on_route = (distance <= config.route_width) & ~outside
    best = torch.maximum(episodes.best, near.masked_fill(~on_route, -torch.inf).amax(dim=1))
    score = StepScore(
        nc=nc.amin(dim=1),
        dac=1.0 - off.any(dim=1).float(),
        ttc=torch.cat(ttc, dim=1).mean(dim=1),
        comfort=comfort.mean(dim=1),
        progress=best - episodes.best,
        off_road=off.float().mean(dim=1),
        contact=touch.any.any(dim=1),
        outside=outside[:, -1],
        goal=best >= episodes.routes.length - config.goal_distance,
        route_distance=distance[:, -1],
    )
    state = Episodes(
        occupancy=occupancy[:, -1],
        poses=history[:, -(HISTORY + 1) :],
        routes=episodes.routes,
        start=episodes.start,
        near=near[:, -1],
        best=best,
        start_speed=episodes.start_speed,
        blameless=blameless,
        frames=episodes.frames + frames,
        nc=torch.minimum(episodes.nc, score.nc),
        dac=torch.minimum(episodes.dac, score.dac),
        ttc=episodes.ttc + score.ttc * frames,
        comfort=episodes.comfort + score.comfort * frames,
        extended=None
        if episodes.extended is None
        else extend(episodes.extended, history, episodes.routes, near, distance, config),
    )
    return state, score
