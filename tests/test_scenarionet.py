"""Logs: hand-built ones with known answers, the real ones where they are at hand, and mutants of both."""

import copy
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from occsora_sim import grid
from occsora_sim.errors import SceneError
from occsora_sim.grid import OCC3D, TINY
from occsora_sim.scenes.drivable import Canvas, closed, dilated, one_ring
from occsora_sim.scenes.log_tracks import longest_run
from occsora_sim.scenes.road_users import LABELS, SIZES, label_of, size_of
from occsora_sim.scenes.safe_pickle import load_plain
from occsora_sim.scenes.scenarionet import examine_scenarionet, read_scenarionet
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import ego_poses, make_start, sample_starts
from occsora_sim.scenes.voxeliser import Voxeliser
from occsora_sim.scoring.forecasting import forecast_windows
from occsora_sim.worlds.replay import ReplayWorld

LOGS = Path(__file__).parent.parent.parent / "shared" / "data" / "scenarios"
real_logs = pytest.mark.skipif(not LOGS.is_dir(), reason=f"the real logs are not at {LOGS}")
STEPS = 61


def track(kind, x, y, yaw, size, speed=0.0, detail=None, steps=STEPS, dt=0.1, column=False):
    """A track that goes straight on; `column` writes scalars as (T, 1)."""
    time = np.arange(steps) * dt
    ahead = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    state = {
        "position": np.array([x, y, 0.0]) + speed * time[:, None] * ahead,
        "heading": np.full(steps, float(yaw)),
        "velocity": np.tile(speed * ahead[:2], (steps, 1)),
        "valid": np.ones(steps),
    }
    for name, value in zip(("length", "width", "height"), size, strict=True):
        state[name] = np.full((steps, 1) if column else steps, float(value))
    return {"type": kind, "state": state, "metadata": {"type": detail or kind, "object_id": "?"}}


def ring(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]], dtype=float)


def make_log(**changes):
    """A road 8 m wide along x from -100 to 200 m with an island; the recording car drives along y = -2 at 10 m/s."""
    origin = 1000.0  # logs lie anywhere
    lanes = {
        "right": {
            "type": "LANE_SURFACE_STREET",
            "polyline": np.array([[x, -2.0, 0.0] for x in range(-100, 201, 5)]),
        },
        "left": {
            "type": "LANE_SURFACE_STREET",
            "polyline": np.array([[x, 2.0] for x in range(200, -101, -5)]),
        },
    }
    features = {
        **lanes,
        "boundary_0": {"type": "ROAD_LINE_SOLID_SINGLE_WHITE", "polyline": ring(-100, -4, 200, 4)},
        "boundary_1": {"type": "ROAD_LINE_SOLID_SINGLE_WHITE", "polyline": ring(60, -0.8, 80, 0.8)},
        "divider": {"type": "ROAD_LINE_BROKEN_SINGLE_WHITE", "polyline": np.array([[-100.0, 0], [200, 0]])},
    }
    tracks = {
        "ego": track("VEHICLE", 0, -2, 0, (1.73, 4.08, 1.56), 10.0, "vehicle.car"),
        "oncoming": track("VEHICLE", 60, 2, np.pi, (4.6, 1.9, 1.6), 8.0, "vehicle.car"),
        "parked": track("VEHICLE", 30, 10, np.pi / 2, (4.0, 2.0, 1.6), 0.0, "vehicle.car"),
        "walker": track("PEDESTRIAN", 20, 6, 0.3, (0.7, 0.7, 1.7), 1.2, "human.pedestrian.adult"),
        "cone": track("TRAFFIC_CONE", 45, -3.5, 0, (0.4, 0.4, 1.0), 0.0, "movable_object.trafficcone"),
    }
    for feature in features.values():
        feature["polyline"][:, :2] += origin
    for one in tracks.values():
        one["state"]["position"][:, :2] += origin
    log = {
        "id": "hand-built",
        "version": "1",
        "length": STEPS,
        "metadata": {
            "dataset": "nuscenes",
            "sdc_id": "ego",
            "ts": np.arange(STEPS) * 0.1,
            "sample_rate": 0.1,
        },
        "tracks": tracks,
        "map_features": features,
        "dynamic_map_states": {"light": {"type": "TRAFFIC_LIGHT", "state": {"object_state": [None] * STEPS}}},
    }
    for name, value in changes.items():
        place: Any = log
        *path, last = name.split("__")
        for part in path:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sd_log.pkl"


