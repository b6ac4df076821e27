"""Vehicles are in one piece, move as one, and not into one another."""

import math

import pytest
import torch

from occsora_sim.grid import (
    BICYCLE,
    BUS,
    CAR,
    DRIVEABLE,
    FREE,
    MOTORCYCLE,
    OCC3D,
    OTHER_FLAT,
    PEDESTRIAN,
    TRUCK,
)
from occsora_sim.models.columns import road_user_image
from occsora_sim.models.motion import advect
from occsora_sim.models.patches import count_vehicles, whole_vehicles, without_crumbs, without_shapeless
from occsora_sim.models.vehicle_motion import move_as_vehicles


def street(*boxes: tuple[int, int, int, int, int]) -> torch.Tensor:
    """(1, 200, 200, 16) with boxes (label, x, y, length, width) in columns, three voxels high, on a road."""
    frame = torch.full((1, *OCC3D.shape), FREE, dtype=torch.uint8)
    frame[..., 2] = DRIVEABLE
    for label, x, y, length, width in boxes:
        frame[0, x : x + length, y : y + width, 3:6] = label
    return frame


def ways(frame: torch.Tensor, *moves: tuple[tuple[int, int, int, int, int], float, float]) -> torch.Tensor:
    """Displacements (1, 2, 200, 200, 2): each box by x, y [m] in the second frame, half in the first."""
    out = torch.zeros(1, 2, *OCC3D.shape[:2], 2)
    for (_, x, y, length, width), dx, dy in moves:
        out[0, :, x : x + length, y : y + width] = torch.tensor([[dx, dy], [dx, dy]])[:, None, None]
    out[:, 0] /= 2
    return out


def moved(frame: torch.Tensor, way: torch.Tensor) -> torch.Tensor:
    pose = torch.zeros(1, 3)
    return advect(
        frame, move_as_vehicles(way, road_user_image(frame), OCC3D), pose, pose.expand(1, 2, 3), OCC3D
    )[0]


# ------------------------------------------------------------------ pieces
def test_a_whole_car_a_turned_one_and_a_pedestrian_stay_as_they_are():
    frame = street((CAR, 50, 50, 11, 5), (PEDESTRIAN, 80, 80, 1, 1))
    centre = OCC3D.centres_xy("cpu")
    angle = math.radians(30)
    along = centre[..., 0] * math.cos(angle) + centre[..., 1] * math.sin(angle)
    aside = centre[..., 1] * math.cos(angle) - centre[..., 0] * math.sin(angle)
    turned = (along.abs() < 5) & (aside.abs() < 1.3)
    frame[0, turned, 3:6] = BUS
    once = whole_vehicles(frame)
    assert torch.equal(once[0, 40:90, 40:90], frame[0, 40:90, 40:90])
    assert (once != frame).any(-1).sum() <= 4  # a corner of the turned one at most
    assert torch.equal(whole_vehicles(once), once)


def test_a_piece_takes_the_class_of_the_vehicle_that_it_is_part_of():
    frame = street((TRUCK, 50, 50, 16, 6), (BUS, 66, 50, 4, 6))
    whole = whole_vehicles(frame)
    assert (whole[0, 50:70, 50:56, 3:6] == TRUCK).all()
    assert not (whole == BUS).any()


def test_two_whole_vehicles_that_touch_keep_their_classes():
    frame = street((TRUCK, 50, 50, 16, 6), (BUS, 66, 50, 24, 6))
    assert torch.equal(whole_vehicles(frame), frame)


def test_crumbs_vanish_but_not_where_the_edge_of_the_view_cuts_them():
    frame = street((CAR, 100, 100, 3, 3), (CAR, 0, 20, 3, 5))
    whole = whole_vehicles(frame)
    assert not (whole[0, 90:110, 90:110] == CAR).any()
    assert torch.equal(whole[0, :10], frame[0, :10])
    assert (whole[..., 2] == DRIVEABLE).all()


