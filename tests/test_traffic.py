import dataclasses
import importlib.util

import numpy as np
import pytest

from occsora_sim import grid
from occsora_sim.errors import ConfigurationError, MissingDependencyError
from occsora_sim.scenes.demand import Recording
from occsora_sim.scenes.deviation import Paths, Plan, drive
from occsora_sim.scenes.ground import Raster, octagon, rectangle, ribbon
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.town import TownConfig
from occsora_sim.scenes.traffic import make_town, tracks_of

SMALL = TownConfig(extent=90.0, block=90.0, fringe=50.0, warm_up=8.0, duration=10.0, egos=6)


@pytest.fixture(scope="module")
def small() -> Scene:
    return make_town(3, SMALL)


@pytest.fixture(scope="module")
def town() -> Scene:
    return make_town(1)


def ground_at(scene: Scene, points: np.ndarray) -> np.ndarray:
    """The label painted last at each point (n, 2), FREE where none is; even-odd rule."""
    label = np.full(len(points), grid.FREE)
    for i in np.flatnonzero(scene.polygon_z[:, 1] <= 0.21):
        ring = scene.polygon_points[scene.polygon_offsets[i] : scene.polygon_offsets[i + 1]].astype(float)
        near = np.flatnonzero(((points >= ring.min(0)) & (points <= ring.max(0))).all(1))
        a, b, p = ring, np.roll(ring, -1, axis=0), points[near, None]
        crosses = (a[:, 1] > p[..., 1]) != (b[:, 1] > p[..., 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            x = a[:, 0] + (p[..., 1] - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])
        inside = (crosses & (p[..., 0] < x)).sum(1) % 2 == 1
        label[near[inside]] = scene.polygon_class[i]
    return label


def test_the_same_seed_gives_the_same_town_bit_for_bit(small: Scene) -> None:
    again = make_town(3, SMALL)
    for name, value in vars(small).items():
        other = getattr(again, name)
        if isinstance(value, np.ndarray):
            assert value.dtype == other.dtype and value.tobytes() == other.tobytes(), name
        else:
            assert value == other, name


def test_another_seed_gives_another_town(small: Scene) -> None:
    other = make_town(4, SMALL)
    assert other.polygon_points.shape != small.polygon_points.shape
    assert other.track_state.shape != small.track_state.shape


def test_arrays_have_the_shapes_and_types_of_a_scene(small: Scene) -> None:
    tracks, egos, steps = len(small.track_class), len(small.ego_kind), 20
    assert small.track_state.shape == (tracks, steps, 5) and small.track_state.dtype == np.float32
    assert small.track_valid.shape == (tracks, steps) and small.track_size.shape == (tracks, 3)
    assert small.ego_pose.shape == (egos, steps, 3) and small.ego_pose.dtype == np.float32
    assert small.polygon_offsets[-1] == len(small.polygon_points) and small.polygon_offsets.dtype == np.int64
    assert small.lane_offsets[-1] == len(small.lane_points) and len(small.route_offsets) == egos + 1
    assert np.isfinite(small.track_state).all() and np.isfinite(small.ego_pose).all()
    assert small.attributes["seed"] == "3" and small.attributes["sumo"]


def test_a_town_shows_every_class(town: Scene) -> None:
    seen = set(town.polygon_class.tolist()) | set(town.track_class.tolist())
    assert seen == set(range(grid.FREE))


def test_everything_that_moves_is_on_the_map(town: Scene) -> None:
    square = town.polygon_points[:4]
    centre = town.track_state[town.track_valid][:, :2]
    assert (centre - 40 > square.min(0)).all() and (centre + 40 < square.max(0)).all()


def test_every_kind_of_ego_motion_is_there_and_lasts(town: Scene) -> None:
    kinds = set(town.ego_kind)
    assert kinds == {"expert", "late_brake", "drift", "leave_lane", "near_miss", "standstill"}
    assert town.ego_kind.count("expert") == 11 and len(town.ego_kind) == 24
    assert town.ego_valid.mean() > 0.7 and town.ego_valid.sum(1).min() >= 10
    for valid in town.ego_valid:
        assert (np.diff(valid.astype(int)) != 0).sum() <= 2  # contiguous
    drivable = (grid.CAR, grid.BUS, grid.TRUCK, grid.MOTORCYCLE)
    assert np.isin(town.track_class[town.ego_track], drivable).all()


def test_experts_drive_on_the_road_along_their_route(town: Scene) -> None:
    for ego in np.flatnonzero(np.array(town.ego_kind) == "expert"):
        places = town.ego_pose[ego, town.ego_valid[ego], :2].astype(float)
        assert (ground_at(town, places) == grid.DRIVEABLE).mean() > 0.99
        distance = np.linalg.norm(places[:, None] - town.route(int(ego))[None], axis=-1).min(1)
        assert distance.max() < 0.8


def test_the_road_has_no_holes_along_any_lane(town: Scene) -> None:
    assert (ground_at(town, town.lane_points.astype(float)) == grid.DRIVEABLE).all()


def test_off_expert_motion_is_what_a_car_can_do(town: Scene) -> None:
    for ego, kind in enumerate(town.ego_kind):
        if kind == "expert":
            continue
        pose = town.ego_pose[ego, town.ego_valid[ego]].astype(float)
        turn = (np.diff(pose[:, 2]) + np.pi) % (2 * np.pi) - np.pi
        speed = np.linalg.norm(np.diff(pose[:, :2], axis=0), axis=1) / town.dt
        assert np.abs(turn / town.dt).max() < 1.3 and speed.max() < 20
        assert np.abs(np.diff(speed) / town.dt).max() < 8.5


def test_deviations_leave_the_route_as_their_names_say(town: Scene) -> None:
    aside: dict[str, float] = {}
    for ego, kind in enumerate(town.ego_kind):
        places = town.ego_pose[ego, town.ego_valid[ego], :2].astype(float)
        distance = np.linalg.norm(places[:, None] - town.route(ego)[None], axis=-1).min(1).max()
        aside[kind] = max(aside.get(kind, 0.0), float(distance))
    assert 0.7 < aside["drift"] < 3 and 2 < aside["leave_lane"] < 5 and aside["late_brake"] < 1.2


def test_buildings_keep_off_the_streets(town: Scene) -> None:
    big = (town.polygon_class == grid.MANMADE) & (np.diff(town.polygon_offsets) == 4)
    middles = []
    for i in np.flatnonzero(big & (town.polygon_z[:, 0] < 0)):
        ring = town.polygon_points[town.polygon_offsets[i] : town.polygon_offsets[i + 1]]
        if np.linalg.norm(ring[0] - ring[1]) > 3:
            middles.append(np.concatenate((ring, ring.mean(0, keepdims=True))))
    labels = ground_at(town, np.concatenate(middles).astype(float))
    assert len(middles) > 100 and not np.isin(labels, (grid.DRIVEABLE, grid.SIDEWALK)).any()


def test_sumo_names_the_front_bumper_and_the_box_its_centre() -> None:
    front = np.array([[[10.0, 5.0], [10.0, 6.0]]])
    recording = Recording(
        names=("car0",),
        kinds=("car.0",),
        front=front,
        angle=np.full((1, 2), np.pi / 2),
        valid=np.ones((1, 2), dtype=bool),
        lanes=("",),
        routes=((),),
    )
    tracks = tracks_of(recording, {"car.0": (4.0, 1.8, 1.5)}, [], TownConfig())
    np.testing.assert_allclose(tracks["track_state"][0, 0], [10, 3, np.pi / 2, 0, 2], atol=1e-6)
    assert tracks["track_class"].tolist() == [grid.CAR]


def test_a_ribbon_of_a_straight_line_is_a_rectangle() -> None:
    outline = ribbon(np.array([[0.0, 0.0], [5.0, 0.0], [10.0, 0.0]]), 3.0, extend=1.0)
    np.testing.assert_allclose(outline, [[-1, 1.5], [5, 1.5], [11, 1.5], [11, -1.5], [5, -1.5], [-1, -1.5]])


def test_a_raster_refuses_what_is_taken_or_off_the_map() -> None:
    raster = Raster((0.0, 0.0, 40.0, 30.0))
    raster.take(rectangle(np.array([10.0, 10.0]), 0.3, 8.0, 4.0))
    assert not raster.free(octagon(np.array([13.0, 11.0]), 1.0))
    assert raster.free(octagon(np.array([10.0, 15.0]), 1.0))
    assert not raster.free(octagon(np.array([39.9, 15.0]), 1.0))
    raster.take_any(np.array([[20.0, 0.5], [30.0, 0.5], [30.0, 20.0], [25.0, 5.0]]))
    assert not raster.free(octagon(np.array([28.0, 5.0]), 1.0))
    assert raster.free(octagon(np.array([23.0, 12.0]), 1.0))


def drive_at_a_standing_car(late: bool) -> np.ndarray:
    """Speeds (T - 1,) [m/s] of a car at 10 m/s towards a car that stands 60 m ahead."""
    steps = 40
    points = np.stack((np.arange(0, 120, 0.5), np.zeros(240)), -1)[None]
    paths = Paths(points=points, yaw=np.zeros((1, 240)), speed=np.full((1, 240), 10.0), count=np.array([240]))
    zeros = np.zeros((1, steps * 5))
    plan = Plan(offset=zeros, factor=zeros + 1, brake=zeros, headway=np.ones(1), late=np.array([late]))
    state = np.zeros((2, steps, 5))
    state[1, :, 0] = 60.0
    valid, size = np.ones((2, steps), dtype=bool), np.tile([4.0, 1.8, 1.5], (2, 1))
    first, own = np.array([10.0]), np.array([0])
    pose, alive = drive(paths, plan, first, np.array([0]), state, valid, size, own, 0.5)
    assert alive.all()
    assert 50 < pose[0, -1, 0] < 58 - 3.1  # stands behind it, its front at 3.1 m
    return np.diff(pose[0, :, 0]) / 0.5


def test_a_late_braker_brakes_harder_than_the_driver_model() -> None:
    late, normal = drive_at_a_standing_car(True), drive_at_a_standing_car(False)
    assert np.diff(late).min() / 0.5 < -4.5 < np.diff(normal).min() / 0.5
    assert late[-1] == pytest.approx(0, abs=0.05)


def test_a_missing_sumo_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingDependencyError, match=r'^SUMO is not installed: pip install "occsora-sim\[traffic\]"$'
    ):
        make_town(0, SMALL)


@pytest.mark.parametrize("change", [{"plan": "spiral"}, {"dt": 0.25}, {"egos": 0}, {"extent": -1.0}])
def test_a_town_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"^town: "):
        dataclasses.replace(SMALL, **change)  # type: ignore[arg-type]
