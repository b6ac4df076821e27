"""Training windows of the traffic model: road users around one of them, what each does next, the ground about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from occsora_sim.errors import SceneError
from occsora_sim.geometry import relative, wrap_angle
from occsora_sim.grid import (
    BICYCLE,
    BUS,
    CAR,
    CONSTRUCTION_VEHICLE,
    DYNAMIC,
    FRAME_SECONDS,
    MOTORCYCLE,
    OCC3D,
    PEDESTRIAN,
    TRAILER,
    TRUCK,
)
from occsora_sim.models.ground_crop import CROP, OBSTACLE, UNSEEN_GROUND, crop_points, kinds_of_columns
from occsora_sim.models.traffic import AHEAD
from occsora_sim.models.traffic_motion import STANDS, Motion, motion_between
from occsora_sim.road_users import HISTORY, MOVES, NEVER, SLOTS, RoadUsers
from occsora_sim.scene_prompt import PLACES
from occsora_sim.scenes.raster import rasterise
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import place_of
from occsora_sim.training.history_errors import blur, nudge
from occsora_sim.training.processes import WHOLE, Part

REACH = 64.0
"""Road users are simulated within this distance of the ego [m]."""

_CELL = 0.4  # of the ground's kinds [m]
_VIEW = 40.0  # half an edge of what the ego sees [m]
_SHOWN = (0, 6, 12, 20)  # frames ago at which the ego may have seen the ground
_DRIVES = (CAR, BUS, TRUCK, MOTORCYCLE)

_LONGEST = 5.0  # e^5 frames are a minute: for how long road users were seen, at most

FEW = 8
"""Road users of a window around one that moves."""

_KINDS = ((CAR,), (BUS, TRUCK, TRAILER, CONSTRUCTION_VEHICLE), (BICYCLE, MOTORCYCLE), (PEDESTRIAN,))
_SHARES = (0.4, 0.12, 0.12, 0.12, 0.24)  # of such windows; the last around a vehicle that waits


@dataclass(frozen=True, kw_only=True)
class TrafficWindows:
    """b instants of recorded traffic.

    Attributes:
        users: road users, histories until now, slots filled from the front; the ego is one of them.
        ego: (b, n) bool, which one; nobody in windows around any other road user.
        recorded: (b, n, 3) float64, where they were recorded now; elsewhere than in `users` where these were nudged.
        travel: (b, n) float32, how far they came in the last frame [m]: as recorded, or as measured with errors.
        later: (b, n, AHEAD, 3) float64, their poses in the next frames.
        known: (b, n, AHEAD) bool, whether these were recorded.
        crops: (b, n, *CROP) uint8 kinds of ground around each.
        place: (b,) int64, the kind of place, -1 where it is not known.

    """

    users: RoadUsers
    ego: Tensor
    recorded: Tensor
    travel: Tensor
    later: Tensor
    known: Tensor
    crops: Tensor
    place: Tensor

    def to(self, device: torch.device) -> TrafficWindows:
        """The same on `device`."""
        if device.type == "cpu":
            return self
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "users"}
        moved = {name: value.to(device) for name, value in values.items()}
        return TrafficWindows(users=self.users.map(lambda value: value.to(device)), **moved)


class GroundAtlas:
    """The kinds of ground of many scenes, read at any places of any of them in one call."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        maps, self._shape, self._origin, self._first = [], [], [], [0]
        for scene in scenes:
            raster = rasterise(scene, OCC3D, _CELL)
            kinds = kinds_of_columns(raster.palette, OCC3D)[raster.columns.long()]
            still = ~np.isin(scene.track_class, DYNAMIC)  # barriers, cones: they stand where they stand
            at = scene.track_state[still, 0, :2]
            cell = np.round((at - np.array(raster.origin)) / _CELL).astype(np.int64)
            inside = ((cell >= 0) & (cell < np.array(kinds.shape))).all(1)
            kinds[cell[inside, 0], cell[inside, 1]] = OBSTACLE
            maps.append(kinds.flatten())
            self._shape.append(kinds.shape)
            self._origin.append(raster.origin)
            self._first.append(self._first[-1] + kinds.numel())
        self._kinds = torch.cat(maps)
        self._table = torch.tensor(
            [(*o, *s, f) for o, s, f in zip(self._origin, self._shape, self._first, strict=False)]
        ).double()

    def crops(self, scene: Tensor, pose: Tensor) -> Tensor:
        """Crops (n, *CROP) uint8 around world poses (n, 3) in the scenes (n,) int64; outside of all UNSEEN_GROUND."""
        table = self._table[scene]
        origin = torch.nn.functional.pad(table[:, :2], (0, 1))
        i, j = torch.floor(crop_points(pose, origin) / _CELL + 0.5).unbind(-1)
        width, height = table[:, 2:4].float()[..., None, None].unbind(1)
        inside = (i >= 0) & (i < width) & (j >= 0) & (j < height)
        flat = table[:, 4].long()[:, None, None] + (i * height + j).long()
        return torch.where(inside, self._kinds[torch.where(inside, flat, 0)], UNSEEN_GROUND)