def test_spikes_go_but_for_their_foot_and_notches_are_filled():
    frame = street((CAR, 50, 50, 11, 5), (CAR, 55, 55, 1, 3))
    frame[0, 52, 50, 3:6] = FREE
    whole = whole_vehicles(frame)
    assert torch.equal(whole, street((CAR, 50, 50, 11, 5), (CAR, 55, 55, 1, 1)))


def test_what_is_drawn_on_new_road_without_the_shape_of_a_vehicle_goes():
    car, bus = (CAR, 50, 50, 11, 5), (BUS, 90, 50, 30, 7)
    vee = [(CAR, 120 + 2 * k, 100 + k, 5, 5) for k in range(8)] + [
        (CAR, 134 - 2 * k, 108 + k, 5, 5) for k in range(8)
    ]
    slab, sliver = (TRUCK, 20, 100, 14, 14), (CAR, 60, 120, 20, 2)
    frame = street(car, bus, *vee, slab, sliver)
    new = torch.ones(1, 200, 200, dtype=torch.bool)
    assert torch.equal(without_shapeless(frame, new), street(car, bus))
    assert torch.equal(without_shapeless(frame, ~new), frame), "what was seen stays"
    cut = street((CAR, 190, 100, 10, 14))  # the edge of the view cuts it
    assert torch.equal(without_shapeless(cut, new), cut)
    parked = street(slab)
    parked[..., 2] = OTHER_FLAT
    assert torch.equal(without_shapeless(parked, new), parked)


def test_vehicles_are_counted_by_frame():
    frames = torch.cat((street((CAR, 50, 50, 11, 5), (BUS, 90, 50, 24, 6)), street((PEDESTRIAN, 9, 9, 1, 1))))
    assert count_vehicles(frames).tolist() == [2.0, 0.0]
    assert count_vehicles(street()).tolist() == [0.0]


# ------------------------------------------------------------------ motion
def test_columns_of_a_vehicle_that_disagree_move_by_their_mean():
    box = (CAR, 50, 50, 11, 5)
    frame = street(box)
    way = ways(frame, (box, 4.0, 0.0))
    way[0, 1, 50:61, 50:55, 1] += torch.tensor([0.4, -0.4]).repeat(6)[:11, None] * 0.5
    found = move_as_vehicles(way, road_user_image(frame), OCC3D)[0, 1, 50:61, 50:55]
    middle = found.mean((0, 1))
    assert middle.tolist() == pytest.approx([4.0, way[0, 1, 50:61, 50:55, 1].mean().item()], abs=1e-4)
    assert (found - middle).norm(dim=-1).max() < 0.1  # what is left is a slight turn


def test_a_bicycle_stays_in_one_piece():
    bicycle = (BICYCLE, 60, 60, 4, 2)
    frame = street(bicycle)
    way = ways(frame, (bicycle, 3.0, 0.0))
    way[:, :, 60, 60:62] = 0.0  # its rear columns are foretold to stay behind
    rear, front = ((moved(frame, way)[0, 1] == BICYCLE).any(-1).any(-1).nonzero()[[0, -1], 0]).tolist()
    assert front - rear == 3


def test_what_is_left_of_a_bicycle_vanishes_and_whole_and_cut_ones_stay():
    whole, cut, crumb = (BICYCLE, 60, 60, 4, 1), (MOTORCYCLE, 198, 60, 2, 1), (BICYCLE, 100, 100, 2, 1)
    assert torch.equal(without_crumbs(street(whole, cut, crumb)), street(whole, cut))
    person = street((PEDESTRIAN, 30, 30, 1, 1))
    assert torch.equal(without_crumbs(person), person)


def test_what_is_left_of_a_car_vanishes_and_whole_and_cut_ones_stay():
    whole, cut, crumb = (CAR, 60, 60, 11, 5), (CAR, 197, 60, 3, 5), (CAR, 73, 60, 3, 2)
    assert torch.equal(without_crumbs(street(whole, cut, crumb)), street(whole, cut))


