"""Where a live world began: the recorded instant found again in the running simulation, and frames of both alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from occsora_sim.errors import SceneError
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.scenes.demand import KINDS
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.sumo_pool import Pose, Users

Sizes = Mapping[str, tuple[float, float, float]]
"""Length, width, height [m] of each vType."""

_SAME = 1e-3  # where a recorded and a live road user are one [m]


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A recorded instant, of which a simulation takes over.

    Attributes:
        scene: the recording.
        time: simulated time of the instant [s].
        ego: SUMO's name of the vehicle that the ego replaces.
        past: the ego's last poses, the newest at the instant.
        known: names of the road users there, in the order of their tracks.
        standing: the first track of the scene that is no road user but stands still for ever.

    """

    scene: Scene
    time: float
    ego: str
    past: tuple[Pose, ...]
    known: tuple[str, ...]
    standing: int


def recognise(
    scene: Scene, ego: int, step: int, time: float, past: tuple[Pose, ...], users: Users, sizes: Sizes
) -> Situation:
    """Tell which road user is which track of the recording.

    Args:
        scene: the recording.
        ego: index of the ego motion.
        step: time step of the instant.
        time: simulated time of the instant [s].
        past: the ego's last poses.
        users: the road users of the simulation at the instant.
        sizes: of the vTypes.

    Raises:
        SceneError: the simulation is not the recorded one, or nobody is replaced by the ego.

    """
    box = _boxes(users, sizes)
    valid = scene.track_valid[:, step].copy()
    state, tracks = scene.track_state[:, step], {}
    for row, (name, kind, *_) in enumerate(users):
        away = np.abs(state[:, :2] - box[row, :2]).max(1)
        away[~valid | (scene.track_class != KINDS[_kind(kind)].label)] = np.inf
        nearest = int(away.argmin()) if len(away) else -1
        if nearest < 0 or away[nearest] > _SAME:
            raise _another_town(scene)
        valid[nearest] = False
        tracks[nearest] = name
    standing = len(valid) - int(valid.sum())
    if not valid[standing:].all():  # somebody of the recording is not there
        raise _another_town(scene)
    own = tracks.get(int(scene.ego_track[ego]))
    if own is None:
        raise SceneError(
            f"scene {scene.name}: ego motion {ego} replaces no vehicle, so no live traffic can take over; "
            "begin with another motion"
        )
    known = tuple(tracks[track] for track in sorted(tracks))
    return Situation(scene=scene, time=time, ego=own, past=past, known=known, standing=standing)


def newcomers(known: Sequence[str], frames: Sequence[Users]) -> tuple[str, ...]:
    """Names of those in `frames` that are not `known`, in order of appearance."""
    names = dict.fromkeys(user[0] for users in frames for user in users)
    return tuple(name for name in names if name not in set(known))


def live_scene(
    situation: Situation, names: Sequence[str], frames: Sequence[Users], sizes: Sizes
) -> tuple[Scene, int]:
    """The scene with live road users for tracks, a time step of FRAME_SECONDS for each of `frames`.

    Args:
        situation: where the world began.
        names: all road users since then, in order of appearance; later ones hide earlier ones.
        frames: the road users of each frame.
        sizes: of the vTypes.

    Returns:
        the scene, and the ego's own track in it (-1: it is on no road).

    """
    scene, first = situation.scene, situation.standing
    present = {user[0]: user[1] for users in frames for user in users}
    order = [name for name in names if name in present]
    index = {name: row for row, name in enumerate(order)}
    state = np.zeros((len(order), len(frames), 5))
    valid = np.zeros((len(order), len(frames)), dtype=bool)
    for column, users in enumerate(frames):
        rows = [index[user[0]] for user in users]
        state[rows, column, :3] = _boxes(users, sizes)
        valid[rows, column] = True
    kinds = [_kind(present[name]) for name in order]
    size = np.array([sizes[_type(present[name])] for name in order]).reshape(-1, 3)
    still = np.repeat(scene.track_state[first:, :1], len(frames), axis=1)
    nobody = {
        "ego_pose": np.zeros((0, len(frames), 3), np.float32),
        "ego_valid": np.zeros((0, len(frames)), bool),
        "ego_track": np.zeros(0, np.int64),
        "ego_kind": (),
        "route_points": np.zeros((0, 2), np.float32),
        "route_offsets": np.zeros(1, np.int64),
    }
    live = replace(
        scene,
        dt=FRAME_SECONDS,
        track_state=np.concatenate((state.astype(np.float32), still)),
        track_valid=np.concatenate((valid, np.ones(still.shape[:2], dtype=bool))),
        track_size=np.concatenate((size.astype(np.float32), scene.track_size[first:])),
        track_class=np.concatenate(
            (np.array([KINDS[kind].label for kind in kinds], dtype=np.uint8), scene.track_class[first:])
        ),
        **nobody,  # type: ignore[arg-type]
    )
    return live, index.get(situation.ego, -1)


def _boxes(users: Users, sizes: Sizes) -> np.ndarray:
    """Centre x, y [m] and yaw [rad] of each road user, (n, 3) float64; as in a recording."""
    table = np.array([user[2:] for user in users], dtype=np.float64).reshape(-1, 3)
    length = np.array([sizes[_type(user[1])][0] for user in users]).reshape(-1, 1)
    yaw = np.pi / 2 - np.radians(table[:, 2])  # clockwise from north to counter-clockwise from east
    yaw = (yaw + np.pi) % (2 * np.pi) - np.pi
    heading = np.stack((np.cos(yaw), np.sin(yaw)), -1)
    return np.concatenate((table[:, :2] - length / 2 * heading, yaw[:, None]), -1)


def _type(name: str) -> str:
    """The vType that a vehicle's own type was made from ("car.3" of "car.3@car12")."""
    return name.split("@")[0]


def _kind(name: str) -> str:
    return name.split(".")[0]


def _another_town(scene: Scene) -> SceneError:
    from occsora_sim.scenes.town import sumo_version

    return SceneError(
        f"scene {scene.name}: its town does not run as it was recorded (then SUMO "
        f"{scene.attributes.get('sumo', 'unknown')}, now {sumo_version()}); make the scene again"
    )