class TrafficSampler:
    """Draws windows from vector scenes; the same (seed, step) draws the same, so a resumed run is exact.

    Half of them show all road users around an ego, as a world does. Most of these stand, and how to follow a street is
    learned from those that move: the others show one that moves, of whatever kind, and the few next to it.

    Args:
        scenes: recorded scenes with tracks; voxel sequences have none and are left out.
        seed: of the draws.
        hidden: share of windows in which ground is shown only where the ego has been near enough to see it.
        nudged: how far road users are moved off their way [m] in half of the windows, so that the model learns to come
            back; what they do then leads back to the recorded way.
        blurred: in half of the windows each pose is off along its way by chance, up to so much [m, standard deviation],
            a fifth of it if it stands: as boxes fitted to voxels and tracks of a detector are. What they do next leads
            to the pace that was recorded, so the model learns to tell a jerk from an error of measurement.

    """

    def __init__(
        self, scenes: Sequence[Recorded], *, seed: int = 0, hidden: float = 0.7, nudged: float = 0.25,
        blurred: float = 0.15,
    ) -> None:  # fmt: skip
        self.scenes = [scene for scene in scenes if isinstance(scene, Scene) and _stride(scene)]
        self.seed, self.hidden, self.nudged, self.blurred = seed, hidden, nudged, blurred
        if not self.scenes:
            raise SceneError(
                f"training: none of {len(scenes)} scenes holds tracks every {FRAME_SECONDS} s; give towns or logs"
            )
        self.atlas = GroundAtlas(self.scenes)
        self.place = torch.tensor([
            -1 if (place := place_of(scene).place) is None else PLACES.index(place) for scene in self.scenes
        ])  # fmt: skip
        self.tracks = [_Tracks.of(scene) for scene in self.scenes]
        self.spans = [(k, *span) for k, tracks in enumerate(self.tracks) for span in tracks.egos()]
        self.movers = [tracks.movers() for tracks in self.tracks]
        if not self.spans:
            raise SceneError("training: no vehicle of these scenes is recorded for three seconds on end")

    def draw(self, count: int, step: int, part: Part = WHOLE) -> TrafficWindows:
        """A part of the `count` windows for training step `step`."""
        rng = np.random.default_rng((self.seed, step))
        rows = []
        for _ in range(count):
            scene, ego, first, last = self.spans[rng.integers(len(self.spans))]
            rows.append((scene, ego, int(rng.integers(first, last + 1))))
        rows = part.cut(rows)
        return self._finished(self.windows(rows), rows, part.noise(rng))

    def draw_movers(self, count: int, step: int, part: Part = WHOLE) -> TrafficWindows:
        """A part of the `count` windows around road users that move, for training step `step`."""
        rng = np.random.default_rng((self.seed, 2, step))
        rows: list[tuple[int, int, int]] = []
        while len(rows) < count:
            scene = int(rng.integers(len(self.scenes)))
            kind = self.movers[scene][int(rng.choice(len(_SHARES), p=_SHARES))]
            if len(kind):
                track, now = kind[rng.integers(len(kind))]
                rows.append((scene, int(track), int(now)))
        rows = part.cut(rows)
        windows = self.windows(rows, FEW)
        windows = replace(windows, ego=torch.zeros_like(windows.ego))
        return self._finished(windows, rows, part.noise(rng))

    def _finished(
        self, windows: TrafficWindows, rows: Sequence[tuple[int, int, int]], rng: np.random.Generator
    ) -> TrafficWindows:
        users, ego, travel = windows.users, windows.ego, windows.travel
        if self.nudged:
            users = nudge(users, ego, self.nudged, rng)
        if self.blurred:
            users, off = blur(users, ego, self.blurred, rng)
            travel = torch.where(off, users.travel, travel)
        windows = replace(windows, users=users, travel=travel)
        return self.with_crops(windows, rows, torch.from_numpy(rng.random(len(rows))) < self.hidden)

    def windows(self, rows: Sequence[tuple[int, int, int]], most: int = SLOTS) -> TrafficWindows:
        """The windows at (scene, ego track, frame) each, of at most so many road users, without crops; nothing is
        nudged or hidden.
        """
        parts = [
            self.tracks[scene].window(ego, now, most, (self.seed, 3, scene, ego)) for scene, ego, now in rows
        ]
        slots = max(len(part["label"]) for part in parts)
        out = {}
        for name, example in parts[0].items():
            whole = np.zeros((len(parts), slots, *example.shape[1:]), example.dtype)
            for row, part in enumerate(parts):
                whole[row, : len(part[name])] = part[name]
            out[name] = torch.from_numpy(whole)
        users = RoadUsers(
            label=out["label"], size=out["size"], pose=out["pose"], present=out["present"], velocity=out["velocity"],
            id=torch.where(out["present"][..., -1], out["id"], -1), age=out["present"].sum(-1, dtype=torch.int32),
            rested=out["rested"],
        )  # fmt: skip
        ego = torch.zeros(len(parts), slots, dtype=torch.bool)
        ego[:, 0] = True
        return TrafficWindows(
            users=users, ego=ego, recorded=users.now, travel=users.travel, later=out["later"], known=out["known"],
            crops=torch.zeros(0, dtype=torch.uint8), place=self.place[torch.tensor([row[0] for row in rows])],
        )  # fmt: skip

    def with_crops(
        self, windows: TrafficWindows, rows: Sequence[tuple[int, int, int]], hidden: Tensor
    ) -> TrafficWindows:
        """The windows with crops; in the `hidden` (b,) bool ones ground that the ego was never near to is not seen."""
        valid, now = windows.users.valid, windows.users.now
        row = valid.nonzero()[:, 0]
        pose = now[valid]
        crops = self.atlas.crops(torch.tensor([r[0] for r in rows])[row], pose)
        shown = (~hidden)[row].view(-1, 1, 1).expand(crops.shape).clone()
        for ago in _SHOWN:
            seen = [self.tracks[scene].pose_of(ego, now - ago) for scene, ego, now in rows]
            local = crop_points(pose, torch.stack(seen)[row])
            shown |= (local.abs() < _VIEW).all(-1)
        out = torch.zeros(*valid.shape, *CROP, dtype=torch.uint8)
        out[valid] = torch.where(shown, crops, UNSEEN_GROUND)
        return replace(windows, crops=out)


