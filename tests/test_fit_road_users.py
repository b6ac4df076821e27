"""Boxes of road users found in voxels."""

import math

import pytest
import torch

from occsora_sim.geometry import compose
from occsora_sim.grid import BUS, CAR, DRIVEABLE, FREE, MOTORCYCLE, OCC3D, PEDESTRIAN, SIDEWALK
from occsora_sim.voxels.fit_road_users import fit_road_users


def seen(
    pose: torch.Tensor, boxes: list[tuple[int, float, float, float, float, float, float]]
) -> torch.Tensor:
    """A frame at an ego pose (3,) of a road of 7 m along the world's x axis and boxes (label, x, y, yaw, length, width,
    height) in the world.
    """
    labels = torch.full(OCC3D.shape, FREE, dtype=torch.uint8)
    centres = OCC3D.centres_xy().double()
    world = compose(pose, torch.cat((centres, torch.zeros_like(centres[..., :1])), dim=-1))[..., :2]
    labels[..., OCC3D.ground] = torch.where((world[..., 1] + 1.75).abs() < 3.5, DRIVEABLE, SIDEWALK).byte()
    z = OCC3D.centres_z()
    for label, x, y, yaw, length, width, height in boxes:
        dx, dy = world[..., 0] - x, world[..., 1] - y
        along, across = math.cos(yaw) * dx + math.sin(yaw) * dy, math.cos(yaw) * dy - math.sin(yaw) * dx
        inside = (along.abs() < length / 2) & (across.abs() < width / 2)
        labels[inside[..., None] & (z > 0.2) & (z < height)] = label
    return labels


def fit(ego: list[tuple[float, float, float]], frames: list[list[tuple]]):
    poses = torch.tensor(ego).double()
    return fit_road_users(torch.stack([seen(p, f) for p, f in zip(poses, frames, strict=True)]), poses, OCC3D)


def test_a_car_that_drives_is_found_with_its_place_size_heading_and_velocity():
    frames = [[(CAR, 10 + 4 * k, 0.0, 0.0, 4.4, 2.0, 1.6)] for k in range(4)]
    users = fit([(5.0 + k, 0.0, 0.3) for k in range(4)], frames)
    assert users.label.tolist() == [[CAR]] and users.present.all()
    torch.testing.assert_close(users.now[0, 0], torch.tensor([22.0, 0, 0]).double(), atol=0.15, rtol=0)
    torch.testing.assert_close(users.velocity[0, 0], torch.tensor([8.0, 0]), atol=0.5, rtol=0)
    torch.testing.assert_close(users.size[0, 0], torch.tensor([4.4, 2.0, 1.6]), atol=0.3, rtol=0)


def test_a_car_that_stands_stands_exactly_and_heads_as_its_side_of_the_road_does():
    frame = [(CAR, 12.0, 0.0, 0.0, 4.4, 2.0, 1.6), (CAR, 12.0, -3.6, 0.0, 4.4, 2.0, 1.6)]
    # The road lies between y = -5.25 and 1.75: westwards on its north side, eastwards on its south side.
    users = fit([(k * 2.0, -3.5, 0.0) for k in range(4)], [frame] * 4)
    assert not users.velocity.any() and torch.equal(users.pose, users.pose[:, :, -1:].expand_as(users.pose))
    heading = {round(float(y)): math.cos(yaw) for _, y, yaw in users.now[0]}
    assert heading[0] < -0.9 and heading[-4] > 0.9


@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.1, 0.4])
def test_a_bus_of_which_a_part_was_seen_first_stands_where_it_is(shift):
    """From its parts its middle seems to come nearer; by that it would drive, and head, the wrong way."""
    frame = [(BUS, 46.0 + shift, -3.6, 0.0, 12.0, 2.8, 3.0)]
    users = fit([(k * 2.0, -3.5, 0.0) for k in range(4)], [frame] * 4)
    assert not users.velocity.any() and math.cos(users.now[0, 0, 2]) > 0.9


def test_a_car_that_has_stopped_stands_where_it_stopped():
    frames = [[(CAR, x, -3.6, 0.0, 4.4, 2.0, 1.6)] for x in (10.0, 12.0, 13.0, 13.05)]
    users = fit([(k * 2.0, -3.5, 0.0) for k in range(4)], frames)
    assert not users.velocity.any() and abs(float(users.now[0, 0, 0]) - 13.0) < 0.15


