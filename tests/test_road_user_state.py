"""RoadUsers: slots, histories and what an agent is told."""

import math

import torch

from occsora_sim.grid import CAR, PEDESTRIAN
from occsora_sim.road_users import FEATURES, MOVES, NEVER, RoadUsers, from_tracks, join, stack, velocity_of
from occsora_sim.watch import Watch


def two_users() -> RoadUsers:
    """A car at (10, 0) that drives north at 4 m/s, and a pedestrian at (3, 4) that came a frame ago."""
    pose = torch.tensor(
        [[[10.0, -2.0, math.pi / 2], [10.0, 0.0, math.pi / 2]], [[3.0, 4.0, 0.0], [3.0, 4.0, 0.0]]]
    ).double()
    return from_tracks(
        pose,
        torch.tensor([[True, True], [False, True]]),
        torch.tensor([[0.0, 4.0], [0.0, 0.0]]),
        torch.tensor([[4.5, 1.8, 1.5], [0.5, 0.6, 1.7]]),
        torch.tensor([CAR, PEDESTRIAN]),
        torch.tensor([7, 9]),
    )


def test_an_agent_is_told_the_nearest_first_in_its_own_frame():
    ego = torch.tensor([[0.0, 0.0, math.pi / 2]])
    seen = two_users().observe(ego, count=4, reach=50.0)[0]
    assert seen.shape == (4, FEATURES)
    # x ahead is north, y left is west: the pedestrian is 4 m ahead and 3 m to the right.
    wanted = [[1, 4, -3, 0, -1, 0, 0, 0.5, 0.6, PEDESTRIAN], [1, 0, -10, 1, 0, 4, 0, 4.5, 1.8, CAR]]
    torch.testing.assert_close(seen[:2], torch.tensor(wanted).float(), atol=1e-5, rtol=0)
    assert not seen[2:].any()


def test_a_user_beyond_the_reach_is_not_told():
    seen = two_users().observe(torch.zeros(1, 3), count=2, reach=6.0)[0]
    assert seen[:, 0].tolist() == [1.0, 0.0] and seen[0, 9] == PEDESTRIAN


def test_a_frame_later_the_oldest_pose_is_forgotten_and_all_are_older():
    users = two_users()
    later = users.moved(users.now + torch.tensor([0.0, 2.0, 0.0]), users.velocity)
    assert torch.equal(later.pose[:, :, 0], users.now)
    assert later.age[0].tolist() == [3, 2] and later.valid.all()
    torch.testing.assert_close(velocity_of(later.pose, later.present)[0, 0], torch.tensor([0.0, 4.0]))


def test_who_has_moved_and_stands_is_known_to_wait_for_longer_than_its_poses_tell():
    users = two_users()
    assert users.rested[0].tolist() == [0, NEVER]  # the pedestrian was not seen to move
    for frame in range(1, 6):
        users = users.moved(users.now, torch.zeros(1, 2, 2))
        assert users.rested[0, 0] == frame and users.rested[0, 1] >= NEVER
    trembles = users.now + torch.tensor([0.8 * MOVES, 0.0, 0.0])
    assert users.moved(trembles, users.velocity).rested[0, 0] == 6
    assert users.moved(users.now + torch.tensor([MOVES, 0.0, 0.0]), users.velocity).rested[0].tolist() == [
        0,
        0,
    ]


def test_an_emptied_slot_holds_nothing():
    users = two_users().where(torch.tensor([[True, False]]))
    assert users.valid.tolist() == [[True, False]] and users.id.tolist() == [[7, -1]]
    assert not users.size[0, 1].any() and not users.present[0, 1].any()


def test_worlds_of_unlike_number_stand_side_by_side():
    both = stack([two_users(), RoadUsers.empty(1, 1, 2)])
    assert both.valid.tolist() == [[True, True], [False, False]]
    assert both.select([1, 0]).id.tolist() == [[-1, -1], [7, 9]]
    assert join(both, RoadUsers.empty(2, 3, 2)).label.shape == (2, 5)


def test_who_is_absent_now_is_left_out_and_unknown_poses_repeat_the_next_known():
    pose = torch.arange(12.0).view(2, 2, 3)
    users = from_tracks(
        pose,
        torch.tensor([[True, False], [False, True]]),
        torch.zeros(2, 2),
        torch.ones(2, 3),
        torch.tensor([CAR, CAR]),
        torch.tensor([1, 2]),
    )
    assert users.id.tolist() == [[2]]
    assert torch.equal(users.pose[0, 0, 0], users.pose[0, 0, 1])


def test_slots_empty_in_all_worlds_are_left_out_where_nothing_waits_for_the_device():
    few, many = two_users().padded(64), join(*[two_users()] * 10).padded(64)
    assert few.occupied().label.shape == (1, 2) and few.occupied().valid.all()
    assert stack([few, many]).occupied().label.shape == (2, 20)
    assert RoadUsers.empty(2, 64, 2).occupied().label.shape == (2, 0)
    with Watch() as watch:
        assert few.occupied().label.shape == (1, 64)
    assert not watch.waits
