"""Pedestrians walk on by their own velocity, and small road users keep their place between the voxels."""

import math

import pytest
import torch

from occsora_sim.geometry import compose
from occsora_sim.grid import BICYCLE, CAR, FREE, OCC3D, PEDESTRIAN
from occsora_sim.models.columns import road_user_image
from occsora_sim.models.motion import advect
from occsora_sim.models.walkers import landed, stop_before, walk_on
from occsora_sim.vehicle import Vehicle

VOXEL = OCC3D.voxel


def column_of(x: float, y: float) -> tuple[int, int]:
    """The column that holds a point of the ego frame [m]."""
    return math.floor((x - OCC3D.lower[0]) / VOXEL), math.floor((y - OCC3D.lower[1]) / VOXEL)


def frames_of(places: list[list[tuple[float, float]]], label: int = PEDESTRIAN) -> torch.Tensor:
    """Images (1, h, x, y, 2) of road users of a column each at places [m], a list for each frame."""
    frames = torch.full((1, len(places), *OCC3D.shape), FREE, dtype=torch.uint8)
    for k, points in enumerate(places):
        for x, y in points:
            frames[(0, k, *column_of(x, y), slice(3, 7))] = label
    return road_user_image(frames)


def velocity(images: torch.Tensor, at: tuple[float, float], poses: torch.Tensor | None = None) -> list[float]:
    """What `walk_on` says of the road user in the newest frame at a place: [m/s] at the second instant; 9 untouched."""
    h = images.shape[1]
    nothing = torch.full((1, 2, *OCC3D.shape[:2], 2), 9.0)
    offsets = torch.zeros(1, h, *OCC3D.shape[:2], 2, dtype=torch.float16)
    poses = torch.zeros(1, h, 3) if poses is None else poses
    displacement, _ = walk_on(nothing, images, offsets, poses, OCC3D)
    return displacement[(0, 1, *column_of(*at))].tolist()


def test_a_pedestrian_keeps_the_velocity_of_the_last_frames():
    images = frames_of([[(5.2, 3.0 + 0.8 * k)] for k in range(4)])
    assert velocity(images, (5.2, 5.4)) == pytest.approx([0.0, 1.6], abs=1e-4)


def test_the_steps_of_the_voxels_are_evened_out():
    images = frames_of(
        [[(5.2, 3.0 + 0.62 * k)] for k in range(4)]
    )  # 1.24 m/s: steps of one and of two columns
    found = velocity(images, (5.2, 4.86))
    assert found[0] == pytest.approx(0.0, abs=1e-4) and found[1] == pytest.approx(1.24, abs=0.15)


def test_the_line_through_his_places_says_where_he_is_between_the_voxels():
    walk = [(5.2, 3.3 + 0.54 * k) for k in range(4)]
    images, nothing = frames_of([[place] for place in walk]), torch.zeros(1, 2, *OCC3D.shape[:2], 2)
    offsets = torch.zeros(1, 4, *OCC3D.shape[:2], 2, dtype=torch.float16)
    _, offset = walk_on(nothing, images, offsets, torch.zeros(1, 4, 3), OCC3D)
    at = column_of(*walk[-1])
    centre = OCC3D.centres_xy()[at]
    found = float(centre[1] + offset[(0, *at)][1])
    assert abs(found - walk[-1][1]) < abs(float(centre[1]) - walk[-1][1])
    assert found == pytest.approx(walk[-1][1], abs=0.1)
    assert not offsets.any() and int((offset != 0).any(-1).sum()) == 1


def test_the_egos_own_motion_is_taken_out():
    world = [(12.0 + 0.6 * k, 2.0) for k in range(4)]
    poses = torch.tensor([[[3.0 * k, 0.0, 0.0] for k in range(4)]])
    images = frames_of([[(x - 3.0 * k, y)] for k, (x, y) in enumerate(world)])
    found = velocity(images, (world[3][0] - 9.0, 2.0), poses)
    assert found == pytest.approx([1.2, 0.0], abs=0.25)  # the voxels of four frames


def test_two_who_meet_keep_to_their_ways():
    images = frames_of([[(5.0, 3.0 + 0.8 * k), (7.0, 9.0 - 0.8 * k)] for k in range(4)])
    assert velocity(images, (5.0, 5.4)) == pytest.approx([0.0, 1.6], abs=1e-4)
    assert velocity(images, (7.0, 6.6)) == pytest.approx([0.0, -1.6], abs=1e-4)


def test_who_was_not_there_before_and_who_is_no_pedestrian_are_left_alone():
    nothing = [9.0, 9.0]
    assert velocity(frames_of([[], [], [], [(5.2, 3.0)]]), (5.2, 3.0)) == nothing
    assert velocity(frames_of([[(5.2, 3.0)]] * 4, CAR), (5.2, 3.0)) == nothing
    assert (
        velocity(frames_of([[(25.2, 3.0)], [(25.2, 3.0)], [(25.2, 3.0)], [(5.2, 3.0)]]), (5.2, 3.0))
        == nothing
    )
    assert velocity(frames_of([[], [], [], []]), (5.2, 3.0)) == nothing


