"""What lines a town's streets: buildings, trees, hedges, poles, parked cars, work sites; all from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from occsora_sim import grid
from occsora_sim.scenes.ground import (
    GROUND_Z,
    Polygon,
    Raster,
    ground_polygons,
    octagon,
    rectangle,
    terrain_bounds,
)
from occsora_sim.scenes.town import Network

FLOOR = GROUND_Z[0]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A box that stands still: its centre (2,) [m], yaw [rad], size (length, width, height) [m] and label."""

    centre: np.ndarray
    yaw: float
    size: tuple[float, float, float]
    label: int


@dataclass
class _Builder:
    """A town while it is being dressed."""

    rng: np.random.Generator
    raster: Raster
    extras: list[Polygon] = field(default_factory=list)
    solids: list[Polygon] = field(default_factory=list)
    boxes: list[Standing] = field(default_factory=list)

    def solid(self, points: np.ndarray, label: int, low: float, high: float) -> None:
        self.solids.append(Polygon(points=points, label=label, z=(low, high)))

    def put(self, points: np.ndarray, label: int, high: float, clearance: np.ndarray | None = None) -> bool:
        """Place a prism if its clearance (itself by default) is free, and take its place."""
        if not self.raster.free(points if clearance is None else clearance):
            return False
        self.raster.take(points)
        self.solid(points, label, FLOOR, high)
        return True

    def stand(self, centre: np.ndarray, yaw: float, size: tuple[float, float, float], label: int) -> bool:
        """Place a standing box if its place is free."""
        points = rectangle(centre, yaw, size[0] + 0.2, size[1] + 0.2)
        if not self.raster.free(points):
            return False
        self.raster.take(points)
        self.boxes.append(Standing(centre=centre, yaw=yaw, size=size, label=label))
        return True


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One side of a street: the outer edge of its pavement, in steps of half a metre, and its direction."""

    points: np.ndarray
    along: np.ndarray
    pavement: float

    @property
    def length(self) -> float:
        return 0.5 * (len(self.points) - 1)

    def at(self, station: float, outwards: float) -> tuple[np.ndarray, float]:
        """The point `outwards` [m] from the pavement's outer edge, and the street's yaw there."""
        i = int(np.clip(round(station / 0.5), 0, len(self.points) - 1))
        tangent = self.along[i]
        beyond = station - np.clip(station, 0, self.length)
        point = self.points[i] + tangent * beyond + outwards * np.array([tangent[1], -tangent[0]])
        return point, float(np.arctan2(tangent[1], tangent[0]))


def dress(rng: np.random.Generator, network: Network) -> tuple[list[Polygon], list[Standing]]:
    """All polygons of a town in painting order, ground first, and the boxes that stand still."""
    raster = Raster(terrain_bounds(network))
    for polygon in ground_polygons(network, [])[1:]:
        raster.take_any(polygon.points)
    town = _Builder(rng, raster)
    sides = [side for edge in network.edges if (side := _side(network, edge)) is not None]
    for edge in network.edges:
        _street_furniture(town, network, edge)
    for edge in network.edges:
        _guard_rails(town, network, edge)
    for _ in range(3 if sides else 0):
        for _ in range(10):  # until there is room for it
            if _work_site(town, sides[rng.integers(len(sides))]):
                break
    for side in sides:
        _line(town, side)
    _fill(town, network)
    return ground_polygons(network, town.extras) + town.solids, town.boxes


def _side(network: Network, edge: str) -> _Side | None:
    lane = network.lanes[network.edges[edge][0]]
    station = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(lane.shape, axis=0), axis=1))))
    if lane.kind != "sidewalk" or station[-1] < 5:
        return None
    at = np.arange(0, station[-1], 0.5)
    points = np.stack([np.interp(at, station, lane.shape[:, k]) for k in range(2)], -1)
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    right = np.stack((along[:, 1], -along[:, 0]), -1)
    return _Side(points=points + right * lane.width / 2, along=along, pavement=lane.width)


def _line(town: _Builder, side: _Side) -> None:
    """One side of a street: verge, then buildings with a setback that the street keeps."""
    rng = town.rng
    verge = ("open", "trees", "hedge", "fence", "parking", "trees")[rng.integers(6)]
    setback = float(rng.uniform(3.0, 6.0))
    if verge == "parking":
        setback = _parking(town, side)
    style = ("terrace", "detached", "blocks", "detached")[rng.integers(4)]
    widths, depths, gaps, heights = {
        "terrace": ((7.0, 12.0), (8.0, 11.0), (0.0, 0.3), (5.5, 9.0)),
        "detached": ((8.0, 14.0), (8.0, 12.0), (3.0, 9.0), (3.5, 7.0)),
        "blocks": ((16.0, 32.0), (11.0, 16.0), (3.0, 10.0), (8.0, 12.0)),
    }[style]
    station = -8.0 + float(rng.uniform(0, 6))
    while station < side.length + 4:
        width, depth, height = (float(rng.uniform(*span)) for span in (widths, depths, heights))
        jitter = 0.0 if style == "terrace" else float(rng.uniform(0, 2.5))
        centre, yaw = side.at(station + width / 2, setback + jitter + depth / 2)
        points = rectangle(centre, yaw, width, depth)
        # The front may come as near as the setback, the rest keeps 3 m from every street.
        if town.put(
            points, grid.MANMADE, height, rectangle(centre, yaw, width + (0 if gaps[1] < 1 else 2), depth + 4)
        ):
            station += width + float(rng.uniform(*gaps))
        else:
            station += 1.5
    if verge == "trees":
        spacing, station = float(rng.uniform(7, 12)), float(rng.uniform(1, 5))
        while station < side.length:
            _tree(town, side.at(station, float(rng.uniform(0.9, 1.3)))[0])
            station += spacing * float(rng.uniform(0.9, 1.1))
    elif verge in ("hedge", "fence"):
        thick = float(rng.uniform(0.8, 1.2)) if verge == "hedge" else 0.5
        height = float(rng.uniform(0.9, 1.8))
        label = grid.VEGETATION if verge == "hedge" else grid.BARRIER
        station = float(rng.uniform(0, 3))
        while station + 3 < side.length:
            run = min(float(rng.uniform(6, 14)), side.length - station)
            centre, yaw = side.at(station + run / 2, 0.5 + thick / 2)
            town.put(rectangle(centre, yaw, run, thick), label, height)
            station += run + float(rng.uniform(1.0, 4.0))
    if verge in ("open", "hedge"):
        for _ in range(int(side.length / 25)):
            _tree(town, side.at(float(rng.uniform(0, side.length)), float(rng.uniform(1.5, 3)))[0])


def _parking(town: _Builder, side: _Side) -> float:
    """A strip of parked cars outside the pavement. Returns how deep it is with its clearance [m]."""
    rng = town.rng
    across = rng.random() < 0.4
    depth, step = (5.2, 2.7) if across else (2.5, 6.0)
    station = 1.0
    while station + step < side.length:
        centre, yaw = side.at(station + step / 2, depth / 2)
        bay = rectangle(centre, yaw, step + 0.3, depth)
        inner, _ = side.at(station + step / 2, depth / 2 + 0.4)
        if town.raster.free(rectangle(inner, yaw, step - 1.4, depth - 0.9)):
            town.extras.append(Polygon(points=bay, label=grid.OTHER_FLAT, z=GROUND_Z))
            if rng.random() < 0.65:
                size = tuple(
                    np.round(
                        np.array([4.4, 1.82, 1.58]) * (1 + 0.05 * np.clip(rng.normal(size=3), -1.5, 1.5)), 2
                    )
                )
                turn = (np.pi / 2 if across else 0.0) + (np.pi if across and rng.random() < 0.5 else 0.0)
                town.boxes.append(
                    Standing(
                        centre=centre + rng.uniform(-0.2, 0.2, 2),
                        yaw=yaw + turn + float(rng.normal()) * 0.02,
                        size=(float(size[0]), float(size[1]), float(size[2])),
                        label=grid.CAR,
                    )
                )
            town.raster.take(bay)
        station += step
    return depth + 2.5


def _tree(town: _Builder, centre: np.ndarray) -> None:
    """A trunk and a crown; the crown may hang over the street, but stays away from buildings' trunks."""
    rng = town.rng
    trunk, crown = float(rng.uniform(0.5, 0.8)), float(rng.uniform(2.5, 5.0))
    if town.put(octagon(centre, trunk), grid.VEGETATION, 2.2):
        town.solid(
            octagon(centre, crown),
            grid.VEGETATION,
            float(rng.uniform(1.8, 2.6)),
            float(rng.uniform(4.6, 6.5)),
        )


