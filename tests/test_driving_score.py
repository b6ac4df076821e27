"""Driving metrics on hand-built occupancy with known answers."""

import math

import pytest
import torch

from occsora_sim.errors import SceneError
from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE, OCC3D, PEDESTRIAN, SIDEWALK, VEGETATION
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.comfort import comfortable, ego_motion
from occsora_sim.scoring.contact import find_contact, find_swept_contact, no_collision, time_to_collision
from occsora_sim.scoring.driving import ScoreConfig, ego_progress, off_road_points, pdms
from occsora_sim.scoring.episode import advance, begin_episodes
from occsora_sim.scoring.footprint import footprint_lattice, obstacle_layers
from occsora_sim.scoring.route import make_routes
from occsora_sim.vehicle import Vehicle

CAR_EGO, CONFIG = Vehicle(), ScoreConfig()
SPEED = torch.tensor([5.0])
FALSE = torch.tensor([False])


def road() -> torch.Tensor:
    """A road 8 m wide along x, pavements beside it, nothing on it: (1, 200, 200, 16)."""
    occupancy = torch.full((1, *OCC3D.shape), FREE, dtype=torch.uint8)
    occupancy[..., OCC3D.ground] = SIDEWALK
    occupancy[:, :, 90:110, OCC3D.ground] = DRIVEABLE
    return occupancy


def put(occupancy, label, x, y, z=(0.2, 1.8)):
    """Fill the voxels whose centres lie in the box."""
    lows, highs = zip(x, y, z, strict=True)
    box = [
        slice(math.ceil((low - base) / 0.4 - 0.5), math.ceil((high - base) / 0.4 - 0.5))
        for low, high, base in zip(lows, highs, OCC3D.lower, strict=True)
    ]
    occupancy[:, box[0], box[1], box[2]] = label
    return occupancy


def contact_nc(occupancy, speed=SPEED, blameless=FALSE):
    touch = find_contact(occupancy[:, None], OCC3D, CAR_EGO, CONFIG)  # of one frame
    nc, after = no_collision(touch, speed[:, None], blameless, CONFIG)
    return nc[:, 0], after


def test_obstacle_layers_are_those_between_kerb_and_branches():
    assert obstacle_layers(OCC3D) == slice(3, 7)


def test_lattice_fills_the_footprint():
    lattice = footprint_lattice(CAR_EGO, 0.4)
    assert len(lattice) == 40 and lattice[:, 0].mean().item() == pytest.approx(CAR_EGO.length / 2 - 1.0)


def test_empty_road_is_no_collision():
    assert contact_nc(road())[0] == 1


def test_a_car_in_front_is_a_fault():
    assert contact_nc(put(road(), CAR, (2.6, 6.0), (-1.0, 1.0)))[0] == 0


def test_a_car_beside_is_a_fault_and_half_a_metre_away_is_none():
    assert contact_nc(put(road(), CAR, (0.0, 4.0), (0.4, 2.4)))[0] == 0
    assert contact_nc(put(road(), CAR, (0.0, 4.0), (1.4, 3.4)))[0] == 1


def test_a_static_object_is_half_a_fault():
    assert contact_nc(put(road(), MANMADE, (2.6, 6.0), (-1.0, 1.0)))[0] == 0.5


def test_standing_is_no_fault():
    assert contact_nc(put(road(), CAR, (2.6, 6.0), (-1.0, 1.0)), torch.tensor([0.0]))[0] == 1


def test_hit_from_behind_is_no_fault_and_stays_none_while_it_lasts():
    nc, blameless = contact_nc(put(road(), CAR, (-5.0, -0.5), (-1.0, 1.0)))
    assert nc == 1 and blameless
    through, blameless = contact_nc(put(road(), CAR, (1.0, 5.0), (-1.0, 1.0)), blameless=blameless)
    assert through == 1 and blameless
    assert not contact_nc(road(), blameless=blameless)[1]


@pytest.mark.parametrize("place", [(2.6, 6.0), (0.0, 4.0)], ids=["ahead", "beside"])
def test_who_is_touched_while_standing_may_not_drive_on_through(place):
    touching = put(road(), CAR, place, (0.4, 2.4))
    for slow in (0.0, 0.9 * CONFIG.moving):
        nc, blameless = contact_nc(touching, torch.tensor([slow]))
        assert nc == 1 and not blameless
        assert contact_nc(touching, torch.tensor([1.1 * CONFIG.moving]), blameless)[0] == 0


def test_hit_from_behind_while_standing_is_no_fault_and_stays_none():
    _, blameless = contact_nc(put(road(), CAR, (-5.0, -0.5), (-1.0, 1.0)), torch.tensor([0.0]))
    assert blameless and contact_nc(put(road(), CAR, (1.0, 5.0), (-1.0, 1.0)), blameless=blameless)[0] == 1