def test_a_slow_walk_over_many_chunks_does_not_stick_to_the_voxels():
    """0.5 m/s is 0.25 m a frame, less than a voxel: rounded each frame it would come to nothing or to 0.8 m/s."""
    place, speed, seconds = (5.2, 3.0), 0.5, 12
    last = torch.full((1, *OCC3D.shape), FREE, dtype=torch.uint8)
    last[(0, *column_of(*place), slice(3, 7))] = PEDESTRIAN
    offset = torch.zeros(1, *OCC3D.shape[:2], 2, dtype=torch.float16)
    pose = torch.zeros(1, 3)
    for _ in range(seconds):  # two frames a chunk, the ego turning on its way
        ahead = torch.tensor([[[0.5, 0.0, 0.05], [1.0, 0.0, 0.1]]])
        target = compose(pose[:, None], ahead)
        way = torch.zeros(1, 2, *OCC3D.shape[:2], 2)
        angle = -float(pose[0, 2])
        for k in (0, 1):  # along the world's y axis
            length = speed * 0.5 * (k + 1)
            way[0, k] = torch.tensor([-math.sin(angle) * length, math.cos(angle) * length])
        way = way + offset[:, None]
        frames, _ = advect(last, way, pose, target, OCC3D)
        offset = landed(road_user_image(last), way, pose, target, OCC3D)[:, -1].half()
        last, pose = frames[:, -1], target[:, -1]
    cells = (last == PEDESTRIAN).any(-1).nonzero()
    assert len(cells) == 1
    _, i, j = cells[0].tolist()
    seen = OCC3D.centres_xy("cpu")[i, j] + offset[0, i, j].float()
    x, y, yaw = pose[0].tolist()
    there = (
        x + math.cos(yaw) * float(seen[0]) - math.sin(yaw) * float(seen[1]),
        y + math.sin(yaw) * float(seen[0]) + math.cos(yaw) * float(seen[1]),
    )
    start = OCC3D.centres_xy("cpu")[column_of(*place)].tolist()
    assert there == pytest.approx((start[0], start[1] + speed * seconds), abs=0.02)


def test_offsets_lie_within_a_voxel_and_only_where_small_road_users_land():
    frame = torch.full((1, *OCC3D.shape), FREE, dtype=torch.uint8)
    frame[0, 100, 100, 3:6], frame[0, 50:61, 50:55, 3:6] = BICYCLE, CAR
    way = torch.full((1, 2, *OCC3D.shape[:2], 2), 0.57)
    pose = torch.zeros(1, 3)
    offset = landed(road_user_image(frame), way, pose, pose.expand(1, 2, 3), OCC3D)
    assert offset[0].any(-1).nonzero().tolist() == [[0, 101, 101], [1, 101, 101]]
    assert offset.abs().max() <= VOXEL / 2
    assert offset[0, 0, 101, 101].tolist() == pytest.approx([0.17, 0.17], abs=1e-4)


# ------------------------------------------------------------------ the ego
HERE = torch.zeros(1, 2, 3)
"""An ego that stands."""


def stopped(at: tuple[float, float], way: tuple[float, float], ego: torch.Tensor, label: int) -> list[float]:
    """How far a road user of one column at `at` gets in a chunk who would go `way` in it [m]."""
    image = frames_of([[at]], label)[:, 0]
    share = torch.tensor([0.5, 1.0]).view(1, 2, 1, 1, 1)
    ways = (share * torch.tensor(way)).expand(1, 2, *OCC3D.shape[:2], 2)
    return stop_before(ways, image, ego, OCC3D)[(0, 1, *column_of(*at))].tolist()


@pytest.mark.parametrize("label", [PEDESTRIAN, BICYCLE])
def test_nobody_walks_or_rides_into_the_ego(label):
    assert stopped((2.2, 2.2), (0.0, -1.4), HERE, label) == [0.0, 0.0]  # from the side
    assert stopped((2.2, 2.2), (0.0, -6.0), HERE, label) == [
        0.0,
        0.0,
    ]  # and would be through before the next frame
    assert stopped((2.2, 2.2), (1.4, 0.0), HERE, label) == pytest.approx([1.4, 0.0])  # along it
    assert stopped((2.2, 1.4), (0.0, 1.4), HERE, label) == pytest.approx([0.0, 1.4])  # close by, but away


def test_a_pedestrian_of_several_columns_stops_whole():
    beside = Vehicle().width / 2
    columns = [(2.2, beside + 0.5 + VOXEL * k) for k in range(2)]  # the farther one would stay clear
    image = frames_of([columns])[:, 0]
    ways = torch.zeros(1, 2, *OCC3D.shape[:2], 2)
    ways[..., 1] = torch.tensor([-0.2, -0.4]).view(1, 2, 1, 1)
    found = stop_before(ways, image, HERE, OCC3D)
    for x, y in columns:
        assert not found[(0, slice(None), *column_of(x, y))].any()


def test_who_is_before_a_standing_ego_walks_on_across_and_away_but_not_nearer():
    close = (Vehicle().front + 0.4, 0.2)
    assert stopped(close, (0.0, 1.4), HERE, PEDESTRIAN) == pytest.approx([0.0, 1.4])
    assert stopped(close, (1.4, 0.0), HERE, PEDESTRIAN) == pytest.approx([1.4, 0.0])
    assert stopped(close, (-0.6, 0.6), HERE, PEDESTRIAN) == [0.0, 0.0]


def test_who_would_be_run_over_standing_too_and_vehicles_are_left_alone():
    arrives = torch.tensor([[[4.0, 0.0, 0.0], [8.0, 0.0, 0.0]]])
    assert stopped((9.0, 0.2), (0.0, -0.4), arrives, PEDESTRIAN) == pytest.approx([0.0, -0.4])
    assert stopped((2.2, 2.2), (0.0, -1.4), HERE, CAR) == pytest.approx([0.0, -1.4])