@pytest.mark.parametrize(("label", "length", "width"), [(CAR, 4.4, 2.0), (MOTORCYCLE, 2.2, 0.8)])
def test_who_brakes_is_as_fast_as_at_the_end_of_the_last_frame(label, length, width):
    """In it half a metre a frame faster on average, and in all of them together a metre and a half."""
    frames = [[(label, x, -3.6, 0.0, length, width, 1.6)] for x in (5.0, 10.0, 14.0, 17.0)]
    users = fit([(k * 2.0, -3.5, 0.0) for k in range(4)], frames)
    torch.testing.assert_close(users.velocity[0, 0], torch.tensor([5.0, 0.0]), atol=0.45, rtol=0)


def test_where_the_ego_keeps_left_so_do_those_that_stand():
    frame = [(CAR, 12.0, 0.0, 0.0, 4.4, 2.0, 1.6)]
    users = fit([(k * 2.0, 0.0, 0.0) for k in range(4)], [frame] * 4)
    assert math.cos(users.now[0, 0, 2]) > 0.9


def test_two_cars_that_touch_are_two():
    frame = [(CAR, 10.2, 0.2, 0.0, 4.6, 2.0, 1.6), (CAR, 14.8, 0.2, 0.0, 4.6, 2.0, 1.6)]
    users = fit([(0.0, 0.0, 0.0)], [frame])
    assert sorted(round(float(x)) for x in users.now[0, :, 0]) == [10, 15]


def test_those_that_meet_are_not_confused():
    """A car each way, 8 m a frame: in the newest frame each is nearer to where the other was."""
    frames = [
        [(CAR, -26.0 + 8 * k, -3.5, 0.0, 4.4, 2.0, 1.6), (CAR, 26.0 - 8 * k, 0.0, 0.0, 4.4, 2.0, 1.6)]
        for k in range(4)
    ]
    users = fit([(0.0, -20.0, 0.0)] * 4, frames)
    east, north_side = users.velocity[0, :, 0].tolist(), (users.now[0, :, 1] > -2).tolist()
    speeds = dict(zip(north_side, east, strict=True))
    assert speeds[True] == pytest.approx(-16, abs=1) and speeds[False] == pytest.approx(16, abs=1)


def test_a_bus_cut_by_the_edge_of_the_view_has_its_whole_length():
    users = fit([(0.0, 0.0, 0.0)], [[(BUS, 39.0, 0.0, 0.0, 12.0, 2.8, 3.0)]])
    assert users.size[0, 0, 0] >= 11.0
    assert users.now[0, 0, 0] == pytest.approx(39.0, abs=0.8)


def test_a_walker_heads_along_its_way_and_nobody_is_found_where_nobody_is():
    frames = [[(PEDESTRIAN, 5.0, 0.2 + 0.6 * k, 0.0, 0.8, 0.8, 1.8)] for k in range(4)]
    users = fit([(0.0, 0.0, 0.0)] * 4, frames)
    assert users.now[0, 0, 2] == pytest.approx(math.pi / 2, abs=0.3)
    assert fit([(0.0, 0.0, 0.0)] * 2, [[], []]).label.shape == (1, 0)


@pytest.mark.parametrize(("speed", "yaw"), [(1.3, 0.0), (1.3, 0.5), (0.9, 2.2), (1.6, -1.1)])
def test_a_walker_goes_as_fast_as_all_frames_say(speed, yaw):
    """The last two frames alone say it to 0.5 m/s: half a voxel in half a second."""
    way = [(10 + speed * k / 2 * math.cos(yaw), 3 + speed * k / 2 * math.sin(yaw)) for k in range(4)]
    users = fit(
        [(k * 0.7, 0.0, 0.0) for k in range(4)], [[(PEDESTRIAN, *at, yaw, 0.6, 0.6, 1.7)] for at in way]
    )
    expected = torch.tensor([speed * math.cos(yaw), speed * math.sin(yaw)])
    torch.testing.assert_close(users.velocity[0, 0], expected, atol=0.25, rtol=0)
    torch.testing.assert_close(users.now[0, 0, :2], torch.tensor(way[-1]).double(), atol=0.2, rtol=0)
    steps = users.pose[0, 0].diff(dim=0)[:, :2]
    torch.testing.assert_close(steps, steps[:1].expand(3, 2))  # its past is the line
