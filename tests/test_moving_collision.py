"""Time to collision with moving road users, and overlap of turned rectangles, on cases that can be counted by hand."""

import math

import pytest
import torch

from occsora_sim.grid import CAR, DRIVEABLE, FREE, OCC3D, TRAFFIC_CONE
from occsora_sim.road_users import RoadUsers, from_tracks
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.driving import ScoreConfig
from occsora_sim.scoring.episode import advance, begin_episodes
from occsora_sim.scoring.moving_collision import instants, moving_time_to_collision
from occsora_sim.scoring.oriented_boxes import separation, signed_distance
from occsora_sim.vehicle import Vehicle

EGO, CONFIG = Vehicle(), ScoreConfig()
HERE = torch.zeros(1, 3, dtype=torch.float64)
CAR_SIZE = (4.4, 1.8, 1.6)


def boxes(*rows):
    poses, sizes = zip(*rows, strict=True)
    return torch.tensor(poses, dtype=torch.float64), torch.tensor(sizes, dtype=torch.float64)


@pytest.mark.parametrize(
    ("other", "gap", "distance"),
    [
        ((6.0, 0.0, 0.0), 2.0, 2.0),
        ((6.0, 0.0, math.pi / 2), 3.0, 3.0),  # its length of 4 m is across
        ((3.0, 0.0, 0.0), -1.0, -1.0),
        ((7.0, 6.0, 0.0), 4.0, 5.0),  # corner to corner, 3 m and 4 m
        ((2.0 + 1.5 * math.sqrt(2), 0.0, math.pi / 4), 0.0, 0.0),  # a corner of it touches the front
        ((0.0, 0.0, 0.0), -2.0, -2.0),
    ],
)
def test_rectangles_are_apart_by_what_can_be_counted(other, gap, distance):
    (mine, size), (pose, far) = boxes(((0.0, 0.0, 0.0), (4.0, 2.0))), boxes((other, (4.0, 2.0)))
    both = [separation(mine, size, pose, far).item(), separation(pose, far, mine, size).item()]
    assert both == pytest.approx([gap, gap], abs=1e-9)
    assert signed_distance(mine, size, pose, far).item() == pytest.approx(distance, abs=1e-9)


def users(*rows, label=CAR, dt=0.5):
    """One world of cars: x, y [m], yaw [rad], speed along the yaw [m/s]."""
    now = torch.tensor([row[:3] for row in rows], dtype=torch.float64)
    speed = torch.tensor([row[3] for row in rows], dtype=torch.float64)
    velocity = torch.stack((speed * now[:, 2].cos(), speed * now[:, 2].sin()), dim=-1)
    past = dt * torch.arange(-3.0, 1.0, dtype=torch.float64)
    xy = now[:, None, :2] + velocity[:, None] * past[:, None]
    pose = torch.cat((xy, now[:, None, 2:].expand(-1, 4, 1)), dim=-1)
    n = len(rows)
    return from_tracks(
        pose, torch.ones(n, 4, dtype=torch.bool), velocity, torch.tensor([CAR_SIZE] * n),
        torch.full((n,), label, dtype=torch.uint8), torch.arange(n),
    )  # fmt: skip


def ttc(state, speed, pose=HERE, back=0):
    poses, speeds = pose[:, None].expand(-1, back + 1, -1), torch.full((1, back + 1), float(speed))
    return moving_time_to_collision(state, poses, speeds, EGO, CONFIG)[0, 0].item()


AHEAD = EGO.front + 5.0 + CAR_SIZE[0] / 2  # x of a car whose rear is 5 m ahead of the ego's front


