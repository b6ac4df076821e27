"""What stands still in recorded places, as kinds of columns on world-aligned rasters, and random crops of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import DRIVEABLE, FREE, OCC3D, Grid
from occsora_sim.models.columns import UNSEEN
from occsora_sim.models.ground.palette import KINDS, common_columns, nearest_kind
from occsora_sim.scene_prompt import PLACES
from occsora_sim.scenes.offers import usable
from occsora_sim.scenes.raster import rasterise
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.voxel_scene import VoxelScene
from occsora_sim.training.ground.merged import merged
from occsora_sim.training.report import say
from occsora_sim.voxels.raster import Raster

ROUTE_POINTS = 192
"""Points of the route around a crop, about 1 m apart."""

UNKNOWN = 255
"""Stands for a kind where a recording does not say what is there."""

PATIENCE = 100
"""Crops of a place left out one after another before more is let through: twice the void, the ends of roads."""

_PROBE = 16
"""Columns along the edge of the lattice by which it is told how much of a crop is void or unknown."""


@dataclass(frozen=True, kw_only=True)
class Crops:
    """n crops of ground on canvases of their own.

    Attributes:
        kinds: (n, x, y) uint8, kinds of columns; where nothing is known they mean nothing.
        seen: (n, x, y) bool, columns that the recording knows.
        route: (n, r, 2) float32, the ego's route in the crop's frame [m], NaN-padded; its origin is the crop's middle.
        place: (n,) int64, number of the place kind (`scene_prompt.PLACES`), -1 where it is none of them.

    """

    kinds: Tensor
    seen: Tensor
    route: Tensor
    place: Tensor

    def to(self, device: torch.device) -> Crops:
        """The same on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Crops:
        """The same in memory that a GPU reads directly."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Crops:
        return Crops(
            kinds=change(self.kinds),
            seen=change(self.seen),
            route=change(self.route),
            place=change(self.place),
        )


class GroundTowns:
    """Static ground of places behind one another in one tensor, and where egos drove in them.

    Attributes:
        palette: (kinds, z) uint8, the column of each kind.
        columns: (cells,) uint8, kinds or UNKNOWN, place after place.
        names: of the places.
        ends: of each place (k, 2) float64, world points [m] where a road ends in nothing.

    """

    def __init__(self, tensors: dict[str, Tensor], names: Sequence[str], cell: float) -> None:
        """Places from `tensors` as `towns_of` makes them."""
        self.tensors, self.names, self.cell = tensors, list(names), cell
        self.palette, self.columns = tensors["palette"], tensors["columns"]
        self._shape, self._first, self._origin = tensors["shape"], tensors["first"], tensors["origin"]
        poses, routes = tensors["pose_offset"], tensors["route_offset"]
        self._poses = list(zip(poses[:-1].tolist(), poses[1:].tolist(), strict=True))
        self._routes = list(zip(routes[:-1].tolist(), routes[1:].tolist(), strict=True))
        self.egos: list[list[int]] = [[] for _ in self.names]
        for ego, town in enumerate(tensors["ego_town"].tolist()):
            if self._poses[ego][1] > self._poses[ego][0]:
                self.egos[town].append(ego)
        self.ends = list(tensors["end"].split(tensors["end_count"].tolist()))
        free = (self.palette == FREE).all(-1)
        self._nothing = int(free.int().argmax()) if bool(free.any()) else UNKNOWN - 1  # no kind

    def poses(self, ego: int) -> Tensor:
        """World poses (t, 3) of an ego of `egos`, every half second."""
        begin, end = self._poses[ego]
        return self.tensors["pose"][begin:end]

    def route(self, ego: int) -> Tensor:
        """World points (r, 2) of an ego's route [m]."""
        begin, end = self._routes[ego]
        return self.tensors["route"][begin:end]

    def place(self, town: int) -> int:
        """Number of the town's place kind, -1: none."""
        return int(self.tensors["place"][town])

    def cut(self, town: Tensor, frame: Tensor, side: int, column: float) -> Tensor:
        """Kinds or UNKNOWN (n, side, side) uint8 at the centres of a lattice of `column` [m] whose middle and axes are
        `frame` (n, 3) world pose, of the towns (n,); beyond a town, what its border says.
        """
        centres = (torch.arange(side) - (side - 1) / 2) * (column / self.cell)
        cos, sin = frame[:, 2].cos().float()[:, None], frame[:, 2].sin().float()[:, None]
        start = ((frame[:, :2].double() - self._origin[town]) / self.cell + 0.5).float()
        width, height = self._shape[town].int()[:, :, None, None].unbind(1)
        i = (start[:, :1] + cos * centres)[:, :, None] - (sin * centres)[:, None]
        j = (start[:, 1:] + sin * centres)[:, :, None] + (cos * centres)[:, None]
        # Clamped before the cast: truncation is then floor.
        i = i.clamp_(min=0).int().minimum(width - 1)
        j = j.clamp_(min=0).int().minimum(height - 1)
        first = self._first[town].tolist()
        rows = [
            self.columns[begin : begin + int(width[k]) * int(height[k])].index_select(0, cells.flatten())
            for k, (begin, cells) in enumerate(zip(first, i * height + j, strict=True))
        ]
        return torch.stack(rows).view(len(frame), side, side)

    def draw(
        self, count: int, side: int, rng: np.random.Generator, *, column: float = 0.4, reach: float = 60.0,
        void: float = 0.05, unknown: float = 0.5,
    ) -> Crops:  # fmt: skip
        """`count` crops of `side` columns of `column` [m] from within `reach` [m] of egos, on canvases as worlds have
        them.

        A canvas's axes are those of the ego where its world began: mostly along streets, so crops are turned as an ego
        of the same town stands somewhere else, and by a multiple of a right angle; a quarter of them anyhow. Crops of
        which more than the share `void` lies beyond the town, or more than `unknown` was never seen, are left out, and
        those in which a road ends: a recorded town has a rim, a drawn one goes on. Where a place has hardly any other,
        they are let through after all.
        """
        rows: list[tuple[Tensor, Tensor, int]] = []
        # Of each place, how often in turn a crop was left out, and how much more is let through.
        refused, patience = [0] * len(self.names), [1.0] * len(self.names)
        while len(rows) < count:
            town = int(rng.integers(len(self.names)))
            ego, other = (self.egos[town][k] for k in rng.integers(len(self.egos[town]), size=2))
            poses, others = self.poses(ego), self.poses(other)
            now = poses[rng.integers(len(poses))].double()
            yaw = float(others[rng.integers(len(others)), 2] + rng.integers(4) * math.pi / 2)
            if rng.random() < 0.25:
                yaw = float(rng.uniform(-math.pi, math.pi))
            middle = now[:2] + torch.from_numpy(rng.uniform(-reach, reach, 2))
            turn = torch.tensor([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]).double()
            if refused[town] == PATIENCE:
                refused[town], patience[town] = 0, 2 * patience[town]
            refused[town] += 1
            ends = (self.ends[town] - middle) @ turn
            if patience[town] == 1 and (ends.abs().amax(-1) < 0.5 * column * side).any():
                continue
            place = torch.tensor([town]), torch.tensor([[*middle.tolist(), yaw]])
            probe = self.cut(*place, _PROBE, column * side / _PROBE)
            if float((probe == UNKNOWN).float().mean()) > 1 - (1 - unknown) / patience[town]:
                continue
            if float((probe == self._nothing).float().mean()) > void * patience[town]:
                continue
            refused[town] = 0
            kinds = self.cut(*place, side, column)[0]
            points = (self.route(ego).double() - middle) @ turn
            route = torch.full((ROUTE_POINTS, 2), math.nan)
            if len(points):
                near = int(points.norm(dim=-1).argmin())
                part = points[max(0, near - ROUTE_POINTS // 2) :][:ROUTE_POINTS]
                route[: len(part)] = part.float()
            rows.append((kinds, route, self.place(town)))
        kinds_, routes, places = zip(*rows, strict=True)
        drawn = torch.stack(kinds_)
        seen = drawn != UNKNOWN
        return Crops(
            kinds=drawn.masked_fill(~seen, 0),
            seen=seen,
            route=torch.stack(routes),
            place=torch.tensor(places),
        )


def towns_of(
    scenes: Sequence[Recorded], grid: Grid = OCC3D, *, cell: float = 0.2, palette: Tensor | None = None,
    kinds: int = KINDS,
) -> GroundTowns:  # fmt: skip
    """The static ground of `scenes`, of vectors or of voxels, with the palette given, or that of the commonest columns.

    Args:
        scenes: those in which no ego moves or nothing stands are left out.
        grid: whose layers the columns have.
        cell: distance of two columns in the rasters [m].
        palette: (kinds, z) uint8.
        kinds: of the palette, where none is given.

    Raises:
        SceneError: no scene has an ego's motion and anything that stands still.
        ConfigurationError: so many kinds cannot be told apart from what is not known.

    """
    if (kinds if palette is None else len(palette)) >= UNKNOWN - 1:
        raise ConfigurationError(
            f"ground: a palette of {kinds} kinds is too large; {UNKNOWN - 2} are the most"
        )
    still = [
        "" if scene.ego_valid.any() else scene.attributes.get("lacks") or "no ego motion" for scene in scenes
    ]
    scenes = [scenes[k] for k in usable(scenes, still, "crop of ground")]
    rasters: list[Raster] = []
    for number, scene in enumerate(scenes):
        if isinstance(scene, VoxelScene):
            rasters.append(merged(scene, grid, cell))
        else:
            rasters.append(rasterise(scene, grid, cell))
        if number % 20 == 19:
            say(f"static ground of {number + 1} of {len(scenes)} places")
    bare = ["" if _shows(raster) else "nothing that stands still" for raster in rasters]
    there = usable(scenes, bare, "crop of ground")
    scenes, rasters = [scenes[k] for k in there], [rasters[k] for k in there]
    if palette is None:
        palette = _palette(rasters, kinds)
    cells = [raster.columns.numel() for raster in rasters]
    columns = torch.empty(sum(cells), dtype=torch.uint8)
    first = torch.tensor([sum(cells[:k]) for k in range(len(cells))])
    for raster, begin in zip(rasters, first.tolist(), strict=True):
        kind = nearest_kind(raster.palette, palette).masked_fill((raster.palette == UNSEEN).any(-1), UNKNOWN)
        columns[begin : begin + raster.columns.numel()] = kind[raster.columns.view(-1).int()]
    stride = [max(1, round(0.5 / scene.dt)) for scene in scenes]
    poses = [
        torch.from_numpy(scene.ego_pose[ego][scene.ego_valid[ego]][:: stride[k]]).float()
        for k, scene in enumerate(scenes)
        for ego in range(len(scene.ego_kind))
    ]
    routes = [
        torch.from_numpy(np.ascontiguousarray(scene.route(ego))).float()
        for scene in scenes
        for ego in range(len(scene.ego_kind))
    ]
    plans = [scene.attributes.get("plan", "") for scene in scenes]
    tensors = {
        "palette": palette,
        "columns": columns,
        "first": first,
        "shape": torch.tensor([tuple(raster.columns.shape) for raster in rasters]),
        "origin": torch.tensor([raster.origin for raster in rasters], dtype=torch.float64),
        "place": torch.tensor([PLACES.index(plan) if plan in PLACES else -1 for plan in plans]),
        "pose": torch.cat(poses),
        "pose_offset": torch.tensor([0, *np.cumsum([len(part) for part in poses]).tolist()]),
        "route": torch.cat(routes),
        "route_offset": torch.tensor([0, *np.cumsum([len(part) for part in routes]).tolist()]),
        "ego_town": torch.tensor([k for k, scene in enumerate(scenes) for _ in scene.ego_kind]),
    }
    ends = [_road_ends(scene, raster) for scene, raster in zip(scenes, rasters, strict=True)]
    tensors |= {"end": torch.cat(ends), "end_count": torch.tensor([len(part) for part in ends])}
    return GroundTowns(tensors, [scene.name for scene in scenes], cell)


def _shows(raster: Raster) -> bool:
    """Whether any column holds a voxel that is known and not free."""
    return bool(((raster.palette != UNSEEN) & (raster.palette != FREE)).any())


def _palette(rasters: Sequence[Raster], kinds: int) -> Tensor:
    """The commonest columns (kinds, z) uint8 of rasters, a free one among them: it tells where a town ends."""
    known = [(raster.palette != UNSEEN).all(-1) for raster in rasters]
    counts = [
        torch.bincount(raster.columns.view(-1).int(), minlength=len(raster.palette)) for raster in rasters
    ]
    palette = common_columns(
        [raster.palette[there] for raster, there in zip(rasters, known, strict=True)],
        [count[there] for count, there in zip(counts, known, strict=True)],
        kinds,
    )
    if not bool((palette == FREE).all(-1).any()):
        palette[-1] = FREE
    return palette


def _road_ends(scene: Recorded, raster: Raster, beyond: float = 4.0) -> Tensor:
    """World points (k, 2) float64 [m]: ends of lanes that have no road `beyond` [m] further on; none where the lanes
    are not known.
    """
    if not isinstance(scene, Scene):
        return torch.zeros(0, 2, dtype=torch.float64)
    points, offsets = scene.lane_points.astype(np.float64), scene.lane_offsets
    first, last = offsets[:-1], offsets[1:] - 1
    some = last > first
    first, last = first[some], last[some]
    tips = np.concatenate((points[first], points[last]))
    inner = np.concatenate((points[first + 1], points[last - 1]))
    along = tips - inner
    ahead = tips + beyond * along / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-6)
    cell = np.round((ahead - np.array(raster.origin)) / raster.cell).astype(np.int64)
    cell = np.clip(cell, 0, np.array(raster.columns.shape) - 1)
    ids = raster.columns[torch.from_numpy(cell[:, 0]), torch.from_numpy(cell[:, 1])].long()
    road = (raster.palette == DRIVEABLE).any(-1)[ids].numpy()
    return torch.from_numpy(tips[~road])