def test_a_turning_vehicle_turns():
    box = (BUS, 60, 90, 24, 6)
    frame, angle = street(box), 0.3
    place = OCC3D.centres_xy("cpu")[60:84, 90:96]
    arm = place - place.mean((0, 1))
    c, s = math.cos(angle), math.sin(angle)
    turned = torch.stack((c * arm[..., 0] - s * arm[..., 1], s * arm[..., 0] + c * arm[..., 1]), -1)
    way = torch.zeros(1, 2, *OCC3D.shape[:2], 2)
    way[0, :, 60:84, 90:96] = turned - arm + torch.tensor([3.0, 1.0])
    found = move_as_vehicles(way, road_user_image(frame), OCC3D)
    torch.testing.assert_close(found, way, atol=1e-4, rtol=0)


def test_nobody_turns_on_the_spot():
    bus = (BUS, 80, 80, 30, 6)
    frame = street(bus)
    place = OCC3D.centres_xy()[80:110, 80:86]
    arm = place - place.mean((0, 1))
    way = ways(frame)
    for k, angle in enumerate((0.4, 0.8)):
        c, s = math.cos(angle), math.sin(angle)
        turned = torch.stack((c * arm[..., 0] - s * arm[..., 1], s * arm[..., 0] + c * arm[..., 1]), dim=-1)
        way[0, k, 80:110, 80:86] = turned - arm
    assert torch.equal(moved(frame, way)[0, 1] == BUS, frame[0] == BUS)
    way[0, 1, 80:110, 80:86, 0] += 2.0  # two metres on it has turned by 2 / 5 rad at most
    out = move_as_vehicles(way, road_user_image(frame), OCC3D)[0, 1, 80:110, 80:86]
    front, rear = arm[-1, 3] + out[-1, 3], arm[0, 3] + out[0, 3]
    assert math.atan2(*(front - rear).flip(0).tolist()) == pytest.approx(0.4, abs=0.03)


def test_the_car_behind_brakes_for_the_one_ahead():
    behind, ahead = (CAR, 50, 50, 11, 5), (CAR, 66, 50, 11, 5)
    frame = street(behind, ahead)
    later = moved(frame, ways(frame, (behind, 6.0, 0.0)))
    assert count_vehicles(later.flatten(0, 1)).tolist() == [2.0, 2.0]
    assert (later[0, 1, 66:77, 50:55, 3:6] == CAR).all(), "the car that stands is not moved"


def test_a_queue_that_drives_keeps_its_speed_and_so_do_cars_that_pass():
    first, second, oncoming = (CAR, 50, 50, 11, 5), (CAR, 66, 50, 11, 5), (CAR, 80, 58, 11, 5)
    frame = street(first, second, oncoming)
    way = ways(frame, (first, 4.0, 0.0), (second, 4.0, 0.0), (oncoming, -8.0, 0.0))
    found = move_as_vehicles(way, road_user_image(frame), OCC3D)
    torch.testing.assert_close(found, way, atol=1e-4, rtol=0)


def test_pedestrians_and_an_empty_street_keep_their_motion():
    walker = (PEDESTRIAN, 50, 50, 1, 1)
    frame = street(walker)
    way = ways(frame, (walker, 1.0, 0.5))
    assert torch.equal(move_as_vehicles(way, road_user_image(frame), OCC3D), way)
    empty = torch.zeros_like(way)
    assert torch.equal(move_as_vehicles(empty, road_user_image(street()), OCC3D), empty)


def test_worlds_of_a_batch_do_not_meet():
    box = (CAR, 50, 50, 11, 5)
    alone, other = street(box), street((CAR, 66, 50, 11, 5))
    way = ways(alone, (box, 6.0, 0.0))
    both = move_as_vehicles(
        torch.cat((way, torch.zeros_like(way))), road_user_image(torch.cat((alone, other))), OCC3D
    )
    torch.testing.assert_close(both[:1], move_as_vehicles(way, road_user_image(alone), OCC3D))
    torch.testing.assert_close(both[:1], way, atol=1e-4, rtol=0)