@pytest.fixture
def read(path):
    """Read a log that is written first."""

    def write_and_read(log) -> Scene:
        path.write_bytes(pickle.dumps(log))
        return read_scenarionet(path)

    return write_and_read


def labels_at(scene: Scene, x, y, z=0.0) -> int:
    """The label of the world at a place and time 0, seen by nobody."""
    pose = torch.tensor([[x, y, 0.0]])
    frame = Voxeliser(scene, OCC3D).frames(pose - torch.tensor([[0.2, 0.2, 0.0]]), torch.zeros(1))[0]
    return int(frame[100, 100, int((z + 1.0) / 0.4 + 1e-6)])


def index_of(scene: Scene, label: int) -> int:
    (found,) = np.flatnonzero(scene.track_class == label)
    return int(found)


def test_the_recording_car_is_the_first_ego_by_its_rear_axle(read):
    scene = read(make_log())
    assert scene.name == "hand-built" and scene.dt == 0.1 and scene.steps == STEPS
    assert scene.ego_kind == ("expert",) * 2
    ego = scene.ego_track[0]
    # nuScenes gives the rear axle and swaps the car's length and width; the world begins at the box's centre.
    assert scene.track_size[ego].tolist() == pytest.approx([4.08, 1.73, 1.56])
    assert scene.track_state[ego, 0].tolist() == pytest.approx([0, 0, 0, 10, 0], abs=1e-4)
    assert scene.ego_pose[0, [0, 60], 0].tolist() == pytest.approx([-1.042, 58.958], abs=1e-3)
    assert scene.ego_valid[0].all()


def test_other_data_sets_give_the_box(read):
    scene = read(make_log(metadata__dataset="waymo"))
    assert scene.ego_pose[0, 0, 0] == pytest.approx(-0.3 * 4.08, abs=1e-3)
    log = make_log(
        metadata__dataset="nuplan", metadata__ego_vehicle_parameters={"rear_axle_to_center": 1.461}
    )
    assert read(log).ego_pose[0, 0, 0] == pytest.approx(-1.461, abs=1e-3)


def test_every_revision_of_the_shapes_reads_the_same(read):
    scene = read(make_log())
    log = make_log()
    for one in log["tracks"].values():
        for name, value in one["state"].items():
            one["state"][name] = value[:, None] if value.ndim == 1 else value
        one["state"]["valid"] = one["state"]["valid"].astype(bool)
    for feature in log["map_features"].values():
        feature["polyline"] = [tuple(point) for point in feature["polyline"].tolist()]
    lists = make_log(length=np.int64(STEPS))
    for one in lists["tracks"].values():
        one["state"] = {name: value.tolist() for name, value in one["state"].items()}
    for again in (read(log), read(lists)):
        for name, value in vars(scene).items():
            other = getattr(again, name)
            assert np.array_equal(value, other) if isinstance(value, np.ndarray) else value == other, name


def test_a_parked_car_fills_exactly_its_voxels(read):
    scene = read(make_log())
    still = (scene.track_class == grid.CAR) & (np.abs(scene.track_state[:, 0, 3:]).sum(1) < 0.1)
    (parked,) = np.flatnonzero(still)
    x, y, yaw = scene.track_state[parked, 0, :3]
    assert (x, y) == pytest.approx((30 - 1.042, 12), abs=1e-3) and yaw == pytest.approx(np.pi / 2)
    frame = Voxeliser(scene, OCC3D).frames(torch.tensor([[x, y, 0.0]]), torch.zeros(1))[0]
    car = (frame == grid.CAR)[90:110, 90:110]  # 4 m each way
    # 4 m along y, 2 m along x; 1.6 m high: the centres at 0.4, 0.8 and 1.2 m.
    assert car.sum() == 5 * 10 * 3 and car.any(1).any(1).sum() == 5 and car.any(0).any(1).sum() == 10
    assert car.any(0).any(0).nonzero()[:, 0].tolist() == [3, 4, 5]


