"""Where an episode begins: the last frames seen, and the route to follow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from occsora_sim.errors import SceneError
from occsora_sim.geometry import wrap_angle
from occsora_sim.grid import FRAME_SECONDS, OCC3D, Grid
from occsora_sim.road_users import HISTORY, RoadUsers
from occsora_sim.scene_prompt import PLACES, ScenePrompt
from occsora_sim.scenes.offers import LEAST_FUTURE, WANTED_FUTURE, find_offers, usable
from occsora_sim.scenes.recorded import Drawer, Recorded, drawer_of
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.voxeliser import Voxeliser

EDITED = "edited"
"""Attribute of a scene whose road users were edited: how."""

SCRIPTED = "scripted"
"""Attribute of an edited scene: JSON, for each scripted track until when it follows its recorded motion in a generated
world [s since the scene's beginning]."""

_REMEMBERED = 60
"""Frames before a start in which the recording is asked who moved last when."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where an episode begins: what was seen until now, and the route to follow.

    Attributes:
        occupancy: (t, x, y, z) uint8 labels of the last frames, oldest first, each in its own ego frame; none at all
            where a generated world is to begin from nothing (`blank.blank_start`).
        ego_pose: (t, 3) float32 world poses of these frames: x, y [m], yaw [rad]; where there are none, the last poses.
        route: (r, 2) float32 polyline in the world frame [m], from behind the ego to the goal.
        name: for reports.
        source: what a world that is not generated replays: (scene, ego index, time index) for the others.
        users: the road users at the last frame with their past, of one world: id is the track, the ego's own is left
            out; None where nobody tracked them (a voxel sequence).
        prompt: what a generated world shall draw on new ground; of a made town its kind of place.
        scripts: by track, world poses (f, 3) float64 at the next frames, which a road user of a generated world follows
            before the model moves it; a recording follows its tracks anyway.

    """

    occupancy: torch.Tensor
    ego_pose: torch.Tensor
    route: torch.Tensor
    name: str = "scene"
    source: Any = None
    users: RoadUsers | None = None
    prompt: ScenePrompt = field(default_factory=ScenePrompt)
    scripts: Mapping[int, torch.Tensor] = field(default_factory=dict)


def ego_poses(scene: Recorded, ego: int, time: torch.Tensor) -> torch.Tensor:
    """World poses of an ego motion, interpolated between its steps (angles the short way round).

    Args:
        scene: the scene.
        ego: index of the ego motion.
        time: (n,) float, seconds since the scene's beginning [s].

    Returns:
        (n, 3) float64: x, y [m], yaw [rad].

    Raises:
        SceneError: there is no such ego motion, or it is not valid at one of the times.

    """
    if not 0 <= ego < len(scene.ego_pose):
        raise SceneError(f"scene {scene.name}: no ego motion {ego}; there are {len(scene.ego_pose)}")
    steps = torch.as_tensor(time, dtype=torch.float64) / scene.dt
    before = torch.floor(steps + 1e-4).long()
    weight = (steps - before).clamp(min=0)
    weight = torch.where(weight < 1e-4, torch.zeros_like(weight), weight)
    after = before + (weight > 0)
    valid = torch.from_numpy(scene.ego_valid[ego])
    within = int(before.min()) >= 0 and int(after.max()) < scene.steps
    if not within or not bool((valid[before] & valid[after]).all()):
        known = np.flatnonzero(scene.ego_valid[ego]) * scene.dt
        span = f"from {known[0]:g} to {known[-1]:g} s" if len(known) else "never"
        raise SceneError(
            f"scene {scene.name}: ego motion {ego} is known {span}, not from {float(time.min()):g} to "
            f"{float(time.max()):g} s; choose another step or a shorter history"
        )
    pose = torch.from_numpy(scene.ego_pose[ego].astype(np.float64))
    a, b = pose[before], pose[after]
    turn = wrap_angle(b[:, 2] - a[:, 2])
    b = torch.cat((b[:, :2], (a[:, 2] + turn)[:, None]), dim=1)
    between = torch.lerp(a, b, weight[:, None])
    return torch.cat((between[:, :2], wrap_angle(between[:, 2:])), dim=1)


def place_of(scene: Recorded) -> ScenePrompt:
    """A scene prompt for the kind of place that a scene says it is; open where it says none."""
    place = scene.attributes.get("plan")
    return ScenePrompt(place=place if place in PLACES else None)


def make_start(
    scene: Recorded,
    ego: int,
    step: int,
    grid: Grid = OCC3D,
    history: int = 4,
    voxeliser: Drawer | None = None,
) -> Start:
    """The start of an episode at time step `step`, seen from ego motion `ego`.

    Args:
        scene: the scene.
        ego: index of the ego motion; the track that it replaces is left out.
        step: time step of the last frame.
        grid: the voxels around the ego.
        history: number of frames, FRAME_SECONDS apart, that end at `step`.
        voxeliser: the scene's own, where one is at hand (making one costs a fraction of a second).

    Raises:
        SceneError: the ego motion does not exist or is not known over the whole history.

    """
    if history < 1:
        raise SceneError(f"scene {scene.name}: a start needs a history of at least 1 frame, not {history}")
    time = step * scene.dt + FRAME_SECONDS * torch.arange(1 - history, 1, dtype=torch.float64)
    pose = ego_poses(scene, ego, time)
    voxeliser = voxeliser or drawer_of(scene, grid)
    exclude = torch.full((history,), int(scene.ego_track[ego]))
    users, scripts = None, {}
    if isinstance(voxeliser, Voxeliser):
        scripts = _scripts(voxeliser, step)
        users = voxeliser.road_users(pose[-1:], time[-1:], exclude[-1:], max(history, HISTORY, _REMEMBERED))
        kept = slice(-max(history, HISTORY), None)  # of what was before it is known who moved, and when
        users = replace(users, pose=users.pose[:, :, kept], present=users.present[:, :, kept])
    return Start(
        occupancy=voxeliser.frames(pose, time, exclude),
        ego_pose=pose.float(),
        route=torch.from_numpy(scene.route(ego).astype(np.float32)),
        name=f"{scene.name}/{ego}@{step * scene.dt:.1f}s",
        source=(scene, ego, step),
        users=users,
        prompt=place_of(scene),
        scripts=scripts,
    )


def script_ends(scene: Scene) -> dict[int, float]:
    """Until when each scripted track of an edited scene is [s since its beginning].

    Raises:
        SceneError: its attribute SCRIPTED cannot be.

    """
    last = (scene.steps - 1) * scene.dt + 1e-4
    try:
        told = json.loads(scene.attributes.get(SCRIPTED, "{}"))
        ends = {int(track): float(end) for track, end in told.items()}
        if not all(0 <= track < len(scene.track_class) and 0 <= end <= last for track, end in ends.items()):
            raise ValueError("no such track or time")
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SceneError(
            f"scene {scene.name}: its attribute {SCRIPTED!r} is not of it; edit the scene again"
        ) from error
    return ends


def _scripts(voxeliser: Voxeliser, step: int) -> dict[int, torch.Tensor]:
    """`Start.scripts` of a scene at a time step."""
    scene, scripts = voxeliser.scene, {}
    now = step * scene.dt
    for track, end in script_ends(scene).items():
        count = int((end - now) / FRAME_SECONDS + 1e-4)
        if count > 0:
            device = voxeliser.device
            time = now + FRAME_SECONDS * torch.arange(1, count + 1, dtype=torch.float64, device=device)
            place = torch.zeros(count, dtype=torch.long, device=device)
            state, _ = voxeliser.tracks.states(place, place[:, None] + track, time)
            scripts[track] = state[:, 0, :3].cpu()
    return scripts


def sample_starts(
    scenes: Sequence[Recorded],
    count: int,
    seed: int,
    history: int = 4,
    grid: Grid = OCC3D,
    kinds: tuple[str, ...] = ("expert",),
    future: float = WANTED_FUTURE,
    least_future: float = LEAST_FUTURE,
    minimum_speed: float = 1.0,
    only: int | None = None,
) -> list[Start]:
    """Draw `count` starts: spread evenly over the scenes, and within a scene over its ego motions. None is drawn twice
    before all were drawn.

    Args:
        scenes: where from; those that offer no start are left out, and named in a `SceneWarning`.
        count: number of starts.
        seed: the same arguments give the same starts.
        history: frames of each start.
        grid: the voxels around the ego.
        kinds: of `Scene.ego_kind`, which ego motions to use.
        future: how long the motion goes on after the start, where the scene is long enough [s]; `find_offers`.
        least_future: how long in any scene [s].
        minimum_speed: mean speed of the motion over that future [m/s], so that the ego does not just stand.
        only: make the start of this number alone.

    Raises:
        SceneError: no scene offers such a start.

    """
    rng = np.random.default_rng(seed)
    offers = [
        find_offers(
            scene,
            history=history,
            kinds=kinds,
            future=future,
            least_future=least_future,
            speed=minimum_speed,
        )
        for scene in scenes
    ]
    order = rng.permutation(usable(scenes, [offer.reason for offer in offers]))
    starts: list[Start | None] = [None] * count
    rows = _dealt(count, [len(offers[k]) for k in order])
    for place, k in enumerate(order[:count]):  # scene by scene: a raster is made once and let go
        voxeliser = drawer_of(scenes[k], grid) if only is None or only in rows[place] else None
        steps = offers[k].steps
        egos = [int(ego) for ego in rng.permutation(sorted(steps))]
        turns = _dealt(len(rows[place]), [len(steps[ego]) for ego in egos])
        drawn: dict[int, set[int]] = {ego: set() for ego in egos}
        for turn, ego in sorted((t, ego) for ego, mine in zip(egos, turns, strict=True) for t in mine):
            step = int(steps[ego][draw_new(rng, len(steps[ego]), drawn[ego])])
            if only is None or only == rows[place][turn]:
                starts[rows[place][turn]] = make_start(scenes[k], ego, step, grid, history, voxeliser)
    return [start for start in starts if start is not None]


def draw_new(rng: np.random.Generator, count: int, drawn: set[int]) -> int:
    """One of `count` numbers that is not in `drawn`, each as likely, and add it; once all were drawn, begin anew."""
    if len(drawn) >= count:
        drawn.clear()
    number = int(rng.integers(count))
    if number in drawn:
        left = [other for other in range(count) if other not in drawn]
        number = left[int(rng.integers(len(left)))]
    drawn.add(number)
    return number


def _dealt(count: int, holds: Sequence[int]) -> list[list[int]]:
    """`count` turns dealt to holders in their order, round by round; whose are all taken is passed over until nobody
    has one left. The turns of each.
    """
    turns: list[list[int]] = [[] for _ in holds]
    taken, holder = [0] * len(holds), 0
    for turn in range(count):
        if sum(taken) == sum(holds):
            taken, holder = [0] * len(holds), 0
        while taken[holder % len(holds)] == holds[holder % len(holds)]:
            holder += 1
        turns[holder % len(holds)].append(turn)
        taken[holder % len(holds)] += 1
        holder += 1
    return turns
