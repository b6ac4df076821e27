"""Edits a recorded scene at a start: road users placed, moved, removed, or driven along a path."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from occsora_sim.envs.road_user_edit import FASTEST, RoadUserEdit
from occsora_sim.envs.scripted_path import Motion, cut_in, drive_path
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import compose, relative
from occsora_sim.grid import CLASSES, FRAME_SECONDS, OCC3D, Grid
from occsora_sim.scenes.offers import PINNED
from occsora_sim.scenes.road_users import SIZES
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import EDITED, SCRIPTED, Start, ego_poses, make_start, script_ends
from occsora_sim.scoring.oriented_boxes import ego_box, separation
from occsora_sim.vehicle import Vehicle

_AHEAD = 10.0  # where a road user cuts in from where nobody says where [m]
_SLOWEST = 3.0  # at which a road user cuts in where nobody says how fast [m/s]


def edit_start(
    start: Start, edits: Sequence[RoadUserEdit], grid: Grid = OCC3D, vehicle: Vehicle | None = None
) -> Start:
    """A start with other road users: its frames, its tracks and the scene that goes on from it.

    Args:
        start: made from a vector scene.
        edits: applied one after another.
        grid: of its frames.
        vehicle: the ego, which nobody may overlap.

    Raises:
        ConfigurationError: an edit that cannot be, or a start that has no tracks.

    """
    if start.source is None or not isinstance(start.source[0], Scene):
        raise ConfigurationError(
            f"road_users: start {start.name!r} has no tracks of road users that could be edited; begin in a town, a "
            "log or a scene file"
        )
    scene, ego, step = start.source
    edited = make_start(
        edit_scene(scene, ego, step, edits, grid, vehicle), 0, step, grid, len(start.occupancy)
    )
    return replace(edited, prompt=start.prompt)


def edit_scene(
    scene: Scene,
    ego: int,
    step: int,
    edits: Sequence[RoadUserEdit],
    grid: Grid = OCC3D,
    vehicle: Vehicle | None = None,
) -> Scene:
    """A scene with other road users, and with one start alone: ego motion `ego` at time step `step`.

    Tracks keep their numbers; new ones come behind them. Arguments and errors as of `edit_start`.
    """
    moment = step * scene.dt - torch.tensor([FRAME_SECONDS, 0.0], dtype=torch.float64)
    before, origin = ego_poses(scene, ego, moment)
    situation = _Situation(
        scene=scene, step=step, origin=origin, ego_track=int(scene.ego_track[ego]), grid=grid,
        ego_speed=float((origin - before)[:2].norm()) / FRAME_SECONDS, route=scene.route(ego).astype(np.float64),
    )  # fmt: skip
    touched: dict[int, str] = {}
    scripted = script_ends(scene)
    for place, edit in enumerate(edits):
        where = f"road_users[{place}]"
        track, until = situation.apply(edit, where)
        scripted.pop(track, None)
        touched.pop(track, None)
        if edit.remove is None:
            touched[track] = where
        if until is not None:
            scripted[track] = until
    situation.check_room(touched, vehicle or Vehicle())
    route, one = scene.route(ego), slice(ego, ego + 1)
    return replace(
        situation.scene,
        name=scene.name if EDITED in scene.attributes else f"{scene.name}-edited",
        ego_pose=scene.ego_pose[one],
        ego_valid=scene.ego_valid[one],
        ego_track=scene.ego_track[one],
        ego_kind=scene.ego_kind[one],
        route_points=route,
        route_offsets=np.array([0, len(route)]),
        attributes={
            **scene.attributes,
            EDITED: str(scene.attributes.get(EDITED, "")) + json.dumps([edit.written() for edit in edits]),
            SCRIPTED: json.dumps(scripted),
            PINNED: str(step),
        },
    )


@dataclass(kw_only=True)
class _Situation:
    """A scene while it is edited, from an ego at world pose `origin` (3,) that drives at `ego_speed` [m/s]."""

    scene: Scene
    step: int
    origin: torch.Tensor
    ego_track: int
    ego_speed: float
    route: np.ndarray
    grid: Grid

    def apply(self, edit: RoadUserEdit, where: str) -> tuple[int, float | None]:
        """Edit; returns the track, and until when it is scripted [s since the scene's beginning]."""
        scene = self.scene
        identity = edit.id if edit.remove is None else edit.remove
        if identity is None:
            identity = self._add(edit)
        elif (
            identity >= len(scene.track_class)
            or identity == self.ego_track
            or not scene.track_valid[identity, self.step]
        ):
            raise ConfigurationError(
                f'{where}: there is no road user {identity} at the start; info["road_user_ids"] or `scenes edit` names '
                "those that are there"
            )
        if edit.remove is not None:
            valid = scene.track_valid.copy()
            valid[identity] = False
            self.scene = replace(scene, track_valid=valid)
            return identity, None
        return identity, self._move(identity, edit, where)

    def _add(self, edit: RoadUserEdit) -> int:
        """Add a track that is not there at any time yet; returns its number."""
        scene, label = self.scene, CLASSES.index(str(edit.class_))

        def append(values: np.ndarray, one: object) -> np.ndarray:
            return np.concatenate((values, np.asarray(one, dtype=values.dtype)[None]))

        self.scene = replace(
            scene,
            track_state=append(scene.track_state, np.zeros((scene.steps, 5))),
            track_valid=append(scene.track_valid, np.zeros(scene.steps)),
            track_size=append(scene.track_size, edit.size or SIZES[label]),
            track_class=append(scene.track_class, label),
        )
        return len(scene.track_class)

    def _move(self, track: int, edit: RoadUserEdit, where: str) -> float | None:
        """Give a track the motion that is asked for; returns until when it is scripted."""
        scene, known = self.scene, edit.id is not None
        state = scene.track_state[track, self.step].astype(np.float64)
        if known:
            there = relative(self.origin, torch.from_numpy(state[:3])).tolist()
            speed = float(np.hypot(*state[3:]))
        else:
            there = [_AHEAD, 0.0, 0.0]
            speed = max(self.ego_speed, _SLOWEST) if edit.cut_in else 0.0
        asked = (edit.x, edit.y, edit.yaw)
        local = [value if given is None else given for given, value in zip(asked, there, strict=True)]
        here = self._world(local)
        speed = speed if edit.speed is None else edit.speed
        left = (scene.steps - 1 - self.step) * scene.dt
        until = edit.path[-1][0] if edit.path else edit.seconds if edit.cut_in else None
        if until is not None and until > left + 1e-6:
            raise ConfigurationError(
                f"{where}: it is scripted for {until:g} s, and the recording goes on for {left:g} s after the start"
            )
        if edit.cut_in:
            if speed < 1:
                raise ConfigurationError(f"{where}: to cut in it must drive; give a speed of 1 m/s or more")
            beside = local[0] if not known and edit.y is None else None
            motion = cut_in(
                here, self.route, self.origin.numpy(), edit.cut_in, edit.seconds, speed, left, beside, where
            )
        else:
            time = [pose[0] for pose in edit.path]
            path = [self._world(pose[1:]) for pose in edit.path]
            start_speed = None if edit.path and edit.speed is None else speed
            motion = drive_path(here, time, path, start_speed)
        if motion.fastest > FASTEST:
            raise ConfigurationError(
                f"{where}: its path takes {motion.fastest:.0f} m/s; {FASTEST:g} are possible"
            )
        self._write(track, motion, keep_past=known and asked == (None,) * 3 and edit.speed is None)
        return None if until is None else self.step * scene.dt + until

    def _write(self, track: int, motion: Motion, keep_past: bool) -> None:
        """Write a motion into a track, from some seconds before the start to the end of the scene."""
        scene = self.scene
        states, valid = scene.track_state.copy(), scene.track_valid.copy()
        new, there = motion.sampled((np.arange(scene.steps) - self.step) * scene.dt)
        after = np.arange(scene.steps) > self.step if keep_past else np.ones(scene.steps, dtype=bool)
        states[track, after], valid[track, after] = new[after], there[after]
        self.scene = replace(scene, track_state=states, track_valid=valid)

    def check_room(self, touched: dict[int, str], vehicle: Vehicle) -> None:
        """See that those who were `touched`, by track, are in view and overlap nobody at the start.

        Raises:
            ConfigurationError: one is not, or does.

        """
        scene = self.scene
        there = np.flatnonzero(scene.track_valid[:, self.step])
        there = there[there != self.ego_track]
        pose = torch.from_numpy(scene.track_state[there, self.step, :3].astype(np.float64))
        size = torch.from_numpy(scene.track_size[there, :2].astype(np.float64))
        ego, ego_size = ego_box(self.origin, vehicle)
        for track, where in touched.items():
            row = int(np.flatnonzero(there == track)[0])
            local = relative(self.origin, pose[row])[:2].tolist()
            if not all(
                low <= at < up
                for at, low, up in zip(local, self.grid.lower[:2], self.grid.upper[:2], strict=True)
            ):
                raise ConfigurationError(
                    f"{where}: x={local[0]:.1f}, y={local[1]:.1f} is out of view, which is {self.grid.lower[0]:g} to "
                    f"{self.grid.upper[0]:g} m around the ego"
                )
            if float(separation(pose[row], size[row], ego, ego_size)) < 0:
                raise ConfigurationError(f"{where}: overlaps the ego at the start; place it farther away")
            gap = separation(pose[row], size[row], pose, size)
            gap[row] = 1.0
            if float(gap.min()) < 0:
                other = int(there[int(gap.argmin())])
                raise ConfigurationError(
                    f"{where}: overlaps road user {other} at the start; move or remove one of them"
                )

    def _world(self, local: Sequence[float]) -> np.ndarray:
        """A pose of the ego frame in the world, (3,) float64."""
        return compose(self.origin, torch.tensor(list(local), dtype=torch.float64)).numpy()
