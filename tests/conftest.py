"""Scenes that several tests share."""

import signal
from dataclasses import replace

import numpy as np
import pytest
from untrained import untrained_world_model

from occsora_sim.grid import CAR, DRIVEABLE, MANMADE, SIDEWALK, VEGETATION
from occsora_sim.models.world_model import WorldModel
from occsora_sim.scenes.scene import Scene

TRIED = "bad inputs tried"
"""Property that a test records: how many files or requests that are made to do harm it tried."""


def pytest_terminal_summary(terminalreporter):
    """Say how many bad inputs were tried, where some were."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    properties = [
        getattr(report, "user_properties", ()) for report in reports if getattr(report, "when", "") == "call"
    ]
    if count := sum(value for part in properties for name, value in part if name == TRIED):
        terminalreporter.write_line(f"{TRIED}: {count}")


LONGEST = ("test_cluster.py", "test_every_training.py", "test_examples.py", "test_processes.py")
"""Files that take minutes, which begin first: else one process is still at them when the others have ended."""


def pytest_collection_modifyitems(items):
    """The longest files first; all others as they were."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def straight_road():
    """Builds a straight road; see `build_straight_road`."""
    return build_straight_road


@pytest.fixture(scope="session")
def built_street():
    """Builds a straight road lined with houses and trees; arguments as for `build_straight_road`."""
    return build_street


@pytest.fixture(scope="session")
def untrained_model() -> WorldModel:
    """A tiny world model with random weights throughout."""
    return untrained_world_model()


def build_street(**options) -> Scene:
    """`build_straight_road` with something every few metres beside it, nothing twice the same."""
    road, generator = build_straight_road(**options), np.random.default_rng(0)
    points, labels = [], []
    for k, x in enumerate(range(-48, 348, 6)):
        for side in (-1, 1):
            near, depth, width = generator.uniform((6, 1.5, 1.5), (11, 6, 5))
            y = side * (near + np.array([0.0, 0.0, depth, depth]))
            points.append(np.stack((x + np.array([0.0, width, width, 0.0]), y), axis=-1))
            labels.append(VEGETATION if (k + side) % 3 == 0 else MANMADE)
    offsets = road.polygon_offsets[-1] + 4 * np.arange(1, len(points) + 1)
    return replace(
        road,
        name="street",
        polygon_points=np.concatenate((road.polygon_points, *points)).astype(np.float32),
        polygon_offsets=np.concatenate((road.polygon_offsets, offsets)),
        polygon_class=np.concatenate((road.polygon_class, np.array(labels, dtype=np.uint8))),
        polygon_z=np.concatenate(
            (road.polygon_z, np.tile([[-0.2, 4.0]], (len(points), 1)).astype(np.float32))
        ),
    )


def build_straight_road(cars=(), steps=41, ego_speed=8.0, length=400.0):
    """A road 8 m wide along x from -50 m, pavements beside it; cars (x at time 0 [m], y [m], speed [m/s]).

    The ego's own car is track 0; it drives along y = 0 from x = 0.
    """
    rectangle = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float32)
    middle, half = np.array([length / 2 - 50, 0]), length / 2
    ground = rectangle * (half, 60) + middle
    road = rectangle * (half, 4) + middle
    tracks = [(1.3, 0.0, ego_speed), *cars]
    time = np.arange(steps) * 0.5
    state = np.zeros((len(tracks), steps, 5), dtype=np.float32)
    for index, (x, y, speed) in enumerate(tracks):
        state[index, :, 0], state[index, :, 1], state[index, :, 3] = x + speed * time, y, speed
    ego = np.zeros((1, steps, 3), dtype=np.float32)
    ego[0, :, 0] = ego_speed * time
    route = np.stack((np.arange(-10.0, length - 60), np.zeros(int(length - 50))), axis=-1)
    return Scene(
        name="straight",
        dt=0.5,
        polygon_points=np.concatenate((ground, road)).astype(np.float32),
        polygon_offsets=np.array([0, 4, 8]),
        polygon_class=np.array([SIDEWALK, DRIVEABLE], dtype=np.uint8),
        polygon_z=np.array([[-0.2, 0.2], [-0.2, 0.2]], dtype=np.float32),
        lane_points=route.astype(np.float32),
        lane_offsets=np.array([0, len(route)]),
        lane_width=np.array([4.0], dtype=np.float32),
        track_state=state,
        track_valid=np.ones((len(tracks), steps), dtype=bool),
        track_size=np.tile(np.array([4.4, 1.8, 1.6], dtype=np.float32), (len(tracks), 1)),
        track_class=np.full(len(tracks), CAR, dtype=np.uint8),
        ego_pose=ego,
        ego_valid=np.ones((1, steps), dtype=bool),
        ego_track=np.array([0]),
        ego_kind=("expert",),
        route_points=route.astype(np.float32),
        route_offsets=np.array([0, len(route)]),
    )
