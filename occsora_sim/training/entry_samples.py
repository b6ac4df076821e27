"""Frames of recorded ego motions as samples for the entries, drawn from small arrays: no voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from occsora_sim.errors import SceneError
from occsora_sim.geometry import relative, to_frame, to_world
from occsora_sim.grid import DYNAMIC, FRAME_SECONDS, PEDESTRIAN, Grid
from occsora_sim.models.entries import SIZES, Entered
from occsora_sim.models.entry_marks import STANDS
from occsora_sim.models.entry_view import UNSEEN, Setting, in_view
from occsora_sim.models.route_mask import route_mask
from occsora_sim.road_users import RoadUsers
from occsora_sim.scenes.road_users import SIZES as USUAL
from occsora_sim.scenes.scene import Scene
from occsora_sim.training.entry_towns import RUN_UP, Frame, TownTracks

_AHEAD = 16
"""Frames within which as many vehicles as are asked for shall be in view."""

_SLOTS = 64
"""Known road users of a sample, the nearest."""

_START, _BLANK, _START_WEIGHT = 0.35, 0.4, 0.3
"""Share of the samples that are starts, in which all of the view is new; share of these that begin with nobody, while
in the others a random share of who is in view is known; and what a start counts: it holds tens of entries."""

_COMES = 0.5
"""Share of the other samples that are drawn from frames in which somebody comes: three of ten frames are."""

_LANES = 96
"""Places on lanes in view that are drawn for a sample."""

_OPEN_VEHICLES, _OPEN_PLACE, _NO_ROUTE, _UNSEEN = 0.3, 0.2, 0.3, 0.15
"""Shares of the samples that leave the vehicles or the place open, have no route, and in which some of the ground is
unseen."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """b frames, as `Entries.enter` is given them, and who entered.

    Attributes:
        users: those that are known, with their newest pose alone.
        ground: (b, x, y) uint8.
        pose: (b, 3) float64.
        speed: (b,) of the ego [m/s].
        new: (b, x, y) bool.
        route: (b, x, y) float32.
        prompt: (b, 2) place and vehicles asked for.
        vehicles: (b,) how many of the known ones are in view.
        weight: (b,) what each counts.
        entered: who came into view.
        lanes: places on lanes in view, as if somebody headed along them: road users that come show a few lanes of a
            town now and then, its map all of them.

    """

    users: RoadUsers
    ground: Tensor
    pose: Tensor
    speed: Tensor
    new: Tensor
    route: Tensor
    prompt: Tensor
    vehicles: Tensor
    weight: Tensor
    entered: Entered
    lanes: Entered

    def setting(self, margin: int) -> Setting:
        """Of the frames, one of each world, for a network that shows so many cells around the view."""
        ground, pose, speed, new, route = (
            value[:, None] for value in (self.ground, self.pose, self.speed, self.new, self.route)
        )
        return Setting.of(ground, pose, speed, new, route, margin)

    def to(self, device: torch.device) -> Samples:
        """The same on `device`."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=True)

        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        tensors = {name: move(value) for name, value in values.items() if isinstance(value, Tensor)}

        def moved(some: Entered) -> Entered:
            return Entered(**{name: move(value) for name, value in vars(some).items()})

        return Samples(
            users=self.users.map(move), entered=moved(self.entered), lanes=moved(self.lanes), **tensors
        )


