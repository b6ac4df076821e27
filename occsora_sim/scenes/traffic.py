"""Scenes from traffic: a SUMO town of a seed, recorded, dressed, and seen from its vehicles."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from occsora_sim.scenes.demand import KINDS, Recording, draw_sizes, run_traffic, write_demand
from occsora_sim.scenes.dressing import Standing, dress
from occsora_sim.scenes.ego_motion import Egos, draw_egos
from occsora_sim.scenes.ground import Polygon
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.street_plan import write_network
from occsora_sim.scenes.town import Network, TownConfig, read_network, sumo_version
from occsora_sim.scenes.town_folder import town_folder

_DEFAULT = TownConfig()


@dataclass(frozen=True, kw_only=True)
class Streets:
    """A town before anything moves: SUMO's files and what they hold.

    Attributes:
        kind: of place, a plan of TownConfig.
        net: SUMO's network file.
        demand: SUMO's route file.
        network: what is in the first.
        sizes: length, width, height [m] of each vType.
        routes: the edges that each vehicle drives along, by name.

    """

    kind: str
    net: Path
    demand: Path
    network: Network
    sizes: dict[str, tuple[float, float, float]]
    routes: dict[str, tuple[str, ...]]


def lay_out(seed: int, config: TownConfig, folder: Path) -> Streets:
    """Write the network and the demand of a town into `folder`.

    Raises:
        MissingDependencyError: SUMO is not installed.
        SceneError: SUMO refused the town.

    """
    plan, demand = (np.random.default_rng([seed, stream]) for stream in range(2))
    kind, net = write_network(plan, config, folder, seed)
    network = read_network(net)
    sizes = draw_sizes(demand)
    path = folder / "town.rou.xml"
    routes = write_demand(demand, config, network, sizes, path)
    return Streets(kind=kind, net=net, demand=path, network=network, sizes=sizes, routes=routes)


def make_town(seed: int, config: TownConfig = _DEFAULT) -> Scene:
    """The town of a seed, with 60 s of its traffic and about 24 ego motions (with the default configuration).

    The same seed, configuration and SUMO version give the same scene, bit for bit.

    Raises:
        MissingDependencyError: SUMO is not installed.
        SceneError: SUMO refused the town, or the temporary folder cannot be used.

    """
    sumo_version()
    look, egos = (np.random.default_rng([seed, stream]) for stream in (2, 3))
    with town_folder() as folder:
        streets = lay_out(seed, config, folder)
        recording = run_traffic(config, streets.net, streets.demand, streets.routes, seed)
    polygons, standing = dress(look, streets.network)
    tracks = tracks_of(recording, streets.sizes, standing, config)
    motions = draw_egos(egos, config, streets.network, recording, tracks, polygons)
    name = f"{'traffic' if config.plan == 'any' else config.plan}-{seed}"
    return put_together(name, seed, config, streets, polygons, tracks, motions)


def put_together(
    name: str,
    seed: int,
    config: TownConfig,
    streets: Streets,
    polygons: list[Polygon],
    tracks: dict[str, np.ndarray],
    motions: Egos,
    attributes: dict[str, str] | None = None,
) -> Scene:
    """The scene of a town from its parts; `attributes` are added to those that every town has."""
    common = {
        "source": "traffic",
        "seed": str(seed),
        "plan": streets.kind,
        "config": json.dumps(dataclasses.asdict(config), sort_keys=True),
        "sumo": sumo_version(),
    }
    return Scene(
        name=name,
        dt=config.dt,
        **_map(polygons, streets.network),
        **tracks,
        **_motions(motions),
        ego_kind=motions.kind,
        attributes=common | (attributes or {}),
    )


def _ragged(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.concatenate(([0], np.cumsum([len(p) for p in parts]))).astype(np.int64)
    return np.concatenate(parts or [np.zeros((0, 2))]).astype(np.float32), offsets


def _map(polygons: list[Polygon], network: Network) -> dict[str, np.ndarray]:
    points, offsets = _ragged([p.points for p in polygons])
    drivable = [lane for lane in network.lanes.values() if lane.kind == "drive"]
    lane_points, lane_offsets = _ragged([lane.shape for lane in drivable])
    return {
        "polygon_points": points,
        "polygon_offsets": offsets,
        "polygon_class": np.array([p.label for p in polygons], dtype=np.uint8),
        "polygon_z": np.array([p.z for p in polygons], dtype=np.float32),
        "lane_points": lane_points,
        "lane_offsets": lane_offsets,
        "lane_width": np.array([lane.width for lane in drivable], dtype=np.float32),
    }


def tracks_of(
    recording: Recording,
    sizes: dict[str, tuple[float, float, float]],
    standing: list[Standing],
    config: TownConfig,
) -> dict[str, np.ndarray]:
    """Road users as boxes by their centres, then what stands still."""
    size = np.array([sizes[kind] for kind in recording.kinds]).reshape(-1, 3)
    label = [KINDS[kind.split(".")[0]].label for kind in recording.kinds]
    heading = np.stack((np.cos(recording.angle), np.sin(recording.angle)), -1)
    centre = recording.front - size[:, None, :1] / 2 * heading  # SUMO names the front bumper's middle
    velocity = _velocity(centre, recording.valid, config.dt)
    state = np.concatenate((centre, recording.angle[..., None], velocity), -1)
    state[~recording.valid] = 0
    steps = recording.valid.shape[1]
    still = np.zeros((len(standing), steps, 5))
    for row, box in zip(still, standing, strict=True):
        row[:, :2], row[:, 2] = box.centre, (box.yaw + np.pi) % (2 * np.pi) - np.pi
    still_size = np.array([box.size for box in standing]).reshape(-1, 3)
    return {
        "track_state": np.concatenate((state, still)).astype(np.float32),
        "track_valid": np.concatenate((recording.valid, np.ones((len(standing), steps), dtype=bool))),
        "track_size": np.concatenate((size, still_size)).astype(np.float32),
        "track_class": np.array(label + [box.label for box in standing], dtype=np.uint8),
    }


def _velocity(centre: np.ndarray, valid: np.ndarray, dt: float) -> np.ndarray:
    """Central differences (k, T, 2) [m/s] of the valid steps, one-sided at their ends."""
    step = np.diff(centre, axis=1) / dt
    both = valid[:, 1:] & valid[:, :-1]
    step[~both] = 0
    total, count = np.zeros_like(centre), np.zeros(valid.shape)
    total[:, 1:] += step
    total[:, :-1] += step
    count[:, 1:] += both
    count[:, :-1] += both
    return np.asarray(total / np.maximum(count, 1)[..., None])


def _motions(egos: Egos) -> dict[str, np.ndarray]:
    points, offsets = _ragged(list(egos.route))
    return {
        "ego_pose": egos.pose.astype(np.float32),
        "ego_valid": egos.valid,
        "ego_track": egos.track.astype(np.int64),
        "route_points": points,
        "route_offsets": offsets,
    }
