"""Figures of road users on hand-made logs with known answers."""

import math
import time
from dataclasses import replace
from typing import Any

import pytest
import torch

from occsora_sim.grid import CAR, DRIVEABLE, FREE, PEDESTRIAN, SIDEWALK
from occsora_sim.scoring.traffic_features import FARTHEST, LONGEST, traffic_features
from occsora_sim.scoring.traffic_log import TrafficLog

SIZE = (4.0, 2.0, 1.6)
AWAY = (0.0, -300.0, 0.0)  # where an ego disturbs nobody


def log_of(*tracks, ego=AWAY, label=CAR, ground=DRIVEABLE):
    """A log of tracks: each a list of poses (x, y, yaw), None where absent."""
    frames, n = len(tracks[0]), len(tracks)
    pose = torch.zeros(frames, n, 3, dtype=torch.float64)
    present = torch.zeros(frames, n, dtype=torch.bool)
    for k, track in enumerate(tracks):
        for t, place in enumerate(track):
            if place is not None:
                pose[t, k], present[t, k] = torch.tensor(place, dtype=torch.float64), True
    return TrafficLog(
        pose=pose,
        present=present,
        size=torch.tensor([SIZE] * n),
        label=torch.full((n,), label, dtype=torch.uint8),
        id=torch.arange(n),
        ego_pose=torch.tensor(ego, dtype=torch.float64).expand(frames, 3),
        ground=torch.full((frames, n), ground, dtype=torch.uint8),
    )


def along(x, speed, frames=8, y=0.0, yaw=0.0):
    """A track that drives along its yaw from x."""
    return [
        (x + speed * 0.5 * t * math.cos(yaw), y + speed * 0.5 * t * math.sin(yaw), yaw) for t in range(frames)
    ]


def features(log) -> Any:
    return traffic_features(log)


def test_speed_acceleration_and_yaw_rate_are_of_the_last_poses():
    speeds = [4.0, 4.0, 6.0, 6.0]
    x = [0.0]
    for speed in speeds:
        x.append(x[-1] + 0.5 * speed)
    track = [(at, 0.0, math.pi - 0.05 + 0.1 * t) for t, at in enumerate(x)]  # the yaw passes over pi
    track = [(at, y, (yaw + math.pi) % (2 * math.pi) - math.pi) for at, y, yaw in track]
    found = features(log_of(track, ego=(0.0, 0.0, 0.0)))
    assert found.known[:, 0].tolist() == [False, True, True, True, True]
    assert found.speed[1:, 0].tolist() == pytest.approx(speeds)
    assert found.acceleration[:2, 0].isnan().all()
    assert found.acceleration[2:, 0].tolist() == pytest.approx([0.0, 4.0, 0.0])
    assert found.yaw_rate[1:, 0].tolist() == pytest.approx([0.2] * 4)


def test_a_car_that_stands_for_three_seconds_has_stood_for_three_seconds():
    still, moves = [(0.0, 0.0, 0.0)] * 7, along(0.0, 8.0, 4)[1:]
    found = features(log_of(still + moves + [moves[-1]]))
    assert found.stood[:, 0].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 0.0, 0.0, 0.0, 0.5]
    creeps = features(log_of(along(0.0, 0.3)))
    assert creeps.stood.max() == 0


def test_a_gap_in_a_track_has_no_speed_and_breaks_the_standing():
    found = features(log_of([(0.0, 0.0, 0.0)] * 3 + [None] + [(9.0, 0.0, 0.0)] * 2))
    assert found.there[:, 0].tolist() == [False, True, True, False, False, True]
    assert found.speed.max() == 0 and found.stood[:, 0].tolist() == [0.0, 0.5, 1.0, 0.0, 0.0, 0.5]


def test_two_boxes_that_overlap_by_construction_overlap_and_a_third_does_not():
    found = features(log_of(along(0.0, 0.0), along(3.5, 0.0), along(3.5, 0.0, y=5.0)))
    assert found.overlap.tolist() == [[True, True, False]] * 8 and torch.equal(found.touches, found.overlap)
    assert found.nearest[0].tolist() == pytest.approx([-0.5, -0.5, 3.0])


def test_the_nearest_box_counts_and_not_the_nearest_centre():
    log = log_of(along(0.0, 0.0), along(9.0, 0.0), along(0.0, 0.0, y=7.0))
    log.size[1, 0] = 13.0  # a lorry whose rear is half a metre away
    found = features(log)
    assert found.nearest[0].tolist() == pytest.approx([0.5, 0.5, 5.0])
    assert features(log_of(along(0.0, 0.0))).nearest.tolist() == [[FARTHEST]] * 8


def test_absent_road_users_are_near_nobody():
    found = features(log_of(along(0.0, 0.0, 4), [(1.0, 0.0, 0.0), None, None, (1.0, 0.0, 0.0)]))
    assert found.overlap[:, 0].tolist() == [True, False, False, True]


def test_the_ego_is_in_the_way_of_others():
    found = features(log_of(along(2.0, 0.0), ego=(0.0, 0.0, 0.0)))
    assert found.overlap.all() and found.overlap.shape == (8, 1)
    assert not found.touches.any(), "the ego aside"