class EntrySampler:
    """Draws frames of recorded ego motions."""

    def __init__(self, scenes: Sequence[Scene], grid: Grid) -> None:
        """Work out who is known and who enters in each frame of each ego motion of `scenes`.

        Raises:
            SceneError: there is no frame to train on.

        """
        self.grid = grid
        self.towns = [TownTracks(scene, grid) for scene in scenes]
        self._first = np.cumsum([0] + [len(town.frames) for town in self.towns])
        self._comes = np.flatnonzero([len(frame.entered) > 0 for town in self.towns for frame in town.frames])
        if not len(self):
            raise SceneError(
                f"none of the {len(scenes)} scenes has an ego motion of more than {RUN_UP * FRAME_SECONDS:g} s; "
                "use longer scenes"
            )

    def __len__(self) -> int:
        return int(self._first[-1])

    def sizes(self) -> Tensor:
        """SIZES sizes of each class among the tracks, from the shortest to the longest: (len(DYNAMIC), SIZES, 3)."""
        label = np.concatenate([town.label for town in self.towns])
        size = np.concatenate([town.size for town in self.towns])
        rows = []
        for one in DYNAMIC:
            mine = size[label == one] if (label == one).any() else np.array([USUAL[one]])
            mine = mine[np.lexsort((mine[:, 1], mine[:, 0]))]
            rows.append(mine[((np.arange(SIZES) + 0.5) / SIZES * len(mine)).astype(int)])
        return torch.from_numpy(np.stack(rows)).float()

    def draw(self, count: int, generator: torch.Generator) -> Samples:
        """`count` samples of frames at random, with what is asked of them."""
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        start, comes = rng.random(count) < _START, rng.random(count) < _COMES
        numbers = rng.integers(len(self), size=count)
        if len(self._comes):
            numbers = np.where(comes & ~start, rng.choice(self._comes, size=count), numbers)
        # Of a start as many vehicles are asked for as there are, later on as there will be.
        ahead = np.where(start, 0, rng.integers(_AHEAD + 1, size=count))
        known = np.where(rng.random(count) < _BLANK, 0.0, rng.random(count))
        samples = self.frames(numbers, start, ahead, known, rng)
        # Frames in which somebody comes are drawn more often than they are met, and count less.
        often = _COMES * np.isin(numbers, self._comes) * len(self) / max(1, len(self._comes)) + 1 - _COMES
        samples.weight[:] = torch.from_numpy(np.where(start, _START_WEIGHT, 1 / often))

        def some(share: float) -> Tensor:
            return torch.from_numpy(rng.random(count) < share)

        samples.route[some(_NO_ROUTE)] = 0
        samples.prompt[some(_OPEN_PLACE), 0] = -1
        samples.prompt[some(_OPEN_VEHICLES), 1] = math.nan
        # Some ground beyond a random line is not known.
        angle, away = torch.from_numpy(rng.random((2, count, 1, 1)))
        centres = self.grid.centres_xy()
        side = centres[..., 0] * (angle * 2 * math.pi).cos() + centres[..., 1] * (angle * 2 * math.pi).sin()
        beyond = (side > away * self.grid.upper[0]) & some(_UNSEEN)[:, None, None]
        samples.ground[beyond] = UNSEEN
        return samples

    def frames(
        self, numbers: np.ndarray, start: np.ndarray, ahead: np.ndarray, known: np.ndarray | None = None,
        rng: np.random.Generator | None = None,
    ) -> Samples:  # fmt: skip
        """The frames `numbers` (b,) below len(self); as many vehicles are asked for as are in view `ahead` (b,) frames
        later. Of those that `start` (b,) bool all of the view is new, and of who is in it a share `known` (b,) is
        known, by `rng`; by default nobody.
        """
        place = np.searchsorted(self._first, numbers, side="right") - 1
        towns = [self.towns[k] for k in place]
        local = numbers - self._first[place]
        rows = [
            (town, _begun(town, town.frames[k], share, rng) if begins else town.frames[k])
            for town, k, begins, share in zip(
                towns, local, start, np.zeros(len(numbers)) if known is None else known, strict=True
            )
        ]
        pose = torch.from_numpy(np.stack([town.pose[frame.ego, frame.step] for town, frame in rows]))
        before = torch.from_numpy(np.stack([town.pose[frame.ego, frame.step - 1] for town, frame in rows]))
        points = to_world(self.grid.centres_xy().double()[None], pose[:, None, None])
        begins = torch.from_numpy(start)
        new = ~in_view(to_frame(points, before[:, None, None]), self.grid) | begins[:, None, None]
        routes = [
            _clip_route(town.routes[f.ego], at.float()) for (town, f), at in zip(rows, pose, strict=True)
        ]
        asked = [town.vehicles_later(k, more) for town, k, more in zip(towns, local, ahead, strict=True)]
        kinds = [town.place for town in towns]
        return Samples(
            users=_known(rows),
            ground=torch.stack([town.ground_at(xy) for town, xy in zip(towns, points, strict=True)]),
            pose=pose,
            speed=(pose - before)[:, :2].norm(dim=-1).float() / FRAME_SECONDS,
            new=new,
            route=route_mask(torch.stack(routes), pose[:, None].float(), self.grid)[:, 0],
            prompt=torch.tensor([kinds, asked], dtype=torch.float32).T.contiguous(),
            vehicles=torch.tensor([frame.known_vehicles for _, frame in rows], dtype=torch.float32),
            weight=torch.ones(len(rows)),
            entered=_entered(rows, pose),
            lanes=self._lanes(numbers, rng),
        )

    def _lanes(self, numbers: np.ndarray, rng: np.random.Generator | None) -> Entered:
        """Places on lanes in view of the frames `numbers` that `rng` draws, of vehicles and two wheels alike."""
        row, place = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, 3, dtype=torch.float64)]
        for number, at in enumerate(np.searchsorted(self._first, numbers, side="right") - 1 if rng else ()):
            town = self.towns[at]
            frame = town.frames[numbers[number] - self._first[at]]
            local = relative(torch.from_numpy(town.pose[frame.ego, frame.step]), town.lanes)
            local = local[in_view(local, self.grid)]
            local = local[rng.integers(len(local), size=_LANES)] if len(local) else local  # type: ignore[union-attr]
            row.append(torch.full((len(local),), number))
            place.append(local)
        rng = rng or np.random.default_rng(0)
        label = rng.choice([label for label in DYNAMIC if label != PEDESTRIAN], size=sum(map(len, place)))
        return Entered(
            row=torch.cat(row),
            label=torch.from_numpy(label.astype(np.uint8)),
            place=torch.cat(place).float(),
            speed=torch.zeros(len(label)),
        )


