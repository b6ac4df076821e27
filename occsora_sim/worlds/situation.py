"""Where a live world began: the recorded instant found again in the simulation, and the road users of both alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from occsora_sim.errors import SceneError
from occsora_sim.grid import FRAME_SECONDS, OCC3D
from occsora_sim.road_users import RoadUsers, from_tracks, velocity_of
from occsora_sim.scenes.demand import KINDS
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.sumo_pool import Pose, Users
from occsora_sim.scenes.tracks import Tracks

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
        tracks: their tracks.
        standing: the first track of the scene that is no road user but stands still for ever.

    """

    scene: Scene
    time: float
    ego: str
    past: tuple[Pose, ...]
    known: tuple[str, ...]
    tracks: tuple[int, ...]
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
    return Situation(
        scene=scene, time=time, ego=own, past=past, known=tuple(tracks[track] for track in sorted(tracks)),
        tracks=tuple(sorted(tracks)), standing=standing,
    )  # fmt: skip


def newcomers(known: Sequence[str], frames: Sequence[Users]) -> tuple[str, ...]:
    """Names of those in `frames` that are not `known`, in order of appearance."""
    names = dict.fromkeys(user[0] for users in frames for user in users)
    return tuple(name for name in names if name not in set(known))


def recorded_past(situation: Situation, step: int, history: int) -> RoadUsers:
    """Where the road users of the recording were at the last `history` instants up to `step`, (1, n, history): id is
    the track. Those that are not there at `step` are left out; so is the track of what stands still for ever.
    """
    scene, tracks = situation.scene, list(situation.tracks)
    moment = torch.arange(1 - history, 1) * FRAME_SECONDS + step * scene.dt
    table = Tracks((scene,), OCC3D, torch.device("cpu"))
    row = torch.zeros(history, dtype=torch.long)
    state, valid = table.states(row, torch.tensor(tracks)[None].expand(history, -1), moment.double())
    began = scene.track_valid[tracks].argmax(1)
    users = from_tracks(
        state[..., :3].transpose(0, 1),
        (valid & (moment >= -1e-4)[:, None]).T,
        state[-1, :, 3:],
        torch.from_numpy(scene.track_size[tracks]),
        torch.from_numpy(scene.track_class[tracks]),
        torch.tensor(tracks),
    )
    lived = np.floor((step - began) * scene.dt / FRAME_SECONDS + 1e-3) + 1
    return replace(users, age=torch.from_numpy(lived).int()[None])


def live_users(
    situation: Situation,
    came: Sequence[str],
    frames: Sequence[Users],
    sizes: Sizes,
    past: RoadUsers,
    history: int,
) -> RoadUsers:
    """The road users after `frames`, (1, n, history), the ego left out; later ones hide earlier ones.

    The id of one that the recording knows is its track; those that came since are numbered from the tracks on. Who was
    there in one of `frames` and no longer is has a slot too, but is not `valid`.

    Args:
        situation: where the world began.
        came: names of those that came since, in order of appearance.
        frames: the road users of each frame.
        sizes: of the vTypes.
        past: the road users before, (1, m, h).
        history: instants that are told.

    """
    scene, first = situation.scene, situation.standing
    total = len(scene.track_class)
    numbers = dict(zip(situation.known, situation.tracks, strict=True))
    numbers |= {name: total + index for index, name in enumerate(came)}
    kind = {user[0]: user[1] for users in frames for user in users if user[0] != situation.ego}
    names = [name for name in numbers if name in kind]
    index = {name: row for row, name in enumerate(names)}
    identity = np.array([numbers[name] for name in names], dtype=np.int64)
    before = past.pose.shape[2]
    pose = np.zeros((len(names), before + len(frames), 3))
    present = np.zeros(pose.shape[:2], dtype=bool)
    age = np.zeros(len(names), dtype=np.int32)
    slot = {number: place for place, number in enumerate(past.id[0].tolist()) if number >= 0}
    old = [(row, slot[number]) for row, number in enumerate(identity.tolist()) if number in slot]
    if old:
        row, place = np.array(old).T
        pose[row, :before] = past.pose[0].cpu().numpy()[place]
        present[row, :before] = past.present[0].cpu().numpy()[place]
        age[row] = past.age[0].cpu().numpy()[place]
    for column, users in enumerate(frames, start=before):
        rows = [index.get(user[0], -1) for user in users]
        mine = np.flatnonzero(np.array(rows) >= 0)
        at = np.array(rows, dtype=np.int64)[mine]
        pose[at, column], present[at, column] = _boxes(users, sizes)[mine], True
    age += present[:, before:].sum(1, dtype=np.int32)
    # A pose that is not known repeats the nearest later one that is, or the last before.
    for column in range(pose.shape[1] - 2, -1, -1):
        gone = ~present[:, column]
        pose[gone, column] = pose[gone, column + 1]
    for column in range(1, pose.shape[1]):
        gone = np.logical_not(present[:, column:].any(axis=1))
        pose[gone, column] = pose[gone, column - 1]
    still = np.repeat(scene.track_state[first:, :1, :3].astype(np.float64), pose.shape[1], axis=1)
    size = np.array([sizes[_type(kind[name])] for name in names], dtype=np.float32).reshape(-1, 3)
    label = np.array([KINDS[_kind(kind[name])].label for name in names], dtype=np.uint8)
    all_pose = torch.from_numpy(np.concatenate((pose, still)))[:, -history:]
    everywhere = np.ones(still.shape[:2], dtype=bool)
    all_present = torch.from_numpy(np.concatenate((present, everywhere)))[:, -history:]
    steps = before + len(frames)
    ages = np.concatenate((age, np.full(len(still), steps, dtype=np.int32)))
    return RoadUsers(
        label=torch.from_numpy(np.concatenate((label, scene.track_class[first:].astype(np.uint8))))[None],
        size=torch.from_numpy(np.concatenate((size, scene.track_size[first:].astype(np.float32))))[None],
        pose=all_pose[None],
        present=all_present[None],
        velocity=velocity_of(all_pose, all_present)[None],
        id=torch.from_numpy(np.concatenate((identity, np.arange(first, total))))[None],
        age=torch.from_numpy(ages)[None],
    )


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