def test_the_road_is_what_its_outlines_hold(read):
    scene = read(make_log())
    at = 1.042
    for x, y, label in (
        (10, 0, grid.DRIVEABLE), (10, 3.5, grid.DRIVEABLE), (70, 2, grid.SIDEWALK), (55, 2, grid.DRIVEABLE),
        (10, -2.8, grid.SIDEWALK), (10, 7.2, grid.SIDEWALK), (30, 12, grid.CAR), (30, 14.8, grid.OTHER_FLAT),
    ):  # fmt: skip
        z = 0.8 if label == grid.CAR else 0.0
        assert labels_at(scene, x - at + (1.0 if x == 70 else 0), y, z) == label, (x, y)
    assert labels_at(scene, -55, -50) == grid.TERRAIN


def test_without_outlines_the_lanes_and_the_gaps_between_them_are_road(read):
    log = make_log(map_features__boundary_0=None, map_features__boundary_1=None)
    lanes = log["map_features"]
    lanes["left"]["polyline"][:, 1] += 2.5  # now 6.5 m from the right one: a gap of 2.5 m between them
    lanes["right"]["width"] = np.full((61, 2), 2.0, dtype=np.float32)
    lanes["left"]["width"] = np.zeros((61, 2))  # as Argoverse's are: 3.5 m is meant
    scene = read(log)
    assert [labels_at(scene, 15, y) for y in (-1.5, 0, 1.5, 3, 4, 6, 7.8)] == [grid.DRIVEABLE] * 7
    assert [labels_at(scene, 15, y) for y in (-3.2, 9.2)] == [grid.SIDEWALK] * 2
    assert "from its lanes" in scene.attributes["made_up"]
    assert sorted(scene.lane_width.tolist()) == [3.5, 4.0]


def test_walkways_and_crossings_of_the_map_are_kept(read):
    log = make_log()
    ring_at = lambda *box: ring(*box) + 1000.0  # noqa: E731
    log["map_features"]["walk"] = {"type": "ROAD_EDGE_SIDEWALK", "polygon": ring_at(-50, 4, 100, 9)}
    log["map_features"]["zebra"] = {"type": "CROSSWALK", "polygon": ring_at(40, -4, 44, 6)}
    log["map_features"]["stop"] = {"type": "STOP_SIGN", "position": np.array([1012.0, 1005, 0])}
    scene = read(log)
    assert labels_at(scene, 10, 10) == grid.SIDEWALK and labels_at(scene, 41, 7.5) == grid.DRIVEABLE
    assert labels_at(scene, 10, -3.5) != grid.SIDEWALK  # nothing is made up where the map knows
    assert labels_at(scene, 12 - 1.042, 7, 1.0) == grid.MANMADE


@pytest.mark.parametrize("form", ["lists", "ragged arrays", "one array", "polygons"])
def test_a_polygon_with_a_hole_is_painted_with_its_hole(read, form):
    outer, hole = ring(38, -4, 50, 12) + 1000.0, ring(40, 7, 46, 10) + 1000.0
    rings = {
        "lists": [outer.tolist(), hole.tolist()],
        "ragged arrays": [outer, np.concatenate((hole, hole[-1:]))],
        "one array": np.stack((outer, hole)),
        "polygons": [[outer, hole], [ring(20, 6, 24, 9) + 1000.0]],
    }[form]
    log = make_log()
    log["map_features"]["zebra"] = {"type": "CROSSWALK", "polygon": rings}
    log["map_features"]["nothing"] = {"type": "CROSSWALK", "polygon": []}
    scene = read(log)
    assert labels_at(scene, 38, 12) == grid.DRIVEABLE and labels_at(scene, 42, 10) != grid.DRIVEABLE
    assert (labels_at(scene, 21, 9.5) == grid.DRIVEABLE) == (form == "polygons")


