"""The traffic model: how road users move, what they may know, and what it learns from recorded tracks."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from occsora_sim.geometry import compose, relative
from occsora_sim.grid import CAR, PEDESTRIAN
from occsora_sim.models.ground_crop import (
    CROP,
    DIRECTIONS,
    LAWN,
    OBSTACLE,
    PAVEMENT,
    ROAD,
    UNSEEN_GROUND,
    crop_points,
    directions,
    ranges,
    rays,
)
from occsora_sim.models.traffic import TrafficConfig, TrafficModel
from occsora_sim.models.traffic_choice import choose
from occsora_sim.models.traffic_head import TokenHead
from occsora_sim.models.traffic_motion import Motion, apply, arc, keep_on, motion_between
from occsora_sim.road_users import NEVER, RoadUsers, from_tracks, join, of_ego
from occsora_sim.training.traffic import traffic_loss
from occsora_sim.training.traffic_rollouts import RolloutSampler, carried_over
from occsora_sim.training.traffic_windows import TrafficSampler, targets
from occsora_sim.vehicle import Vehicle

SMALL = TrafficConfig(hidden=32, depth=2, heads=2, edge=16)


def traffic(count: int = 5, seed: int = 0) -> RoadUsers:
    """Cars and a pedestrian here and there, each with a past along its heading."""
    generator = torch.Generator().manual_seed(seed)
    now = torch.rand(count, 3, generator=generator, dtype=torch.float64) * torch.tensor([40.0, 40.0, 6.0])
    speed = torch.rand(count, generator=generator) * 8
    ago = torch.arange(3, -1, -1)
    back = torch.zeros(count, 4, 3, dtype=torch.float64)
    back[..., 0] = -speed[:, None] * 0.5 * ago
    pose = compose(now[:, None].expand(-1, 4, -1), back)
    velocity = torch.stack((speed * now[:, 2].cos(), speed * now[:, 2].sin()), dim=-1)
    label = torch.full((count,), CAR)
    label[-1] = PEDESTRIAN
    size = torch.tensor([4.5, 1.8, 1.5]).expand(count, 3)
    return from_tracks(
        pose, torch.ones(count, 4, dtype=torch.bool), velocity, size, label, torch.arange(count)
    )


def crops(users: RoadUsers) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 5, (*users.valid.shape, *CROP), generator=generator, dtype=torch.uint8)


def model() -> TrafficModel:
    torch.manual_seed(0)
    return TrafficModel(SMALL).eval()


def sees(net: TrafficModel, users: RoadUsers, ground: torch.Tensor | None = None) -> torch.Tensor:
    nobody = torch.zeros_like(users.valid)
    with torch.no_grad():
        return net(
            users, nobody, crops(users) if ground is None else ground, torch.tensor([-1] * len(users.label))
        )


def draw(net: TrafficModel, seen: torch.Tensor, key: torch.Tensor) -> Motion:
    return net.head.sample(seen, net.head.luck(key, seen.shape[1]))


# ------------------------------------------------------------------ motion
def test_no_action_is_going_on():
    users = traffic()
    later = keep_on(users)
    there = users.now[..., :2] + users.velocity.double() * 0.5
    torch.testing.assert_close(later.now[..., :2], there, atol=1e-5, rtol=0)
    torch.testing.assert_close(later.velocity, users.velocity, atol=1e-5, rtol=0)


def test_who_stands_stands_exactly_whatever_the_action_says():
    users = traffic()
    everybody = torch.ones_like(users.valid)
    later = apply(users, Motion(more=torch.ones(1, 5), turn=torch.ones(1, 5), stand=everybody))
    assert torch.equal(later.now, users.now) and not later.velocity.any()


def test_nobody_reverses():
    users = traffic()
    brake = Motion(more=torch.full((1, 5), -99.0), turn=torch.ones(1, 5), stand=torch.zeros_like(users.valid))
    assert torch.equal(apply(users, brake).now, users.now)


def test_a_quarter_of_a_circle():
    step = arc(torch.tensor(math.pi * 10 / 2), torch.tensor(math.pi / 2))
    torch.testing.assert_close(step, torch.tensor([10.0, 10.0, math.pi / 2]))


def test_the_action_between_two_poses_leads_from_one_to_the_other():
    users = traffic()
    moved = apply(
        users,
        Motion(
            more=torch.full((1, 5), 0.4), turn=torch.full((1, 5), 0.2), stand=torch.zeros_like(users.valid)
        ),
    )
    found = motion_between(users.now, users.travel, moved.now)
    torch.testing.assert_close(found.turn, torch.full((1, 5), 0.2), atol=1e-5, rtol=0)
    torch.testing.assert_close(apply(users, found).now, moved.now, atol=0.02, rtol=0)


# ------------------------------------------------------------------ the network
def test_where_the_world_has_its_origin_makes_no_difference():
    users, net = traffic(), model()
    frame = torch.tensor([300.0, -900.0, 2.0], dtype=torch.float64)
    turn = torch.tensor([[math.cos(2), -math.sin(2)], [math.sin(2), math.cos(2)]])
    elsewhere = replace(
        users, pose=compose(frame.expand_as(users.pose), users.pose), velocity=users.velocity @ turn.T
    )
    torch.testing.assert_close(sees(net, users), sees(net, elsewhere), atol=1e-4, rtol=0)


def test_what_a_recording_says_of_speeds_is_not_asked_where_the_past_tells_them():
    """Speeds of an instant say who speeds up; in a rollout they never do."""
    users, net = traffic(), model()
    faster = replace(users, velocity=users.velocity + 1.0)
    assert torch.equal(sees(net, users), sees(net, faster))
    unknown = replace(users, present=users.present & (torch.arange(4) == 3))
    assert not torch.equal(sees(net, unknown), sees(net, replace(unknown, velocity=faster.velocity)))


def test_who_waits_is_told_from_who_is_parked():
    users, net = traffic(), model()
    stood = users.moved(users.now, torch.zeros(1, 5, 2))
    for _ in range(3):
        stood = stood.moved(stood.now, torch.zeros(1, 5, 2))
    parked = replace(stood, rested=torch.full_like(stood.rested, NEVER))
    longer = replace(parked, rested=parked.rested + 5)
    assert not torch.equal(sees(net, stood), sees(net, parked))
    assert torch.equal(sees(net, parked), sees(net, longer))


def test_the_order_of_slots_and_empty_ones_make_no_difference():
    users, net = traffic(), model()
    order = torch.tensor([[4, 0, 2, 1, 3]])
    plain, ground = sees(net, users), crops(users)
    shuffled = sees(net, users.gather(order), ground[:, order[0]])
    torch.testing.assert_close(shuffled, plain[:, order[0]], atol=1e-5, rtol=0)
    more = join(users, RoadUsers.empty(1, 3))
    padded = torch.cat((ground, torch.full((1, 3, *CROP), ROAD, dtype=torch.uint8)), dim=1)
    torch.testing.assert_close(sees(net, more, padded)[:, :5], plain, atol=1e-5, rtol=0)


def test_a_world_is_the_same_alone_and_in_a_batch():
    one, other, net = traffic(seed=1), traffic(seed=2), model()
    joined: dict[str, Any] = {
        name: None if value is None else torch.cat((value, getattr(other, name)))
        for name, value in vars(one).items()
    }
    both = RoadUsers(**joined)
    key = torch.tensor([[3, 0], [4, 0]])
    together = draw(net, sees(net, both, crops(one).expand(2, -1, -1, -1)), key)
    alone = draw(net, sees(net, other, crops(one)), key[1:])
    torch.testing.assert_close(together.more[1:], alone.more, atol=1e-4, rtol=0)
    assert torch.equal(together.stand[1:], alone.stand)


def test_others_see_where_the_ego_is_and_the_ground_around_them():
    users, net = traffic(), model()

    def with_ego(x: float) -> torch.Tensor:
        poses = torch.tensor([[[x, 10.0, 0.0]] * 4])
        everyone = join(users, of_ego(poses, Vehicle(), 4))
        ego = torch.zeros_like(everyone.valid)
        ego[:, -1] = True
        ground = torch.cat((crops(users), torch.zeros(1, 1, *CROP, dtype=torch.uint8)), dim=1)
        with torch.no_grad():
            return net(everyone, ego, ground, torch.tensor([-1]))[:, :-1]

    assert (with_ego(10.0) - with_ego(12.0)).abs().max() > 1e-3
    blind = torch.full_like(crops(users), UNSEEN_GROUND)
    assert (sees(net, users) - sees(net, users, blind)).abs().max() > 1e-3


def test_a_head_learns_to_draw_what_two_kinds_of_road_users_do():
    """Of one kind a third stand and the rest go on evenly; the other kind brakes by half a metre and turns."""
    torch.manual_seed(0)
    net = TokenHead(8)
    kind = torch.arange(256) % 2
    seen = torch.nn.functional.one_hot(kind, 8).float() * 3
    stand = (kind == 0) & (torch.arange(256) % 6 == 0)
    motion = Motion(more=-0.5 * kind.float(), turn=0.3 * kind.float(), stand=stand)
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(600):
        loss, _ = net.loss(seen, motion, torch.ones(256, dtype=torch.bool))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        drawn = net.sample(seen[None], net.luck(torch.tensor([[5, 0]]), len(seen)))
        mean = net.mean(seen[None])
    for motion in (drawn, mean):
        goes = (kind == 0) & ~motion.stand[0]
        assert float(motion.more[0, goes].abs().median()) < 0.02
        assert float((motion.more[0, kind == 1] + 0.5).abs().median()) < 0.08
        assert float((motion.turn[0, kind == 1] - 0.3).abs().median()) < 0.05
    assert 0.2 < float(drawn.stand[0, kind == 0].float().mean()) < 0.47
    assert not mean.stand.any(), "who stands in a third of all cases goes, if one has to choose"
    assert float(drawn.stand[0, kind == 1].float().mean()) < 0.06


# ------------------------------------------------------------------ the ground
def test_a_crop_looks_all_around_and_most_closely_ahead_and_nearby():
    pose = torch.tensor([[5.0, 0.0, math.pi / 2]], dtype=torch.float64)  # heading north
    x, y = crop_points(pose, torch.zeros(1, 3, dtype=torch.float64))[0].unbind(-1)
    ahead = DIRECTIONS // 2
    assert float(y[ahead, 0]) == pytest.approx(0.4, abs=0.01) and float(y[ahead, -1]) == pytest.approx(
        33.6, abs=0.2
    )
    assert float(x[ahead, -1]) < 5.0, "directions go from right to left"
    assert float(y[0, -1]) < -33 and float(y[-1, -1]) < -33
    turn = torch.diff(directions())
    assert float(turn[ahead]) < 0.4 * float(turn[0]) and float(directions().abs().max()) < math.pi


def test_a_ray_ends_where_the_ground_changes():
    crop = torch.full(CROP, ROAD, dtype=torch.uint8)
    far = ranges()
    crop[:, far > 10.0] = PAVEMENT
    crop[20, far > 4.0] = OBSTACLE
    road, pavement, obstacle, unseen = rays(crop[None])[0].view(4, DIRECTIONS) * far[-1]
    assert float(road[3]) == pytest.approx(10.0, abs=0.8) and float(road[20]) == pytest.approx(4.0, abs=0.4)
    assert not pavement.any() and float(unseen.min()) == pytest.approx(33.6, abs=0.01)
    assert float(obstacle[20]) == float(road[20]) and float(obstacle[3]) == pytest.approx(33.6, abs=0.01)


# ------------------------------------------------------------------ the choice among draws
def motion(*turns: float, more: float = 0.0) -> Motion:
    turn = torch.tensor([turns])
    return Motion(more=torch.full_like(turn, more), turn=turn, stand=torch.zeros_like(turn, dtype=torch.bool))


def one_car(x: float = 0.0, speed: float = 6.0) -> RoadUsers:
    """A car that heads along x."""
    pose = torch.zeros(1, 4, 3, dtype=torch.float64)
    pose[0, :, 0] = x + speed * 0.5 * torch.arange(-3, 1)
    known = torch.ones(1, 4, dtype=torch.bool)
    return from_tracks(
        pose,
        known,
        torch.tensor([[speed, 0.0]]),
        torch.tensor([[4.5, 1.8, 1.5]]),
        torch.tensor([CAR]),
        torch.tensor([1]),
    )


def road_to_the_left() -> torch.Tensor:
    """A road that goes straight on for 4 m and is open to the left from there on; lawn elsewhere."""
    angle, far = directions()[:, None], ranges()
    x, y = angle.cos() * far, angle.sin() * far
    kinds = torch.where(((y.abs() < 2) & (x < 4)) | ((y > -2) & (x >= 0) & (y >= x - 8)), ROAD, LAWN)
    return kinds.to(torch.uint8)[None, None]


def drawn(*motions):
    """Several motions as one, as they are drawn."""
    return Motion(
        **{name: torch.stack([getattr(one, name) for one in motions]) for name in ("more", "turn", "stand")}
    )


def test_the_first_draw_stands_where_it_leads_nowhere_wrong():
    everywhere = torch.full((1, 1, *CROP), ROAD, dtype=torch.uint8)
    chosen = choose(one_car(), drawn(motion(0.2), motion(0.0)), everywhere)
    assert float(chosen.turn) == pytest.approx(0.2)


def test_a_draw_that_stays_on_the_road_is_taken_before_one_that_leaves_it():
    chosen = choose(one_car(), drawn(motion(-0.4), motion(0.0), motion(0.35)), road_to_the_left())
    assert float(chosen.turn) == pytest.approx(0.35)


def test_nobody_runs_into_another_or_into_the_ego_who_can_brake():
    everywhere = torch.full((1, 2, *CROP), ROAD, dtype=torch.uint8)
    queue = join(one_car(speed=8.0), one_car(6.0, speed=0.0))
    chosen = choose(queue, drawn(motion(0.0, 0.0)), everywhere)
    assert float(chosen.more[0, 0]) == pytest.approx(-1.5) and float(chosen.more[0, 1]) == 0.0
    ego = of_ego(torch.tensor([[[5.0, 0.0, 0.0]] * 4]), Vehicle(), 4)
    assert float(
        choose(join(one_car(speed=8.0), ego), drawn(motion(0.0)), everywhere[:, :1]).more
    ) == pytest.approx(-1.5)


def test_who_comes_up_behind_another_takes_the_draw_that_slows_down_in_time():
    everywhere = torch.full((1, 2, *CROP), ROAD, dtype=torch.uint8)
    queue = join(one_car(speed=8.0), one_car(14.0, speed=0.0))  # 9.5 m between them, two frames and a half
    chosen = choose(queue, drawn(motion(0.0, 0.0), motion(0.0, 0.0, more=-1.0)), everywhere)
    assert float(chosen.more[0, 0]) == -1.0
    far = join(one_car(speed=8.0), one_car(40.0, speed=0.0))
    assert (
        float(choose(far, drawn(motion(0.0, 0.0), motion(0.0, 0.0, more=-1.0)), everywhere).more[0, 0]) == 0.0
    )


def test_who_walks_keeps_out_of_walls_and_may_be_on_the_road_or_not():
    walker = replace(one_car(speed=1.2), label=torch.tensor([[PEDESTRIAN]], dtype=torch.uint8))
    crop = torch.full((1, 1, *CROP), LAWN, dtype=torch.uint8)
    assert float(choose(walker, drawn(motion(0.0), motion(1.0)), crop).turn) == 0.0
    crop[..., DIRECTIONS // 2 - 3 : DIRECTIONS // 2 + 3, 2:] = OBSTACLE
    assert float(choose(walker, drawn(motion(0.0), motion(1.5)), crop).turn) == pytest.approx(1.5)


# ------------------------------------------------------------------ training
@pytest.fixture
def road(straight_road):
    """A car at 6 m/s on the right, one that stands, one that follows the ego's car."""
    return straight_road(cars=[(10.0, -2.5, 6.0), (60.0, 3.0, 0.0), (-15.0, 0.0, 8.0)])