def _street_furniture(town: _Builder, network: Network, edge: str) -> None:
    """Lamp posts and signs at the kerb of a pavement, traffic lights at its end, bins."""
    side, rng = _side(network, edge), town.rng
    if side is None:
        return
    kerb = -side.pavement + 0.4
    station, spacing = float(rng.uniform(3, 12)), float(rng.uniform(22, 32))
    while station < side.length - 3:
        centre, yaw = side.at(station, kerb)
        town.solid(rectangle(centre, yaw, 0.5, 0.5), grid.MANMADE, FLOOR, float(rng.uniform(4.4, 6.0)))
        station += spacing
    if rng.random() < 0.5:
        centre, yaw = side.at(float(rng.uniform(5, max(5.1, side.length - 5))), kerb)
        town.solid(rectangle(centre, yaw, 0.5, 0.5), grid.MANMADE, FLOOR, float(rng.uniform(2.2, 3.0)))
    if rng.random() < 0.3:
        centre, yaw = side.at(float(rng.uniform(5, max(5.1, side.length - 5))), -0.4)
        town.solid(rectangle(centre, yaw, 0.7, 0.7), grid.OTHERS, FLOOR, float(rng.uniform(1.0, 1.4)))
    if network.ends[edge][1] in network.lights:
        centre, yaw = side.at(side.length - 0.8, kerb)
        reach = float(rng.uniform(3.0, 4.5))
        left = np.array([-np.sin(yaw), np.cos(yaw)])
        town.solid(rectangle(centre, yaw, 0.5, 0.5), grid.MANMADE, FLOOR, 5.4)
        town.solid(rectangle(centre + left * reach / 2, yaw, 0.5, reach), grid.MANMADE, 4.6, 5.4)