def test_what_is_made_up_keeps_away_from_what_was_recorded(read):
    scene = read(make_log())
    low = scene.polygon_z[:, 0] < 1.5
    solid = np.flatnonzero(low & (scene.polygon_z[:, 1] > 0.3))
    assert len(solid) > 20
    canvas = Canvas((-120.0, -120, 180, 120))
    taken = canvas.fill([scene.polygon_points[a:b] for a, b in _spans(scene, solid)])
    k, t = np.nonzero(scene.track_valid)
    i, j, inside = canvas.at(scene.track_state[k, t, :2])
    assert inside.all() and not dilated(taken, 1.0)[i, j].any()
    i, j, _ = canvas.at(
        np.array([[x, y] for x in np.arange(-60, 110, 1.0) for y in np.arange(-1.5, 5.6, 0.5)])
    )
    assert not taken[i, j].any()  # the road
    assert not scene.track_state[scene.track_class == grid.CAR].shape[0] > 3  # no cars are made up


def _spans(scene: Scene, rows):
    return [(scene.polygon_offsets[i], scene.polygon_offsets[i + 1]) for i in rows]


def test_what_is_made_up_follows_from_the_name(read):
    first, again, other = read(make_log()), read(make_log()), read(make_log(id="another"))
    assert np.array_equal(first.polygon_points, again.polygon_points)
    assert first.polygon_points.shape != other.polygon_points.shape
    assert np.array_equal(first.track_state, other.track_state)
    assert read(make_log(id="../../etc/x y")).name == "etc-x-y"


def test_moving_vehicles_are_egos_while_the_recording_car_sees_them(read):
    scene = read(make_log())
    way = np.abs(scene.track_state[scene.ego_track[0], :, 0] - scene.track_state[scene.ego_track[1], :, 0])
    assert scene.track_class[scene.ego_track[1]] == grid.CAR and not scene.ego_valid[1, 0]
    assert np.array_equal(scene.ego_valid[1], np.hypot(way, 4.0) <= 50.0)
    log = make_log()
    log["tracks"]["ego"]["state"]["valid"][20:] = 0  # 2 s are too short for another's motion
    scene = read(log)
    assert len(scene.ego_kind) == 1 and scene.ego_valid[0].sum() == 20


def test_routes_begin_behind_and_go_on_along_the_lanes(read):
    scene = read(make_log())
    route = scene.route(0)
    assert route[0].tolist() == pytest.approx([-11.042, 0], abs=1e-3)
    assert np.linalg.norm(np.diff(route, axis=0), axis=1) == pytest.approx(1.0, abs=0.05)
    assert np.abs(route[:, 1]).max() < 0.1 and route[-1, 0] == pytest.approx(200 - 1.042, abs=2.5)
    other = scene.route(1)
    assert other[-1, 0] < -95 and np.abs(other[:, 1] - 4).max() < 0.1  # the other way, on its own lane


@pytest.mark.parametrize(
    ("times", "dt", "steps"),
    [
        (np.arange(STEPS) * 0.1 + 1e4, 0.1, STEPS),
        (np.arange(STEPS) * 100_000, 0.1, STEPS),  # microseconds
        ((np.arange(STEPS) * 100_000_000).astype(np.int64), 0.1, STEPS),  # nanoseconds
        (np.arange(STEPS) * 0.05, 0.05, STEPS),
        (np.arange(STEPS) * 0.5, 0.5, STEPS),
        (np.arange(STEPS) * 0.2, 0.1, 121),  # 5 Hz meets only every other frame
        (np.arange(STEPS) * 1.0, 0.1, 601),
    ],
)  # fmt: skip
def test_any_rate_is_brought_to_one_that_meets_every_frame(read, times, dt, steps):
    scene = read(make_log(metadata__ts=times))
    assert scene.dt == pytest.approx(dt) and scene.steps == steps
    assert scene.ego_pose[0, -1, 0] == pytest.approx(58.958, abs=1e-2)
    speed = 60 / ((steps - 1) * dt)
    assert scene.track_state[scene.ego_track[0], 5, 3] == pytest.approx(speed, rel=1e-3)