def test_windows_hold_what_road_users_did_and_what_they_see(road):
    sampler = TrafficSampler([road], nudged=0.0, hidden=0.0)
    windows = sampler.with_crops(sampler.windows([(0, 0, 10)]), [(0, 0, 10)], torch.tensor([False]))
    assert windows.users.id[0].tolist() == [0, 1, 3, 2], "the ego, then the nearest first"
    assert windows.ego[0].tolist() == [True, False, False, False]
    motion, known = targets(windows)
    assert known[0].tolist() == [False, True, True, True]
    stands = windows.users.id[0] == 2
    assert torch.equal(motion.stand[0, 1:], stands[1:])
    assert motion.more[0].abs().max() < 1e-4 and motion.turn[0].abs().max() < 1e-4
    left = int((directions() - math.pi / 2).abs().argmin())
    assert windows.crops[0, 0, left, 0] == ROAD and windows.crops[0, 0, left, -1] == PAVEMENT
    assert not ((windows.crops == LAWN) | (windows.crops == OBSTACLE)).any()


def test_ground_that_the_ego_was_never_near_to_is_hidden(road):
    sampler = TrafficSampler([road], nudged=0.0)
    rows = [(0, 0, 4)]
    shown = sampler.with_crops(sampler.windows(rows), rows, torch.tensor([False])).crops
    hidden = sampler.with_crops(sampler.windows(rows), rows, torch.tensor([True])).crops
    far = sampler.windows(rows).users.id[0] == 2  # stands at 60 m, the ego at 16 m sees up to 56 m
    assert (
        (hidden[0, far] == UNSEEN_GROUND).float().mean()
        > 0.7
        > (shown[0, far] == UNSEEN_GROUND).float().mean()
    )