def test_blame_is_carried_from_frame_to_frame_of_a_step():
    ahead, behind = put(road(), CAR, (2.6, 6.0), (-1.0, 1.0)), put(road(), CAR, (-5.0, -0.5), (-1.0, 1.0))
    frames = torch.stack((torch.cat((ahead, ahead)), torch.cat((behind, ahead)), torch.cat((road(), ahead))))
    touch = find_contact(frames, OCC3D, CAR_EGO, CONFIG)
    speeds = torch.tensor([[0.0, 5.0]]).expand(3, -1)
    nc, blameless = no_collision(touch, speeds, torch.zeros(3, dtype=torch.bool), CONFIG)
    assert nc.tolist() == [[1, 0], [1, 1], [1, 0]] and blameless.tolist() == [False, True, False]


def test_two_voxels_are_noise_and_three_are_not():
    assert contact_nc(put(road(), CAR, (2.0, 2.8), (0.0, 0.4), (0.2, 0.6)))[0] == 1
    assert contact_nc(put(road(), CAR, (1.6, 2.8), (0.0, 0.4), (0.2, 0.6)))[0] == 0


def test_branches_above_and_road_below_are_no_obstacle():
    assert contact_nc(put(road(), VEGETATION, (-2.0, 4.0), (-2.0, 2.0), (2.2, 4.0)))[0] == 1


def test_a_thin_wall_cannot_be_jumped_over():
    before, after = (
        put(road(), MANMADE, (6.0, 6.4), (-4.0, 4.0)),
        put(road(), MANMADE, (-4.0, -3.6), (-4.0, 4.0)),
    )
    motion = torch.tensor([[10.0, 0.0, 0.0]])
    assert not find_contact(after, OCC3D, CAR_EGO, CONFIG).any
    assert find_swept_contact(before, after, motion, OCC3D, CAR_EGO, CONFIG).static


def test_a_follower_is_not_swept():
    frame = put(road(), CAR, (-6.0, -1.6), (-1.0, 1.0))
    motion = torch.tensor([[5.0, 0.0, 0.0]])
    assert not find_swept_contact(frame, frame, motion, OCC3D, CAR_EGO, CONFIG).any


def test_drivable_area_on_the_road_at_the_kerb_and_off_it():
    assert not off_road_points(road(), OCC3D, CAR_EGO, CONFIG).any()
    kerb = road().roll(-8, dims=2)  # the road's left edge is now 0.8 m left of the ego's centre line
    assert not off_road_points(kerb, OCC3D, CAR_EGO, CONFIG).any(), "within the tolerance of one voxel"
    strict = ScoreConfig(tolerance=0.0)
    assert off_road_points(kerb, OCC3D, CAR_EGO, strict).tolist() == [[True, False, False, True, False]]
    out = road().roll(-12, dims=2)
    assert off_road_points(out, OCC3D, CAR_EGO, CONFIG).tolist() == [[True, False, False, True, True]]
    assert off_road_points(road().roll(-30, dims=2), OCC3D, CAR_EGO, CONFIG).all()


def test_unknown_ground_and_ground_under_a_car_are_no_violation():
    unknown = road()
    unknown[..., OCC3D.ground] = FREE
    assert not off_road_points(unknown, OCC3D, CAR_EGO, CONFIG).any()
    unknown[..., OCC3D.ground] = CAR
    assert not off_road_points(unknown, OCC3D, CAR_EGO, CONFIG).any()


@pytest.mark.parametrize(("gap", "passes"), [(4.0, 0.0), (6.0, 1.0)])
def test_time_to_collision_is_gap_over_speed(gap, passes):
    front = CAR_EGO.front
    frame = put(road(), PEDESTRIAN, (front + gap, front + gap + 1.0), (-0.6, 0.6))
    assert time_to_collision(frame, SPEED, OCC3D, CAR_EGO, CONFIG) == passes
    assert time_to_collision(frame, torch.tensor([0.0]), OCC3D, CAR_EGO, CONFIG) == 1


def test_time_to_collision_looks_at_road_users_only():
    frame = put(road(), MANMADE, (5.0, 7.0), (-1.0, 1.0))
    assert time_to_collision(frame, SPEED, OCC3D, CAR_EGO, CONFIG) == 1


def poses_of(speed_at, yaw_rate=0.0, count=12):
    """Poses of a vehicle with speed v(t) and a constant yaw rate, integrated finely."""
    poses, x, y, yaw, t = [], 0.0, 0.0, 0.0, 0.0
    for step in range(count * 500):
        if step % 500 == 0:
            poses.append((x, y, yaw))
        x, y = x + speed_at(t) * math.cos(yaw) * 1e-3, y + speed_at(t) * math.sin(yaw) * 1e-3
        yaw, t = yaw + yaw_rate * 1e-3, t + 1e-3
    return torch.tensor([poses], dtype=torch.float64)