def test_a_rate_is_read_where_there_are_no_times(read):
    assert read(make_log(metadata__ts=None, metadata__sample_rate=0.05)).dt == pytest.approx(0.05)
    assert read(make_log(metadata__ts=None, metadata__sample_rate=20)).dt == pytest.approx(0.05)
    assert read(make_log(metadata__ts=None, metadata__sample_rate=None)).dt == pytest.approx(0.1)


def test_nothing_is_known_in_a_gap_of_time(read):
    times = np.arange(STEPS) * 0.1
    times[30:] += 1.0
    scene = read(make_log(metadata__ts=times))
    valid = scene.track_valid[scene.ego_track[0]]
    assert scene.steps == STEPS + 10 and valid.sum() == STEPS and not valid[30:40].any()
    assert scene.ego_valid[0].sum() == 31  # the longest run


def test_tracks_are_known_where_they_are_valid(read):
    log = make_log()
    state = log["tracks"]["oncoming"]["state"]
    state["valid"][:10] = 0
    state["position"][:10] = -1e7  # what an invalid step holds does not matter
    scene = read(log)
    car = scene.ego_track[1]
    assert scene.track_valid[car].tolist() == [False] * 10 + [True] * 51
    assert scene.track_state[car, 10, 3:].tolist() == pytest.approx([-8, 0], abs=1e-4)
    assert not scene.track_state[car, :10].any()


def test_traffic_lights_are_passed_over(read):
    log = make_log()
    log["tracks"]["lamp"] = {
        "type": "TRAFFIC_LIGHT",
        "state": {"object_state": ["x"] * STEPS},
        "metadata": {},
    }
    scene = read(log)
    assert len(scene.track_class) == 5 and scene.attributes["traffic_lights"] == "1, not read"


@pytest.mark.parametrize(
    ("kind", "detail", "length", "label"),
    [
        ("VEHICLE", "vehicle.bus.bendy", 18, "bus"),
        ("VEHICLE", "vehicle.construction", 6, "construction_vehicle"),
        ("VEHICLE", "vehicle.trailer", 10, "trailer"),
        ("VEHICLE", "vehicle.truck", 6, "truck"),
        ("VEHICLE", "VEHICLE", 4.5, "car"),
        ("VEHICLE", "", 9.0, "truck"),
        ("CYCLIST", "vehicle.motorcycle", 2, "motorcycle"),
        ("CYCLIST", "CYCLIST", 2, "bicycle"),
        ("PEDESTRIAN", "human.pedestrian.stroller", 1, "pedestrian"),
        ("TRAFFIC_CONE", "", 1, "traffic_cone"),
        ("TRAFFIC_BARRIER", "movable_object.barrier", 1, "barrier"),
        ("OTHER", "animal", 1, "others"),
        ("TrackedObjectType.BICYCLE", "", 1, "bicycle"),
        ("TYPE_PEDESTRIAN", "", 1, "pedestrian"),
        ("HOVERCRAFT", "", 1, "others"),
        ("BUS", "", 11, "bus"),
    ],
)
def test_each_kind_has_its_label(kind, detail, length, label):
    assert label_of(kind, detail, length) == grid.CLASSES.index(label)


def test_the_table_names_labels_that_have_a_size():
    assert set(LABELS.values()) - {None} <= set(SIZES) and label_of("TRAFFIC_LIGHT") is None
    assert size_of(grid.CAR, (0.0, np.nan, 1e9)) == SIZES[grid.CAR]
    assert size_of(grid.CAR, (4.0, 2.0, 1.0)) == (4.0, 2.0, 1.6)  # Argoverse's heights