def targets(windows: TrafficWindows) -> tuple[Motion, Tensor]:
    """What the road users do next, and for whom that is known (b, n) bool.

    Who strayed from its pace speeds up as recorded, not back to it: nothing that it sees says which pace that was, and
    what would bring it back would be learned as chance. Who was nudged off its way turns as recorded and by as much
    more as is needed to be on its way again in two seconds: the arc to its recorded place then (pure pursuit, Coulter
    1992), less the same arc from where it was recorded now.
    """
    users = windows.users
    later, aim = windows.later[:, :, 0], windows.later[:, :, -1]
    recorded = motion_between(windows.recorded, windows.travel, later)
    came = (later - windows.recorded)[..., :2].norm(dim=-1)

    def turn_to_aim(pose: Tensor) -> Tensor:
        way = relative(pose, aim)
        return 2 * torch.atan2(way[..., 1], way[..., 0]) * came / way[..., :2].norm(dim=-1).clamp(min=1e-3)

    more = wrap_angle(turn_to_aim(users.now) - turn_to_aim(windows.recorded)).clamp(-0.3, 0.3)
    way = relative(windows.recorded, aim)
    led = windows.known[:, :, -1] & (way[..., 0] > 2.0) & ~recorded.stand
    turn = recorded.turn + (more * led).float()
    known = windows.known[:, :, 0] & users.valid & ~windows.ego
    return Motion(more=recorded.more, turn=turn, stand=recorded.stand), known