def test_who_is_nudged_off_its_way_is_led_back_to_it(straight_road):
    sampler = TrafficSampler([straight_road(cars=[(10.0, -2.5, 6.0)])], nudged=0.0)
    rows = [(0, 0, 8)]
    windows = sampler.windows(rows)
    mover = int((windows.users.id[0] == 1).nonzero())
    aside = torch.zeros_like(windows.users.pose)
    aside[0, mover, :, 1] = 0.4
    users = replace(windows.users, pose=compose(windows.users.pose, aside))
    for k in range(16):
        recorded = sampler.windows([(0, 0, 8 + k)])
        assert recorded.users.id.equal(windows.users.id)
        motion, _ = targets(replace(recorded, users=users))
        users = apply(users, motion)
        off = users.now[0, mover, 1] - recorded.later[0, mover, 0, 1]
        if k == 0:
            assert motion.turn[0, mover] < -0.01, "it is to the left, so it turns right"
    assert abs(float(off)) < 0.06 and abs(float(users.now[0, mover, 2])) < 0.03


def test_who_strayed_from_its_pace_speeds_up_as_recorded(road):
    """Not back to the recorded pace: nothing says which that was, so it would be learned as chance."""
    windows = TrafficSampler([road], nudged=0.0).windows([(0, 0, 10)])
    car = int((windows.users.id[0] == 1).nonzero())
    pose = windows.users.pose.clone()
    pose[0, car, :, 0] -= 0.5 * torch.arange(3, -1, -1)  # at 7 m/s, recorded at 6
    motion, _ = targets(replace(windows, users=replace(windows.users, pose=pose)))
    assert abs(float(motion.more[0, car])) < 1e-4


