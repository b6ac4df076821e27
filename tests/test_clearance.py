"""agents/clearance.py: room between boxes on a straight route, with known answers."""

import pytest
import torch

from occsora_sim.agents.clearance import FAR, TIMES, clearances
from occsora_sim.agents.driving_policy import along_route, beside_route, directions
from occsora_sim.envs.manoeuvre import MANOEUVRES
from occsora_sim.vehicle import Vehicle

FRONT, WIDTH = Vehicle().front, Vehicle().width


def room(*users, speed=6.0, aside=0.0):
    """By manoeuvre and time. Each user is x, y, velocity ahead and to the left, and 1 if it stands across: 4 m long and
    2 m wide. The ego is `aside` to the left of the route, which leads ahead.
    """
    rows = [[1, x, y, 1 - turned, turned, vx, vy, 4, 2, 4] for x, y, vx, vy, turned in users]
    points = torch.stack((torch.arange(0, 42, 2.0), torch.full((21,), -aside)), dim=-1)[None]
    ahead = directions(points)
    assert beside_route(points, ahead).tolist() == [aside]
    seen = torch.tensor([rows]).float()
    along = along_route(seen, points, ahead)
    found = clearances(seen, along, torch.tensor([aside]), torch.tensor([speed]))[0]
    assert found.shape == (len(MANOEUVRES), len(TIMES)) and -1 <= found.min() and found.max() <= FAR
    return {name: dict(zip(TIMES, found[k].tolist(), strict=True)) for k, name in enumerate(MANOEUVRES)}


def near(value):
    return pytest.approx(value, abs=1e-4)


def test_room_is_from_bumper_to_bumper_at_the_speed_of_each_manoeuvre():
    left, gap = room((20.0, 0.0, 0.0, 0.0, 0)), 18.0 - FRONT
    assert left["6 m/s"][2.0] == near(gap - 12.0)
    assert left["9 m/s"][2.0] == near(gap - (6.0 * 1.5 + 1.5**2 + 9.0 * 0.5)), "2 m/s2 for 1.5 s"
    assert left["0 m/s"][4.0] == FAR, "stands after 4.5 m"
    assert left["3 m/s"][2.0] == FAR and left["3 m/s"][4.0] == near(gap - 4.5 - 9.0)
    assert left["12 m/s"][4.0] == FAR, "is through, on the other side"
    assert left["left"][4.0] == near(3.0 - (2.0 + WIDTH) / 2), "beside it"


def test_room_is_left_where_others_will_be():
    same = room((FRONT + 2.0 + 1.0, 0.0, 6.0, 0.0, 0))
    assert list(same["6 m/s"].values()) == near([1.0] * len(TIMES)), "as fast as the ego, 1 m ahead"
    crossing = room((5.0, 5.0, 0.0, -2.0, 1), speed=0.0)["0 m/s"]
    assert crossing[0.5] == near(5.0 - 1.0 - (4.0 + WIDTH) / 2), "to its bumper, which is across"
    assert crossing[2.5] == near(5.0 - 1.0 - FRONT), "in front of the ego"
    assert room((1.0, 0.0, 0.0, 0.0, 0), speed=0.0)["0 m/s"][0.5] == -1, "well into it"


def test_nobody_behind_and_nobody_at_all_leave_all_room():
    left = room((-8.0, 0.0, 9.0, 0.0, 0), speed=0.0)
    assert {value for times in left.values() for value in times.values()} == {FAR}, "whoever follows brakes"
    empty = torch.zeros(1, 3, 10)
    assert (clearances(empty, torch.zeros(1, 3, 6), torch.zeros(1), torch.zeros(1)) == FAR).all()


def test_how_far_beside_the_route_one_is_does_not_depend_on_where_it_leads():
    points = torch.tensor([[(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (2.0, 4.0)]])  # leads to the left, 2 m ahead
    ahead = torch.tensor([[(1.0, 0.0), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0)]])
    assert beside_route(points, ahead).tolist() == [2.0]


def test_who_is_beside_the_route_comes_back_to_it():
    """3 m to the left of it the ego is beside a car on it, then behind it, 2 m/s nearer to its line."""
    left = room((FRONT + 2.0 + 0.05, -3.0, 6.0, 0.0, 0), aside=3.0)
    assert left["6 m/s"][0.5] == near(2.0 - (2.0 + WIDTH) / 2), "still beside it"
    assert left["6 m/s"][4.0] == near(0.05), "behind it"
    assert left["left"][4.0] == near(3.0 - (2.0 + WIDTH) / 2), "stays where it is"