def test_logs_start_episodes_windows_and_replays(read):
    scene = read(make_log())
    start = make_start(scene, 0, 20, TINY, history=3)
    assert start.ego_pose[:, 0].tolist() == pytest.approx([8.958, 13.958, 18.958], abs=1e-2)
    assert not (start.occupancy[-1][22:27, 23:25] == grid.CAR).any()  # the ego is not in its own way
    window, other = forecast_windows(scene, 4, TINY)
    assert other.start.name.startswith("hand-built/1@")
    assert window.poses[-1, 0] - window.start.ego_pose[-1, 0] == pytest.approx(30, abs=1e-2)
    world = ReplayWorld(TINY)
    state = world.step(world.reset([start], [0]), torch.tensor([[[5.0, 0, 0], [10.0, 0, 0]]]))
    again = make_start(scene, 0, 30, TINY, history=2)
    assert torch.equal(state.occupancy[0], again.occupancy)
    assert sample_starts([scene], 2, 0, 3, TINY, future=3.0)[0].source[1] in (0, 1)


FAULTS = [
    ({"metadata": []}, "this is no log"),
    ({"tracks": None}, "this is no log"),
    ({"length": 60}, "metadata.ts is not 60 rising times and 5 more faults"),
    ({"length": 0}, "length is not a number of steps"),
    ({"length": "many"}, "length is not a number of steps"),
    ({"metadata__sdc_id": "nobody"}, "metadata.sdc_id 'nobody' is no track"),
    ({"metadata__ts": np.zeros(STEPS)}, "metadata.ts is not 61 rising times"),
    ({"tracks__ego__state": 3}, "tracks[ego].state is missing"),
    ({"tracks__ego__state__heading": None}, "tracks[ego].state.heading is missing"),
    ({"tracks__cone__state__position": np.zeros((STEPS, 1))}, "tracks[cone].state.position is not 61 rows of 2"),
    ({"tracks__cone__state__position": [[1, 2], [3]] * 30}, "tracks[cone].state.position"),
    ({"tracks__cone__state__heading": ["x"] * STEPS}, "tracks[cone].state.heading is not 61 rows of 1"),
    ({"tracks__cone__state__heading": np.full(STEPS, np.nan)}, "tracks[cone].state holds a position or heading"),
    ({"tracks__ego__state__valid": np.zeros(STEPS)}, "tracks[ego] of the recording car is never valid"),
    ({"map_features__left__polyline": np.full((4, 2), np.inf)}, "map_features[left].polyline is not a list of finite"),
    ({"map_features__left__polyline": [[1, 2], [[3], 4]]}, "map_features[left].polyline"),
    ({"map_features__left__polygon": [[[1, 2], [3, 4]], "hole"]}, "map_features[left].polygon is not a list of finite"),
    ({"map_features__left__type": None}, "map_features[left].type is missing"),
    ({"map_features__left__width": "wide"}, "map_features[left].width is not a list of numbers"),
    ({"tracks__ego__state__position": np.arange(3.0 * STEPS).reshape(-1, 3) * 100}, "cut the log into shorter ones"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), FAULTS, ids=[said[:40] for _, said in FAULTS])
def test_faults_are_named_with_their_place_in_one_line(path, changes, said):
    path.write_bytes(pickle.dumps(make_log(**changes)))
    with pytest.raises(SceneError) as error:
        read_scenarionet(path)
    assert (
        str(error.value).startswith(f"{path}: ") and said in str(error.value) and "\n" not in str(error.value)
    )


def test_all_faults_of_a_log_are_found(path):
    changes = {
        "tracks__cone__state__heading": 1,
        "tracks__walker__state": 2,
        "map_features__left__polyline": 3,
    }
    path.write_bytes(pickle.dumps(make_log(**changes)))
    scene, faults = examine_scenarionet(path)
    assert scene is None and [fault.split(" ")[0] for fault in faults] == [
        "tracks[walker].state", "tracks[cone].state.heading", "map_features[left].polyline",
    ]  # fmt: skip
    with pytest.raises(SceneError, match="and 2 more faults"):
        read_scenarionet(path)