@pytest.mark.parametrize(
    ("row", "speed", "passes"),
    [
        ((AHEAD, 0.0, 0.0, 10.0), 10.0, 1.0),  # a leader at the same speed
        ((AHEAD, 0.0, 0.0, 0.0), 10.0, 0.0),  # the same leader, standing: 9.5 m in the horizon
        ((AHEAD, 0.0, 0.0, 0.0), 5.0, 1.0),  # 4.75 m
        ((AHEAD, 0.0, math.pi, 6.0), 5.0, 0.0),  # oncoming in the same lane
        ((AHEAD, 3.0, math.pi, 6.0), 5.0, 1.0),  # oncoming in the next lane
        ((6.0, 8.0, -math.pi / 2, 9.0), 5.0, 0.0),  # crossing: there as the ego arrives
        ((6.0, 8.0, math.pi / 2, 9.0), 5.0, 1.0),  # crossing: on its way out
        ((6.0, 30.0, -math.pi / 2, 9.0), 5.0, 1.0),  # crossing: too late to meet
        ((4.0, 2.2, 0.0, 0.0), 10.0, 1.0),  # parked beside the lane: 0.4 m from side to side
        ((4.0, 1.7, 0.0, 0.0), 10.0, 0.0),  # parked into the lane by 6 cm
        ((-6.0, 0.0, 0.0, 15.0), 5.0, 1.0),  # runs into the ego from behind
        ((AHEAD, 0.0, 0.0, 0.0), 0.1, 1.0),  # the ego stands
    ],
)
def test_everybody_goes_on_at_constant_velocity(row, speed, passes):
    assert ttc(users(row), speed) == passes
    # A turned and shifted world says the same.
    turn, shift = 2.1, torch.tensor([500.0, -300.0], dtype=torch.float64)
    x, y = (
        math.cos(turn) * row[0] - math.sin(turn) * row[1],
        math.sin(turn) * row[0] + math.cos(turn) * row[1],
    )
    moved = users((x + 500.0, y - 300.0, row[2] + turn, row[3]))
    pose = torch.cat((shift, torch.tensor([turn], dtype=torch.float64)))[None]
    assert ttc(moved, speed, pose) == passes


def test_worlds_of_a_batch_are_judged_each_by_itself_and_empty_slots_are_nobody():
    from occsora_sim.road_users import stack

    both = stack([users((AHEAD, 0.0, 0.0, 0.0), (-20.0, 0.0, 0.0, 0.0)), RoadUsers.empty(1, 1)])
    speed, pose = torch.full((2, 1), 10.0), HERE.expand(2, 1, 3)
    assert moving_time_to_collision(both, pose, speed, EGO, CONFIG).tolist() == [[0.0], [1.0]]
    assert ttc(users((AHEAD, 0.0, 0.0, 0.0), label=TRAFFIC_CONE), 10.0) == 1.0


def test_earlier_frames_have_poses_and_velocities_of_their_own():
    state = users((AHEAD, 0.0, 0.0, 10.0))
    for count in range(1, 5):  # the first of four from the next pose: there is none before
        pose, present, velocity = instants(state, count)
        wanted = [AHEAD - 5.0 * back for back in reversed(range(count))]
        assert pose[0, :, 0, 0].tolist() == pytest.approx(wanted) and present.all()
        assert velocity.tolist() == [[[[10.0, 0.0]]] * count]
    before = torch.tensor([[-5.0, 0.0, 0.0]], dtype=torch.float64)
    assert ttc(state, 10.0, before, back=1) == 1.0
    stopped = users((AHEAD, 0.0, 0.0, 0.0))
    stopped.pose[:, :, -1] += 20.0  # where it is now says nothing about the frame before
    assert ttc(stopped, 10.0, back=1) == 0.0 and ttc(stopped, 10.0) == 1.0


def frame_with(x):
    frame = torch.full((1, 1, *OCC3D.shape), FREE, dtype=torch.uint8)
    frame[..., OCC3D.ground] = DRIVEABLE
    i = int((x + 40) / 0.4)
    frame[:, :, i - 5 : i + 6, 98:102, 3:7] = CAR
    return frame


def test_a_score_with_road_users_lets_a_leader_drive_on_and_one_without_does_not():
    pose = torch.tensor([[-5.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    route = torch.stack((torch.arange(200.0), torch.zeros(200)), dim=-1)
    start = Start(occupancy=frame_with(AHEAD)[0].expand(2, -1, -1, -1), ego_pose=pose, route=route)
    episodes, now = begin_episodes([start]), torch.tensor([[[5.0, 0.0, 0.0]]])
    known = users((AHEAD + 5.0, 0.0, 0.0, 10.0))
    speed = torch.tensor([[10.0]])
    scores = [
        advance(episodes, frame_with(AHEAD), now, speed, OCC3D, EGO, CONFIG, given)[1].ttc.item()
        for given in (None, known)
    ]
    assert scores == [0.0, 1.0]