def test_who_was_measured_with_errors_goes_on_at_the_recorded_pace(road):
    exact = TrafficSampler([road], nudged=0.0, blurred=0.0)
    measured = TrafficSampler([road], nudged=0.0, blurred=0.2)
    errors = []
    for step in range(8):
        recorded, windows = exact.draw(2, step), measured.draw(2, step)
        off = relative(recorded.users.pose, windows.users.pose)
        assert off[..., 1:].abs().max() < 1e-9, "along the way alone"
        still = recorded.users.travel < 0.025
        assert not off[windows.ego].any() and off[still].abs().max() < 0.2 / 5 * 2 + 1e-9
        motion, known = targets(windows)
        after = windows.users.travel + motion.more
        paces = (windows.later[:, :, 0] - windows.recorded)[..., :2].norm(dim=-1)
        assert torch.allclose(after[known], paces[known].float(), atol=1e-4)
        errors.append(off[windows.users.valid & ~still & ~windows.ego][:, :, 0].abs().amax(-1))
    assert float(torch.cat(errors).max()) > 0.1 and float(torch.cat(errors).min()) == 0.0


def test_who_stands_was_seen_to_move_in_some_windows_and_not_in_others(road):
    state = road.track_state.copy()
    stop = round(10 * 0.5 / road.dt)  # the car at 6 m/s stands from the tenth frame on
    state[1, stop:] = state[1, stop]
    state[1, stop:, 3:] = 0
    road = replace(road, track_state=state)
    told = set()
    for seed in range(30):
        windows = TrafficSampler([road], seed=seed).windows([(0, 0, 15)])
        rested = dict(zip(windows.users.id[0].tolist(), windows.users.rested[0].tolist(), strict=True))
        assert rested[2] == NEVER and rested[0] == 0
        told.add(rested[1])
    assert told == {5, NEVER}