def test_masks_are_outlined_clipped_widened_and_closed():
    canvas = Canvas((0.0, 0, 10, 5))
    assert canvas.shape == (20, 10)
    frame = canvas.fill([ring(2, 1, 8, 4)[:-1]])
    assert frame.sum() == 12 * 6
    hole = frame & ~canvas.fill([ring(4, 2, 6, 3)[:-1]])
    rings = canvas.outlines(hole)
    assert sorted(len(r) for r in rings) == [4, 4]
    assert np.array_equal(canvas.fill([one_ring(rings)]), hole)
    assert np.array_equal(closed(hole, 1.0), frame)  # the hole is 1 m wide
    assert dilated(canvas.fill([ring(5, 2.5, 5.5, 3)[:-1]]), 1.0).sum() == 13  # a disc of two cells
    corners = {tuple(corner) for corner in canvas.clipped(ring(-5, -5, 3, 50)[:-1]).tolist()}
    assert corners == {(0, 0), (3, 0), (3, 5), (0, 5)}
    assert canvas.fill([ring(-5, -5, 3, 50)[:-1]])[:6].all()
    assert canvas.strokes([(np.array([[1.0, 2.5], [9, 2.5]]), 2.0)])[2:18, 3:7].all()
    assert longest_run([True, False, True, True, False]) == slice(2, 4) and longest_run([False]) == slice(
        0, 0
    )


@real_logs
@pytest.mark.parametrize("name", ["0061", "0103", "0655", "0757", "0796", "1077", "1100"])
def test_real_logs_are_read_as_they_were_driven(name):
    """Of the recording car, a known number of others; on the road, past whatever stands, at a car's pace."""
    scene = read_scenarionet(LOGS / f"sd_nuscenes_v1.0-mini_scene-{name}.pkl")
    others = {"0061": 3, "0103": 7, "0655": 3, "0757": 15, "0796": 17, "1077": 33, "1100": 13}[name]
    assert scene.name == f"scene-{name}" and scene.dt == 0.1 and len(scene.ego_kind) == 1 + others
    assert scene.ego_valid[0].all() and scene.ego_track[0] in range(len(scene.track_class))
    voxeliser = Voxeliser(scene, OCC3D)
    steps = np.arange(0, scene.steps, 20)
    time = torch.from_numpy(steps * 0.1)
    frames = voxeliser.frames(
        ego_poses(scene, 0, time), time, torch.full((len(steps),), int(scene.ego_track[0]))
    )
    # under the ego (4.1 x 1.7 m about its centre): road throughout, and nothing above it
    under = frames[:, 98:108, 98:102]
    assert (under[..., 2] == grid.DRIVEABLE).float().mean() > 0.99
    assert (under[..., 3:7] == grid.FREE).all()
    road = (frames[..., 2] == grid.DRIVEABLE).float().mean()
    assert 0.1 < road < 0.6
    moving = np.linalg.norm(scene.track_state[scene.ego_track][scene.ego_valid][:, 3:], axis=-1)
    assert moving.max() < 25 and (name == "1100" or moving.mean() > 2)
    route = scene.route(0)
    near = np.linalg.norm(scene.ego_pose[0, :, None, :2] - route, axis=-1).min(axis=1)
    assert near.max() < 1.0
    assert len(list(forecast_windows(scene, 2, OCC3D, voxeliser))) == 2


