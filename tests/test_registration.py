"""Claims on the registration: hand-built places seen from two known poses, and what must not be registered."""

import math

import numpy as np
import pytest
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import relative
from occsora_sim.grid import CAR, DRIVEABLE, MANMADE, SIDEWALK, TERRAIN, VEGETATION, Grid
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.voxeliser import Voxeliser
from occsora_sim.scoring.registration import register

GRID = Grid(shape=(120, 120, 16), voxel=0.4, lower=(-24.0, -24.0, -1.0))
FLAT, TALL = (-0.2, 0.2), (-0.2, 5.0)


def box(x0, y0, x1, y1, label, z=FLAT):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], label, z


STREET = [
    box(-99, -99, 99, 99, TERRAIN),
    box(-99, -7, 99, 7, SIDEWALK),
    box(-99, -4, 99, 4, DRIVEABLE),
]
HOUSES = [
    box(6, 9, 17, 18, MANMADE, TALL),
    box(-14, -17, -3, -9, MANMADE, TALL),
    box(9, -9, 11, -8, VEGETATION, TALL),
]
MOTIONS = {
    "ahead": (7.3, 0.0, 0.0),
    "backwards and aside": (-2.1, 1.7, 0.0),
    "left": (4.1, 0.9, 0.42),
    "right, far": (9.2, -1.7, -0.31),
    "not at all": (0.0, 0.0, 0.0),
}  # fmt: skip


def place(polygons, cars=()):
    """A scene of polygons (corners, label, heights) and of cars (x, y, yaw at time 0 [m], speed along x [m/s])."""
    corners = [np.array(points, np.float32) for points, _, _ in polygons]
    state = np.zeros((len(cars), 3, 5), np.float32)
    for k, (x, y, yaw, speed) in enumerate(cars):
        state[k, :, 0], state[k, :, 1:4] = x + speed * np.arange(3), (y, yaw, speed)
    return Scene(
        name="hand-built",
        dt=1.0,
        polygon_points=np.concatenate([np.zeros((0, 2), np.float32), *corners]),
        polygon_offsets=np.cumsum([0, *map(len, corners)]),
        polygon_class=np.array([label for _, label, _ in polygons], np.uint8),
        polygon_z=np.array([z for _, _, z in polygons], np.float32).reshape(-1, 2),
        lane_points=np.zeros((0, 2), np.float32),
        lane_offsets=np.zeros(1, np.int64),
        lane_width=np.zeros(0, np.float32),
        track_state=state,
        track_valid=np.ones((len(cars), 3), bool),
        track_size=np.tile(np.array([4.5, 1.9, 1.6], np.float32), (len(cars), 1)),
        track_class=np.full(len(cars), CAR, np.uint8),
        ego_pose=np.zeros((0, 3, 3), np.float32),
        ego_valid=np.zeros((0, 3), bool),
        ego_track=np.zeros(0, np.int64),
        ego_kind=(),
        route_points=np.zeros((0, 2), np.float32),
        route_offsets=np.zeros(1, np.int64),
    )


def see(scene, *poses):
    """Frames (n, 1, x, y, z) from the poses, a second apart."""
    times = torch.arange(len(poses)).double()
    return Voxeliser(scene, GRID).frames(torch.tensor(poses, dtype=torch.float64), times)[:, None]


def seen_after(scene, motion, origin=(0.3, -0.4, 0.12)):
    """The registration of two frames between which the ego moves by `motion`."""
    cos, sin = math.cos(origin[2]), math.sin(origin[2])
    x, y, yaw = motion
    target = (origin[0] + cos * x - sin * y, origin[1] + sin * x + cos * y, origin[2] + yaw)
    earlier, later = see(scene, origin, target)
    return register(earlier, later, GRID)


def error(found, motion):
    off = relative(torch.tensor(motion), found.motion[0])
    return float(off[:2].norm()), abs(math.degrees(float(off[2])))


@pytest.mark.parametrize("motion", MOTIONS.values(), ids=MOTIONS)
def test_known_motions_are_recovered_to_a_tenth_of_a_metre_and_half_a_degree(motion):
    found = seen_after(place(STREET + HOUSES), motion)
    assert found.found.all()
    metres, degrees = error(found, motion)
    assert metres < 0.1 and degrees < 0.5


def test_traffic_changes_nothing():
    cars = [(-12, 2, 0, 8), (4, -2, math.pi, -8), (14, 2, 0, 8), (10, -2, 0, 0)]
    with_cars = seen_after(place(STREET + HOUSES, cars), MOTIONS["left"])
    without = seen_after(place(STREET + HOUSES), MOTIONS["left"])
    assert torch.equal(with_cars.motion, without.motion)


@pytest.mark.parametrize(
    "polygons",
    [[], STREET[:1], STREET, [*STREET, *(box(x, 9, x + 1.5, 10.5, VEGETATION, TALL) for x in range(-99, 99, 5))]],
    ids=["nothing", "a meadow", "a straight street", "a row of equal trees"],
)  # fmt: skip
def test_where_the_motion_cannot_be_known_it_is_not_guessed(polygons):
    found = seen_after(place(polygons), (5.0, 0.3, 0.1))
    assert not found.found.any() and found.motion.isnan().all()


def test_a_motion_beyond_the_window_is_not_found():
    assert not seen_after(place(STREET + HOUSES), (3.0, 0.0, 1.2)).found.any()


def test_frames_of_two_places_do_not_match():
    generator = np.random.default_rng(0)
    one, other = (
        [box(x, y, x + 3, y + 3, MANMADE, TALL) for x, y in generator.uniform(-24, 20, (25, 2))] for _ in range(2)
    )  # fmt: skip
    first, second = see(place(STREET[:1] + one), (0, 0, 0)), see(place(STREET[:1] + other), (0, 0, 0))
    assert not register(first[0], second[0], GRID).found.any()


def test_a_batch_equals_its_pairs():
    scene = place(STREET + HOUSES)
    poses = [(0, 0, 0), (3, 0.2, 0.1), (5, 1, 0.3)]
    a, b, c = see(scene, *poses)
    both = register(torch.cat((a, b)), torch.cat((b, c)), GRID)
    for k, (earlier, later) in enumerate([(a, b), (b, c)]):
        alone = register(earlier, later, GRID)
        torch.testing.assert_close(both.motion[k], alone.motion[0], atol=1e-4, rtol=0)
    assert register(a[:0], b[:0], GRID).motion.shape == (0, 3)


def test_frames_of_another_grid_are_refused_in_one_line():
    frames = see(place(STREET), (0, 0, 0))[0]
    with pytest.raises(ConfigurationError, match=r"^[^\n]*give frames of this grid$"):
        register(frames, frames, Grid())