def test_a_step_of_training_is_the_same_by_its_number(road):
    one, other = TrafficSampler([road], seed=3).draw(2, 5), TrafficSampler([road], seed=3).draw(2, 5)
    assert torch.equal(one.users.pose, other.users.pose) and torch.equal(one.crops, other.crops)
    assert not torch.equal(one.users.pose, TrafficSampler([road], seed=3).draw(2, 6).users.pose)


def test_rollouts_of_the_model_itself_stay_near_the_recording(road):
    torch.manual_seed(1)  # of an untrained model that lets somebody move in every frame
    net = TrafficModel(SMALL).eval()
    own = RolloutSampler(net, TrafficSampler([road], nudged=0.0), frames=6)
    for step in range(6):
        windows = own.draw(2, step)
        assert own.windows is not None
        off = (windows.users.now - windows.recorded)[..., :2].norm(dim=-1)[windows.users.valid]
        assert float(off.max()) < 3.5
        assert (float(off.max()) > 0) == (step > 0), "they are the model's own from the second frame on"
    again = own.draw(2, 6)
    assert own.windows is not None
    assert float((again.users.now - own.windows.recorded).abs().max()) == 0, "then others begin"


def stop_and_go(road):
    """The road whose first car stands from the 16th to the 25th frame and then goes on."""
    state = road.track_state.copy()
    stride = round(0.5 / road.dt)
    still = slice(16 * stride, 26 * stride)
    state[1, still] = state[1, 16 * stride]
    state[1, 26 * stride :, 0] -= state[1, 26 * stride, 0] - state[1, 16 * stride, 0] - 0.5
    return replace(road, track_state=state)