def _work_site(town: _Builder, side: _Side) -> bool:
    """A digger and a trailer on the verge, with cones and barriers around them; whether they found room."""
    rng = town.rng
    if side.length < 26:
        return False
    station = float(rng.uniform(8, side.length - 16))
    centre, yaw = side.at(station, 2.6)
    size = (round(float(rng.uniform(5.5, 7)), 2), 2.5, 3.0)
    if not town.stand(centre, yaw, size, grid.CONSTRUCTION_VEHICLE):
        return False
    centre, yaw = side.at(station + 8, 2.6)
    town.stand(centre, yaw, (round(float(rng.uniform(5, 7)), 2), 2.4, 2.8), grid.TRAILER)
    for number, offset in enumerate(np.arange(-5, 13, 2.0)):
        centre, yaw = side.at(station + float(offset), 0.75)
        if number % 3 == 1:
            town.stand(centre, yaw, (1.8, 0.5, 1.0), grid.BARRIER)
        else:
            town.stand(centre, yaw, (0.5, 0.5, 0.9), grid.TRAFFIC_CONE)
    return True


def _guard_rails(town: _Builder, network: Network, edge: str) -> None:
    """Rails along both sides of a road without pavements, open where another road joins."""
    lanes = [network.lanes[name] for name in network.edges[edge]]
    if lanes[0].kind == "sidewalk":
        return
    for lane, side in ((lanes[0], -1.0), (lanes[-1], 1.0)):
        station = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(lane.shape, axis=0), axis=1))))
        for begin in np.arange(0.0, station[-1] - 4.0, 4.0):
            a, b = (
                np.array([np.interp(at, station, lane.shape[:, k]) for k in range(2)])
                for at in (begin, begin + 4)
            )
            along = (b - a) / np.linalg.norm(b - a)
            left = np.array([-along[1], along[0]])
            centre = (a + b) / 2 + side * (lane.width / 2 + 1.2) * left
            town.put(rectangle(centre, float(np.arctan2(along[1], along[0])), 4.0, 0.4), grid.BARRIER, 0.9)


def _fill(town: _Builder, network: Network) -> None:
    """Behind the rows: plazas, more buildings, gardens."""
    rng = town.rng
    x0, y0, x1, y1 = network.bounds
    lower, span = np.array([x0 - 25, y0 - 25]), np.array([x1 - x0 + 50, y1 - y0 + 50])
    hectares = float(span.prod()) / 1e4
    for count, kind in ((3, "plaza"), (8, "building"), (5, "bush"), (30, "tree")):
        for _ in range(round(count * hectares)):
            centre, yaw = lower + rng.random(2) * span, float(rng.uniform(0, np.pi))
            if kind == "plaza":
                points = rectangle(centre, yaw, *rng.uniform(10, 22, 2))
                if town.raster.free(points):
                    town.extras.append(Polygon(points=points, label=grid.OTHER_FLAT, z=GROUND_Z))
                    if rng.random() < 0.7:
                        town.raster.take(points)
            elif kind == "building":
                length, width = rng.uniform(8, 18, 2)
                clear = rectangle(centre, yaw, length + 6, width + 6)
                town.put(rectangle(centre, yaw, length, width), grid.MANMADE, float(rng.uniform(3, 9)), clear)
            elif kind == "bush":
                length, width, height = rng.uniform(2, 10), rng.uniform(0.8, 3), rng.uniform(0.8, 2.2)
                town.put(rectangle(centre, yaw, length, width), grid.VEGETATION, float(height))
            else:
                _tree(town, centre)