def mutate(value, rng: random.Random):
    """One part of a log, anywhere in it, in place of something else."""
    junk: list[Any] = [
        None, True, -1, 0, 10**18, 1e308, float("nan"), "", "LANE_X", b"x", [], {}, (), [None], [[1, 2], [3]],
        np.zeros(0), np.zeros((3, 0)), np.full(STEPS, np.inf), np.zeros((STEPS, 2)), np.array(["a"]),
        np.array([None, {}], dtype=object), np.zeros((2, 2, 2)), np.array(3), {"type": "LANE"}, -(2**62), [[[]]],
        np.arange(STEPS)[::-1] * 1e8, {1: 2}, np.full((STEPS, 3), 1e8), set(),
    ]  # fmt: skip
    while isinstance(value, dict) and value:
        key = rng.choice(list(value))
        if not isinstance(value[key], dict) or rng.random() < 0.12:
            old = value[key]
            value[key] = rng.choice(junk)
            if isinstance(old, np.ndarray) and old.dtype == np.float64 and old.size and rng.random() < 0.4:
                value[key] = old.copy()
                value[key].reshape(-1)[rng.randrange(old.size)] = rng.choice((np.nan, 1e300, -1e7, 0.5, 1e12))
            if rng.random() < 0.1:
                value[rng.choice((7, "new", ("a", 1)))] = value.pop(key)
            return
        value = value[key]


EACH = 5


@settings(max_examples=20, deadline=None, database=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(seed=st.integers(0, 2**32))
def test_100_logs_with_strange_parts_are_read_or_refused_in_one_line(path, seed):
    rng = random.Random(seed)
    for _ in range(EACH):
        log = copy.deepcopy(make_log())
        for _ in range(rng.randint(1, 3)):
            mutate(log, rng)
        path.write_bytes(pickle.dumps(log))
        try:
            assert isinstance(read_scenarionet(path), Scene)
        except SceneError as error:
            assert "\n" not in str(error) and str(error).startswith(str(path))


def as_written(value):
    """What `load_plain` read, of the types that a log is written in."""
    if isinstance(value, np.ndarray):
        return np.array(value)  # of its own class, not of one that is being read
    if isinstance(value, dict):
        return {key: as_written(part) for key, part in value.items()}
    return type(value)(map(as_written, value)) if isinstance(value, list | tuple) else value


@pytest.fixture(scope="module", params=["0757", "0061"], ids=["this_format", "the_older_one"])
def real_log(request, tmp_path_factory):
    """A real log as plain data, which reads as it is when it is written again."""
    log = as_written(load_plain(LOGS / f"sd_nuscenes_v1.0-mini_scene-{request.param}.pkl"))
    path = tmp_path_factory.mktemp("real") / "log.pkl"
    path.write_bytes(pickle.dumps(log))
    assert read_scenarionet(path).name == f"scene-{request.param}"
    return log


@pytest.mark.slow
@real_logs
@settings(max_examples=10, deadline=None, database=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(seed=st.integers(0, 2**32))
def test_20_real_logs_with_strange_parts_are_read_or_refused_in_one_line(real_log, path, seed):
    rng = random.Random(seed)
    for _ in range(2):
        log = copy.deepcopy(real_log)
        for _ in range(rng.randint(1, 4)):
            mutate(log, rng)
        path.write_bytes(pickle.dumps(log))
        try:
            assert isinstance(read_scenarionet(path), Scene)
        except SceneError as error:
            assert "\n" not in str(error) and str(error).startswith(str(path))


@real_logs
@settings(max_examples=10, deadline=None, database=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(seed=st.integers(0, 2**32))
def test_50_mutants_of_a_real_log_are_read_or_refused_in_one_line(path, seed):
    rng = random.Random(seed)
    content = (LOGS / "sd_nuscenes_v1.0-mini_scene-0757.pkl").read_bytes()
    for _ in range(5):
        mutant = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(mutant))
            mutant[at : at + rng.choice((0, 1, 1, 8))] = rng.randbytes(rng.choice((0, 1, 1, 4)))
        path.write_bytes(bytes(mutant[: rng.choice((len(mutant), rng.randrange(len(mutant))))]))
        try:
            assert isinstance(read_scenarionet(path), Scene)
        except SceneError as error:
            assert "\n" not in str(error) and str(error).startswith(str(path))