@dataclass(frozen=True, kw_only=True)
class _Tracks:
    """A scene's dynamic tracks every FRAME_SECONDS: pose (T, k, 3) float64, valid (T, k), velocity (T, k, 2), and how
    long each has rested (T, k) int32, as in `RoadUsers`.
    """

    pose: np.ndarray
    valid: np.ndarray
    velocity: np.ndarray
    size: np.ndarray
    label: np.ndarray
    rested: np.ndarray

    @staticmethod
    def of(scene: Scene) -> _Tracks:
        stride, moves = _stride(scene), np.isin(scene.track_class, DYNAMIC)
        state = scene.track_state[moves, ::stride].transpose(1, 0, 2).astype(np.float64)
        pose, valid = state[..., :3], scene.track_valid[moves, ::stride].T.copy()
        went = np.linalg.norm(np.diff(pose[..., :2], axis=0), axis=-1) >= MOVES
        went = np.concatenate((np.zeros_like(valid[:1]), went & valid[1:] & valid[:-1]))
        frame = np.arange(len(valid))[:, None]
        last = np.maximum.accumulate(np.where(went, frame, -NEVER), axis=0)
        return _Tracks(
            pose=pose, valid=valid, velocity=state[..., 3:].astype(np.float32),
            size=scene.track_size[moves].astype(np.float32), label=scene.track_class[moves].astype(np.uint8),
            rested=np.minimum(frame - last, NEVER).astype(np.int32),
        )  # fmt: skip

    def egos(self) -> list[tuple[int, int, int]]:
        """Vehicles that can serve as the ego: track, first and last frame at which."""
        spans = []
        for track in np.flatnonzero(np.isin(self.label, _DRIVES)):
            frames = np.flatnonzero(self.valid[:, track])
            if len(frames) >= HISTORY + 2 and np.ptp(self.pose[frames, track, :2], axis=0).max() > 10:
                spans.append((int(track), int(frames[0]) + HISTORY - 1, int(frames[-1]) - 1))
        return spans

    def pose_of(self, track: int, frame: int) -> Tensor:
        """Where a track was at a frame, or at the first frame after it at which it was anywhere."""
        return torch.from_numpy(self.pose[max(frame, int(self.valid[:, track].argmax())), track])

    def movers(self) -> list[np.ndarray]:
        """Of each of _KINDS the tracks that have just moved, and at which frame: (m, 2) int64; last the vehicles that
        wait, or did a moment ago. All that is told by what was until then, so what follows is as likely as it is.
        """
        step = np.linalg.norm(np.diff(self.pose[..., :2], axis=0), axis=-1)
        known = self.valid[:-1] & self.valid[1:]
        moves = (step > STANDS) & known
        pairs = np.argwhere(moves)[:, ::-1] + (0, 1)
        kinds = [pairs[np.isin(self.label[pairs[:, 0]], kind)] for kind in _KINDS]
        stood = known & ~moves & (np.cumsum(moves, axis=0) > 0)  # since the frame before, having moved
        lately = np.logical_or.reduce([stood[HISTORY - 1 - k : len(stood) - k] for k in range(HISTORY)])
        waits = np.argwhere(lately & np.isin(self.label, _DRIVES))[:, ::-1] + (0, HISTORY)
        return [*kinds, waits]

    def window(self, ego: int, now: int, most: int, seed: Sequence[int]) -> dict[str, np.ndarray]:
        """The road users within REACH of track `ego` at frame `now`, the ego first, then the nearest first. By the
        `seed` each is known for some frames only: who has rested for longer was not seen to move.
        """
        away = np.linalg.norm(self.pose[now, :, :2] - self.pose[now, ego, :2], axis=1)
        away[~self.valid[now]] = np.inf
        away[ego] = -1.0
        order = np.argsort(away, kind="stable")[: min(most, int((away < REACH).sum()))]
        past = np.clip(np.arange(now - HISTORY + 1, now + 1), 0, None)
        future = np.clip(np.arange(now + 1, now + AHEAD + 1), None, len(self.valid) - 1)
        pose, present = self.pose[past][:, order].swapaxes(0, 1), self.valid[past][:, order].T.copy()
        present &= np.arange(now - HISTORY + 1, now + 1) >= 0
        for k in range(HISTORY - 2, -1, -1):  # what is not known repeats the next pose that is
            pose[:, k] = np.where(present[:, k, None], pose[:, k], pose[:, k + 1])
        seen = np.exp(np.random.default_rng(seed).uniform(0.0, _LONGEST, self.rested.shape[1]))[order]
        rested = self.rested[now, order]
        rested = np.where(rested > seen.clip(min=HISTORY - 2), NEVER, rested).astype(np.int32)
        known = self.valid[future][:, order].T & (np.arange(now + 1, now + AHEAD + 1) < len(self.valid))
        return {
            "pose": pose, "present": present, "velocity": self.velocity[now, order], "size": self.size[order],
            "label": self.label[order], "id": order.astype(np.int64), "rested": rested,
            "later": self.pose[future][:, order].swapaxes(0, 1), "known": known,
        }  # fmt: skip


def _stride(scene: Scene) -> int:
    """Steps of a scene in a frame; 0 where frames fall between its steps."""
    stride = round(FRAME_SECONDS / scene.dt)
    return stride if stride and abs(stride * scene.dt - FRAME_SECONDS) < 1e-6 else 0