# ------------------------------------------------------------------ the ego
def ego_at(*poses: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor([poses], dtype=torch.float32)


def test_a_car_brakes_before_it_runs_into_the_ego():
    behind = (CAR, 79, 98, 11, 5)  # ends 2 m behind the ego's bumper
    frame = street(behind)
    way, image = ways(frame, (behind, 8.0, 0.0)), road_user_image(frame)
    stands, leaves = ego_at((0, 0, 0), (0, 0, 0)), ego_at((4, 0, 0), (8, 0, 0))
    assert torch.equal(move_as_vehicles(way, image, OCC3D), move_as_vehicles(way, image, OCC3D, ego=leaves))
    found = move_as_vehicles(way, image, OCC3D, ego=stands)[0, 1, 79:90, 98:103]
    assert found[..., 0].max() < 2.6
    assert found[..., 0].min() >= 0.0


def test_a_car_from_the_side_stops_for_the_ego_but_not_one_that_the_ego_runs_into():
    side = (CAR, 100, 106, 5, 11)  # comes from the left, 1.5 m away
    frame = street(side)
    way, image = ways(frame, (side, 0.0, -6.0)), road_user_image(frame)
    stands = ego_at((0, 0, 0), (0, 0, 0))
    assert move_as_vehicles(way, image, OCC3D, ego=stands)[0, 1, 102, 110, 1] > -2.0
    leader = (CAR, 115, 98, 11, 5)
    frame = street(leader)
    way, image = ways(frame, (leader, 2.0, 0.0)), road_user_image(frame)
    rams = ego_at((5, 0, 0), (10, 0, 0))
    assert torch.equal(move_as_vehicles(way, image, OCC3D, ego=rams), move_as_vehicles(way, image, OCC3D))


def test_a_fast_car_does_not_jump_over_the_ego_between_two_frames():
    fast = (CAR, 70, 98, 11, 5)
    frame = street(fast)
    way = ways(frame, (fast, 40.0, 0.0))
    stands = ego_at((0, 0, 0), (0, 0, 0))
    found = move_as_vehicles(way, road_user_image(frame), OCC3D, ego=stands)[0, 1, 70:81, 98:103, 0]
    assert found.max() < 8.0


def test_cars_in_the_next_lane_do_not_mind_the_ego():
    oncoming = (CAR, 120, 104, 11, 5)
    frame = street(oncoming)
    way, image = ways(frame, (oncoming, -10.0, 0.0)), road_user_image(frame)
    found = move_as_vehicles(way, image, OCC3D, ego=ego_at((5, 0, 0), (10, 0, 0)))
    assert torch.equal(found, move_as_vehicles(way, image, OCC3D))


def test_a_car_keeps_a_gap_to_the_one_ahead_and_not_to_the_one_beside():
    behind, leader, beside = (CAR, 80, 98, 11, 5), (CAR, 100, 98, 11, 5), (CAR, 84, 106, 11, 5)
    frame = street(behind, leader, beside)  # 9 columns, 3.6 m, between the two
    way, image = ways(frame, (behind, 2.8, 0.0)), road_user_image(frame)

    def gone(gap: float) -> float:
        return float(move_as_vehicles(way, image, OCC3D, gap=gap)[0, 1, 85, 100, 0])

    assert gone(0.0) == pytest.approx(2.8, abs=1e-4)  # leaves two columns
    assert gone(1.2) == pytest.approx(2.1, abs=1e-4)  # three quarters of the way
    alone = street(behind, beside)
    found = move_as_vehicles(ways(alone, (behind, 2.8, 0.0)), road_user_image(alone), OCC3D, gap=1.2)
    assert float(found[0, 1, 85, 100, 0]) == pytest.approx(2.8, abs=1e-4)