def test_windows_around_who_waits_are_told_by_the_past_alone(straight_road):
    road = stop_and_go(straight_road(cars=[(10.0, -2.5, 2.0), (60.0, 3.0, 0.0)], steps=201))
    sampler = TrafficSampler([road], nudged=0.0)
    cars, *_, waits = sampler.movers[0]
    frames = waits[waits[:, 0] == 1, 1].tolist()
    assert frames == list(range(17, 29)), "while it stands, and for two seconds after"
    assert not (waits[:, 0] == 2).any(), "who has never moved does not wait, it is parked"
    assert {17, 26} & set(cars[cars[:, 0] == 1, 1].tolist()) == {26}, "the first frame after a step"


def test_who_sets_off_at_another_moment_than_recorded_is_put_back(straight_road):
    sampler = TrafficSampler([stop_and_go(straight_road(cars=[(10.0, -2.5, 2.0)], steps=201))], nudged=0.0)
    waits, later = sampler.windows([(0, 0, 20)]), sampler.windows([(0, 0, 21)])
    own = keep_on(waits.users)
    early = apply(
        waits.users,
        Motion(
            more=torch.full((1, 2), 0.2), turn=torch.zeros(1, 2), stand=torch.zeros(1, 2, dtype=torch.bool)
        ),
    )
    car = int((later.users.id[0] == 1).nonzero())
    assert torch.equal(carried_over(early, later.users, later.ego).pose[0, car], later.users.pose[0, car])
    aside = replace(own, pose=own.pose + torch.tensor([0.0, 0.3, 0.0]))
    assert torch.equal(carried_over(aside, later.users, later.ego).pose[0, car], aside.pose[0, car])


def test_it_learns_a_town(road):
    torch.manual_seed(0)
    net, sampler = model().train(), TrafficSampler([road], nudged=0.0)
    optimiser, generator = torch.optim.Adam(net.parameters(), 3e-3), torch.Generator().manual_seed(0)
    losses = []
    for step in range(40):
        loss, _ = traffic_loss(net, sampler.draw(2, step), generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
