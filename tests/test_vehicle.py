"""The bicycle model against closed forms."""

import math
from typing import Any

import pytest
import torch

from occsora_sim.errors import ActionError, ConfigurationError
from occsora_sim.vehicle import Vehicle, bicycle_rollout, footprint_corners, hold_controls

CAR = Vehicle()


def drive(speed, acceleration, steering, frames=4, **kwargs):
    controls = torch.full((1, frames), float(acceleration)), torch.full((1, frames), float(steering))
    trajectory, speeds = bicycle_rollout(CAR, torch.tensor([float(speed)]), *controls, **kwargs)
    return trajectory[0], speeds[0]


def test_straight_line_is_uniform_acceleration():
    trajectory, speeds = drive(5.0, 2.0, 0.0)
    t = torch.tensor([0.5, 1.0, 1.5, 2.0])
    torch.testing.assert_close(trajectory[:, 0], 5 * t + t**2)
    torch.testing.assert_close(speeds, 5 + 2 * t)
    assert trajectory[:, 1:].abs().max() == 0


def test_circle_has_the_radius_of_the_steering_angle():
    steering, speed = 0.3, 6.0
    radius = CAR.wheelbase / math.tan(steering)
    trajectory, _ = drive(speed, 0.0, steering, frames=8)
    centre = torch.tensor([0.0, radius])
    torch.testing.assert_close((trajectory[:, :2] - centre).norm(dim=-1), torch.full((8,), radius))
    torch.testing.assert_close(trajectory[-1, 2], torch.tensor(speed * 4.0 / radius))


def test_right_mirrors_left():
    left, right = drive(7.0, 1.0, 0.2)[0], drive(7.0, 1.0, -0.2)[0]
    torch.testing.assert_close(left * torch.tensor([1.0, -1.0, -1.0]), right)


def test_braking_stops_after_v2_over_2a_and_never_reverses():
    trajectory, speeds = drive(7.3, -4.0, 0.0, frames=6)
    assert trajectory[-1, 0].item() == pytest.approx(7.3**2 / 8, abs=1e-5)
    assert speeds[-1] == 0 and torch.equal(trajectory[-1], trajectory[-2])


def test_speed_and_controls_are_limited():
    _, speeds = drive(24.0, 100.0, 0.0, frames=2)
    assert speeds.tolist() == [25.0, 25.0]
    torch.testing.assert_close(drive(5.0, 0.0, 9.0)[0], drive(5.0, 0.0, CAR.max_steering)[0])


def test_a_frame_is_what_its_parts_are_one_after_another():
    speed, pull, angle = torch.tensor([4.0]), torch.full((1, 10), -5.0), torch.full((1, 10), 0.4)
    whole, speeds = bicycle_rollout(CAR, speed, pull[:, :2], angle[:, :2])  # it stops after 0.8 s
    parts, slowed = bicycle_rollout(CAR, speed, pull, angle, seconds=0.1)
    torch.testing.assert_close(whole, parts[:, 4::5])
    torch.testing.assert_close(speeds, slowed[:, 4::5])


def test_controls_that_are_held_are_one_arc():
    controls = torch.tensor([2.0, -6.0, 0.0]), torch.tensor([0.3, -0.1, 0.0])
    each = tuple(value[:, None].expand(-1, 4) for value in controls)
    speed = torch.tensor([24.0, 5.0, 3.0])  # one reaches the limit, one stops
    for one, other in zip(
        hold_controls(CAR, speed, *controls, 4), bicycle_rollout(CAR, speed, each[0], each[1]), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_rows_are_independent():
    speed = torch.tensor([3.0, 8.0])
    acceleration, steering = torch.tensor([[1.0, 1.0], [-2.0, 0.0]]), torch.tensor([[0.1, 0.2], [0.0, -0.3]])
    both, _ = bicycle_rollout(CAR, speed, acceleration, steering)
    for row in range(2):
        alone, _ = bicycle_rollout(
            CAR, speed[row : row + 1], acceleration[row : row + 1], steering[row : row + 1]
        )
        assert torch.equal(alone[0], both[row])


def test_corners_surround_the_rear_axle():
    corners = footprint_corners(CAR, torch.tensor([10.0, 5.0, math.pi / 2]))
    expected = torch.tensor([[-0.865, 3.084], [0.865, 3.084], [0.865, -1.0], [-0.865, -1.0]])
    torch.testing.assert_close(corners, expected + torch.tensor([10.0, 5.0]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_controls_that_are_not_finite_are_refused(bad):
    with pytest.raises(ActionError, match="finite"):
        drive(5.0, bad, 0.0)


def test_impossible_vehicle_is_refused():
    with pytest.raises(ConfigurationError):
        Vehicle(width=-1.0)


def test_sizes_are_taken_as_people_write_them_and_refused_in_one_line():
    text: Any = "2"
    assert Vehicle(width=text, length=5) == Vehicle(width=2.0, length=5.0)
    bads: list[Any] = ["wide", math.nan, None]
    for bad in bads:
        with pytest.raises(ConfigurationError, match=r"^vehicle width=[^\n]+$"):
            Vehicle(width=bad)