def test_derivatives_of_uniform_acceleration_and_of_a_circle():
    motion = ego_motion(poses_of(lambda t: 4 + 2 * t))
    assert motion["longitudinal"].mean().item() == pytest.approx(2.0, abs=0.01)
    assert motion["jerk"].abs().max() < 0.05
    circle = ego_motion(poses_of(lambda t: 8.0, yaw_rate=0.5))
    assert circle["lateral"].mean().item() == pytest.approx(4.0, rel=0.02)
    assert circle["yaw_rate"].mean().item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("motion", "verdict"),
    [
        (poses_of(lambda t: 8.0), True),
        (poses_of(lambda t: 8 + 2.3 * t), True),
        (poses_of(lambda t: 8 + 2.6 * t), False),
        (poses_of(lambda t: 40 - 3.9 * t), True),
        (poses_of(lambda t: 40 - 4.3 * t), False),
        (poses_of(lambda t: 9.0, yaw_rate=0.5), True),
        (poses_of(lambda t: 10.5, yaw_rate=0.5), False),
        (poses_of(lambda t: 1.0, yaw_rate=1.0), False),
    ],
)
def test_comfort_thresholds(motion, verdict):
    assert comfortable(motion)[:, 1:].all().item() is verdict


def test_progress_is_relative_to_the_reference():
    def ep(progress, available=500.0, speed=10.0, seconds=10.0):
        progress, available, speed, seconds = torch.tensor([progress, available, speed, seconds])[:, None]
        return ego_progress(progress, available, speed, seconds, CONFIG).item()

    assert ep(50) == pytest.approx(0.5)
    assert ep(300) == 1.0
    assert ep(50, available=50) == 1.0
    assert ep(75, speed=0.0) == pytest.approx(1.0)  # 25 m in 5 s of 2 m/s2, then 50 m at 10 m/s
    assert ep(0, available=0.5) == 1.0


def test_pdms_is_the_formula():
    one = torch.tensor([1.0])
    assert pdms(one, one, one, one, one) == 1
    assert pdms(one / 2, one, one, one * 0.4, one * 0) == pytest.approx(0.5 * 7 / 12)
    assert pdms(one, one * 0, one, one, one) == 0


def test_projection_and_points_ahead_on_a_corner():
    routes = make_routes([torch.tensor([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0]])])
    arc, distance = routes.project(torch.tensor([[8.0, 1.0]]), torch.tensor([7.0]), torch.tensor([5.0]))
    assert (arc.item(), distance.item()) == (pytest.approx(8.0), pytest.approx(1.0))
    ahead = routes.ahead(torch.tensor([[8.0, 0.0, 0.0]]), torch.tensor([8.0]), 3, 2.0)
    torch.testing.assert_close(ahead[0], torch.tensor([[2.0, 0.0], [2.0, 2.0], [2.0, 4.0]]))
    end = routes.ahead(torch.tensor([[8.0, 0.0, 0.0]]), torch.tensor([19.0]), 2, 2.0)
    torch.testing.assert_close(end[0, 1], torch.tensor([2.0, 10.0]))


def test_a_route_that_crosses_itself_is_followed_in_order():
    loop = torch.tensor([[0.0, 0.0], [20.0, 0.0], [20.0, 10.0], [10.0, 10.0], [10.0, -10.0]])
    routes = make_routes([loop])
    arc, _ = routes.project(torch.tensor([[10.0, 0.0]]), torch.tensor([9.0]), torch.tensor([4.0]))
    assert arc.item() == pytest.approx(10.0)
    later, _ = routes.project(torch.tensor([[10.0, 0.0]]), torch.tensor([49.0]), torch.tensor([4.0]))
    assert later.item() == pytest.approx(50.0)


def test_padding_does_not_change_a_route():
    lines = [
        torch.tensor([[0.0, 0.0], [10.0, 0.0]]),
        torch.tensor([[0.0, 0.0], [4.0, 0.0], [8.0, 0.0], [9.0, 0.0]]),
    ]
    routes = make_routes(lines)
    assert routes.length.tolist() == [10.0, 9.0]
    position, near, reach = (
        torch.tensor([[9.5, 0.0], [9.5, 0.0]]),
        torch.tensor([9.0, 8.5]),
        torch.full((2,), 3.0),
    )
    arc, distance = routes.project(position, near, reach)
    assert arc.tolist() == [9.5, 9.0] and distance.tolist() == [0.0, 0.5]
    swapped = routes.replace([0], make_routes([lines[1]]))
    assert swapped.length.tolist() == [9.0, 9.0] and routes.length.tolist() == [10.0, 9.0]