def _begun(town: TownTracks, frame: Frame, share: float, rng: np.random.Generator | None) -> Frame:
    """The frame as a start: of who is in view a `share` is known, the others enter."""
    known = np.zeros(len(frame.seen), bool) if rng is None else rng.random(len(frame.seen)) < share
    mine = frame.seen[known]
    return replace(
        frame, known=mine, entered=frame.seen[~known], known_vehicles=int(town.vehicle[mine].sum())
    )


def _entered(rows: list[tuple[TownTracks, Frame]], pose: Tensor) -> Entered:
    """The tracks that came into each frame."""
    came = [frame.entered for _, frame in rows]
    row = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(one) for one in came]))
    state = np.concatenate([town.state[one, f.step] for (town, f), one in zip(rows, came, strict=True)])
    label = np.concatenate([town.label[one] for (town, _), one in zip(rows, came, strict=True)])
    world = torch.from_numpy(state).double()
    speed = world[:, 3:].norm(dim=-1).float()
    return Entered(
        row=row,
        label=torch.from_numpy(label),
        place=relative(pose[row], world[:, :3]).float(),
        speed=speed * (speed > STANDS),
    )


def _known(rows: list[tuple[TownTracks, Frame]]) -> RoadUsers:
    """The tracks that are known in each frame."""
    b = len(rows)
    state, label = np.zeros((b, _SLOTS, 5)), np.zeros((b, _SLOTS), dtype=np.uint8)
    size, there = np.zeros((b, _SLOTS, 3), dtype=np.float32), np.zeros((b, _SLOTS), dtype=bool)
    for row, (town, frame) in enumerate(rows):
        mine = frame.known[:_SLOTS]
        state[row, : len(mine)] = town.state[mine, frame.step]
        label[row, : len(mine)], size[row, : len(mine)] = town.label[mine], town.size[mine]
        there[row, : len(mine)] = True
    world, valid = torch.from_numpy(state), torch.from_numpy(there)
    return RoadUsers(
        label=torch.from_numpy(label),
        size=torch.from_numpy(size),
        pose=world[:, :, None, :3],
        present=valid[..., None],
        velocity=world[..., 3:].float(),
        id=valid.long() - 1,
        age=valid.int(),
    ).where(valid)


def _clip_route(route: Tensor, pose: Tensor, points: int = 160) -> Tensor:
    """The `points` points of route (r, 2) [m] around the ego pose (3,), NaN-padded: (points, 2)."""
    out = torch.full((points, 2), math.nan, device=pose.device)
    if len(route):
        nearest = int((route - pose[:2]).norm(dim=-1).argmin())
        begin = max(0, nearest - points // 3)
        part = route[begin : begin + points]
        out[: len(part)] = part.to(out)
    return out