def test_a_leader_has_a_time_to_collision_of_two_seconds_exactly():
    # At frame 2 the gap is 10 m and closes at 5 m/s.
    follower, leader = along(0.0, 10.0), along(19.0, 5.0)
    found = features(log_of(follower, leader)).time_to_collision
    assert found[2].tolist() == pytest.approx([2.0, LONGEST])
    assert found[0].tolist() == [LONGEST, LONGEST], "no speed is known in the first frame"
    # Turned, it is the same.
    turned = [along(x, v, yaw=2.0) for x, v in ((0.0, 10.0), (0.0, 5.0))]
    turned[1] = [(a + 19.0 * math.cos(2.0), b + 19.0 * math.sin(2.0), c) for a, b, c in turned[1]]
    assert features(log_of(*turned)).time_to_collision[2, 0] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("other", "time"),
    [
        (along(19.0, 10.0), LONGEST),  # at the same speed
        (along(19.0, 5.0, y=2.5), LONGEST),  # in the next lane
        (along(19.0, 5.0, y=1.7), 2.0),  # by 0.3 m in this lane, same heading
        (along(19.0, 0.0, y=2.5, yaw=0.5), LONGEST),  # slightly in the way, turned by more than 10 degrees
        (along(19.0, 0.0, yaw=math.pi), LONGEST),  # oncoming is no leader
        (along(60.0, 5.0), LONGEST),  # farther than 5 s
    ],
)
def test_who_leads_is_told_by_heading_and_overlap(other, time):
    found = features(log_of(along(0.0, 10.0), other)).time_to_collision
    assert found[2, 0] == pytest.approx(time)


def test_only_the_nearest_leader_counts():
    slow = along(40.0, 0.0)
    alone = features(log_of(along(0.0, 10.0), slow)).time_to_collision[2, 0]
    between = features(log_of(along(0.0, 10.0), along(15.0, 12.0), slow)).time_to_collision[2, 0]
    assert alone == pytest.approx(2.6) and between == LONGEST


def test_off_road_is_ground_where_no_vehicle_belongs_and_unknown_ground_is_neither():
    on, off, nothing = (features(log_of(along(0.0, 5.0), ground=g)) for g in (DRIVEABLE, SIDEWALK, FREE))
    assert not on.off_road.any() and on.on_known.all()
    assert off.off_road.all() and off.on_known.all()
    assert not nothing.off_road.any() and not nothing.on_known.any()
    assert not features(log_of(along(0.0, 1.0), label=PEDESTRIAN)).vehicle.any()


def test_entries_and_exits_are_at_the_edge_of_the_view_or_where_somebody_appears():
    ego = (0.0, 0.0, 0.0)
    enters = features(log_of(along(-45.0, 10.0, 4, y=9.0), ego=ego))  # at -45, -40, -35, -30 m
    assert enters.in_view[:, 0].tolist() == [False, True, True, True]
    assert enters.enters[:, 0].tolist() == [False, True, False, False] and not enters.leaves.any()
    assert not enters.appears.any(), "it came over the edge"
    assert enters.known[:, 0].tolist() == [False, True, True, True]
    place = (0.0, 9.0, 0.0)
    pops = features(log_of([None, place, place, None], ego=ego))
    assert pops.enters[:, 0].tolist() == [False, True, False, False]
    assert pops.leaves[:, 0].tolist() == [False, False, False, True]
    assert pops.appears.equal(pops.enters) and pops.vanishes.equal(pops.leaves)
    fresh = features(log_of([None, (-36.0, 9.0, 0.0), (-31.0, 9.0, 0.0)], ego=ego))
    assert fresh.enters[1, 0] and not fresh.appears.any(), "half a second before it was beyond the edge"
    gone = features(log_of([(31.0, 9.0, 0.0), (36.0, 9.0, 0.0), None], ego=ego))
    assert gone.leaves[2, 0] and not gone.vanishes.any(), "it is beyond the edge by now"
    slow = features(log_of([None, (-36.0, 9.0, 0.0), (-35.0, 9.0, 0.0)], ego=ego))
    assert slow.appears[1, 0], "at this speed it had been in view"
    assert not features(log_of([place] * 3, ego=ego)).enters.any(), (
        "who is there at the start has not entered"
    )


def test_thirty_two_minutes_of_64_road_users_take_seconds():
    generator = torch.Generator().manual_seed(0)
    place = torch.rand(64, 3, generator=generator, dtype=torch.float64) * 76 - 38
    steps = torch.randn(120, 64, 3, generator=generator, dtype=torch.float64) * torch.tensor([2.0, 2.0, 0.1])
    log = log_of(*[[(0.0, 0.0, 0.0)] * 120] * 64, ego=(0.0, 0.0, 0.0))
    log = replace(log, pose=place + steps)
    begun = time.process_time()
    for _ in range(4):
        traffic_features(log)
    assert time.process_time() - begun < 30 / 8, "on one core; a loop over pairs would take minutes"


def test_a_log_of_nobody_has_no_figures():
    found = features(log_of([None] * 4))
    assert not found.in_view.any() and found.nearest.tolist() == [[FARTHEST]] * 4