def test_a_route_of_one_point_is_refused():
    with pytest.raises(SceneError, match="route 0"):
        make_routes([torch.zeros(1, 2)])


def open_road_start(length=200.0):
    x = torch.arange(0.0, length + 1)
    pose = torch.tensor([[-5.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    return Start(
        occupancy=road().expand(2, -1, -1, -1),
        ego_pose=pose,
        route=torch.stack((x, 0 * x), dim=-1),
        name="road",
    )


def drive(pose_list, occupancy=None, start=None):
    """Score a list of world poses, a frame each, over an unchanging picture."""
    start = start or open_road_start()
    episodes, scores = begin_episodes([start]), []
    last = start.ego_pose[-1]
    for pose in pose_list:
        pose = torch.tensor(pose)
        speed = (pose[:2] - last[:2]).norm() / 0.5
        frame = road() if occupancy is None else occupancy
        episodes, score = advance(
            episodes, frame[:, None], pose[None, None], speed[None, None], OCC3D, CAR_EGO, CONFIG
        )
        scores.append(score)
        last = pose
    return episodes.summary(CONFIG), scores


def test_driving_the_route_at_the_reference_speed_is_a_full_score():
    summary, _ = drive([(5.0 * step, 0.0, 0.0) for step in range(1, 21)])
    assert summary["score"].item() == pytest.approx(1.0)
    assert summary["progress"].item() == pytest.approx(100.0) and summary["seconds"].item() == 10


def test_circles_earn_their_progress_once():
    circle = [
        (
            6 * math.sin(step * math.pi / 5),
            6 - 6 * math.cos(step * math.pi / 5),
            (step * math.pi / 5) % math.tau,
        )
        for step in range(1, 41)
    ]
    summary, scores = drive(circle)
    total = sum(score.progress.item() for score in scores)
    assert total == pytest.approx(summary["progress"].item(), abs=1e-4)
    assert total <= 6.0, "four laps, yet no more than the circle's reach along the route"
    assert sum(score.progress.item() for score in scores[10:]) == pytest.approx(0.0, abs=1e-4)


def test_standing_still_earns_nothing():
    summary, scores = drive([(0.0, 0.0, 0.0)] * 20)
    assert sum(score.progress.item() for score in scores) == 0 and summary["ep"] == 0


def test_backward_motion_is_never_paid():
    _, scores = drive([(5.0, 0.0, 0.0), (0.0, 0.0, 0.0), (5.0, 0.0, 0.0), (7.0, 0.0, 0.0)])
    assert [score.progress.item() for score in scores] == pytest.approx([5.0, 0.0, 0.0, 2.0])


def test_far_from_the_route_there_is_no_progress():
    _, scores = drive([(5.0 * step, 30.0, 0.0) for step in range(1, 5)])
    assert sum(score.progress.item() for score in scores) == 0


def test_driving_into_a_wall_scores_half_at_most_and_a_road_user_zero():
    wall = put(road(), MANMADE, (2.6, 6.0), (-1.0, 1.0))
    poses = [(5.0 * step, 0.0, 0.0) for step in range(1, 5)]
    assert drive(poses, wall)[0]["score"].item() <= 0.5
    assert drive(poses, put(road(), CAR, (2.6, 6.0), (-1.0, 1.0)))[0]["score"].item() == 0


def test_the_goal_is_reached_five_metres_before_the_end():
    _, scores = drive([(5.0, 0.0, 0.0), (10.0, 0.0, 0.0), (15.0, 0.0, 0.0)], start=open_road_start(18.0))
    assert [score.goal.item() for score in scores] == [False, False, True]


def test_rows_of_a_batch_are_scored_as_alone_and_can_be_replaced():
    starts = [open_road_start(), open_road_start(60.0)]
    both = begin_episodes(starts)
    occupancy = torch.stack((road(), put(road(), CAR, (2.6, 6.0), (-1.0, 1.0))), dim=0)
    pose = torch.tensor([[[4.0, 0.0, 0.0]], [[5.0, 0.1, 0.0]]])
    speed = torch.tensor([[8.0], [10.0]])
    both, _ = advance(both, occupancy, pose, speed, OCC3D, CAR_EGO, CONFIG)
    batch = both.summary(CONFIG)
    for row in range(2):
        one = begin_episodes([starts[row]])
        rows = slice(row, row + 1)
        one, _ = advance(one, occupancy[rows], pose[rows], speed[rows], OCC3D, CAR_EGO, CONFIG)
        assert all(one.summary(CONFIG)[name][0] == batch[name][row] for name in batch)
        fresh = both.replace([row], begin_episodes([starts[row]]))
        assert fresh.frames[row] == 0 and fresh.frames[1 - row] == 1
        assert both.select([row]).summary(CONFIG)["score"][0] == batch["score"][row]
