"""Entries: who comes into view."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from occsora_sim.geometry import compose, relative
from occsora_sim.grid import BARRIER, CAR, DRIVEABLE, FREE, OCC3D, PEDESTRIAN, SIDEWALK, VEGETATION, Grid
from occsora_sim.models.box_overlap import overlap
from occsora_sim.models.entries import GUIDANCE, START_SLOTS, Entries, EntriesConfig, unasked
from occsora_sim.models.entry_candidates import seen_before
from occsora_sim.models.entry_view import CHANNELS, UNSEEN, Setting, ground_of, in_view, view_image
from occsora_sim.road_users import RoadUsers, from_tracks
from occsora_sim.training.entries import entries_loss, measure_kept
from occsora_sim.training.entry_samples import EntrySampler, Samples

SMALL = EntriesConfig(
    grid=Grid(shape=(64, 64, 16), voxel=0.8, lower=(-25.6, -25.6, -1.0)), width=8, marks=16, margin=8
)


@pytest.fixture(scope="module")
def eager() -> Entries:
    """An untrained network that expects many everywhere."""
    torch.manual_seed(0)
    entries = Entries(SMALL).eval()
    assert entries.rate.bias is not None
    torch.nn.init.constant_(entries.rate.bias, -3.0)
    entries.sizes[:] = torch.tensor([4.0, 1.8, 1.6])
    return entries


def road(rows: int, *, new: bool) -> Setting:
    """Of a frame of worlds that are all road, the ego at 5 m/s."""
    shape = (rows, 1, *SMALL.grid.shape[:2])
    pose = torch.tensor([[[100.0, 50.0, 0.7]]]).repeat(rows, 1, 1)
    ground = torch.full(shape, DRIVEABLE, dtype=torch.uint8)
    return Setting.of(ground, pose, torch.full((rows, 1), 5.0), torch.full(shape, new), None, SMALL.margin)


def asked(rows: int, *, new: bool, users: RoadUsers | None = None) -> dict:
    """What `enter` is asked at the origin of rows of worlds that are all road, the ego at 5 m/s."""
    return {
        "users": users or RoadUsers.empty(rows, 4),
        "setting": road(rows, new=new),
        "prompt": torch.tensor([[-1.0, math.nan]]).repeat(rows, 1),
        "key": torch.stack((torch.arange(rows), torch.full((rows,), 9)), dim=1)[:, None],
    }


def car_at(place: tuple[float, float, float], rows: int) -> RoadUsers:
    """A car that stands at a world pose in each of so many worlds."""
    pose = torch.tensor(place).double().expand(1, 4, 3)
    one = from_tracks(
        pose, torch.ones(1, 4, dtype=torch.bool), torch.zeros(1, 2), torch.tensor([[4.0, 1.8, 1.6]]),
        torch.tensor([CAR]), torch.tensor([3]),
    )  # fmt: skip
    return one.select([0] * rows)


def test_boxes_overlap_where_no_axis_parts_them():
    pose = torch.tensor([[[0.0, 0.0, 0.0]]])
    others = torch.tensor(
        [[[2.9, 0.0, 0.0], [3.1, 0.0, 0.0], [2.4, 1.4, math.pi / 4], [2.9, 1.9, math.pi / 4]]]
    )
    size = torch.tensor([[[4.0, 2.0]]])
    found = overlap(pose, size, others, torch.tensor([[[2.0, 2.0]]]).expand(1, 4, 2))
    assert found.tolist() == [[[True, False, True, False]]]


def test_nobody_that_enters_overlaps_another_or_one_that_is_there(eager):
    users = car_at((105.0, 60.0, 0.3), 6)
    (came,) = eager.enter(**asked(6, new=True, users=users), slots=START_SLOTS)
    assert came.valid.sum(1).min() > 10
    size = came.size[..., :2]
    pairs = overlap(came.now, size, came.now, size) & came.valid[:, :, None] & came.valid[:, None]
    assert not pairs.tril(-1).any()
    assert not (overlap(came.now, size, users.now, users.size[..., :2]).any(-1) & came.valid).any()
    ego = relative(torch.tensor([100.0, 50.0, 0.7]).double(), came.now)
    assert (ego[..., :2].norm(dim=-1) > 1.5)[came.valid].all()


def test_nobody_that_enters_a_frame_later_overlaps_one_that_has_come_by_then_or_is_expected_there(eager):
    """The ego goes 2.5 m a frame, a car crosses at 10 m/s; all of the ground is new in both frames."""
    rows, shape = 6, (6, 2, *SMALL.grid.shape[:2])
    pose = torch.tensor([[[100.0, 50.0, 0.0], [102.5, 50.0, 0.0]]]).repeat(rows, 1, 1)
    ground, new = torch.full(shape, DRIVEABLE, dtype=torch.uint8), torch.ones(shape, dtype=torch.bool)
    users = car_at((108.0, 45.0, math.pi / 2), rows)
    users = users.moved(users.now, torch.tensor([0.0, 10.0]).expand(rows, 1, 2))
    given = asked(rows, new=True, users=users) | {
        "setting": Setting.of(ground, pose, torch.full((rows, 2), 5.0), new, None, SMALL.margin),
        "key": torch.stack(
            (torch.arange(rows)[:, None].expand(-1, 2), torch.tensor([[9, 10]] * rows)), dim=2
        ),
    }
    first, second = eager.enter(**given, slots=START_SLOTS)
    assert min(first.valid.sum(), second.valid.sum()) > 10
    first = first.moved(first.now + torch.nn.functional.pad(first.velocity * 0.5, (0, 1)), first.velocity)
    crossed = car_at((108.0, 50.0, math.pi / 2), rows)
    for other in (first, crossed):
        pairs = overlap(second.now, second.size[..., :2], other.now, other.size[..., :2])
        assert not (pairs & second.valid[:, :, None] & other.valid[:, None]).any()
    assert not set(first.id[first.valid].tolist()) & set(second.id[second.valid].tolist())


def test_alone_or_in_a_batch_the_same_ones_enter(eager):
    (together,), rows = eager.enter(**asked(5, new=True)), asked(5, new=True)
    for row in range(5):
        one = {k: v[row : row + 1] if isinstance(v, torch.Tensor) else v for k, v in rows.items()}
        (alone,) = eager.enter(**{**one, "users": rows["users"].select([row]), "setting": road(1, new=True)})
        assert torch.equal(alone.label[0], together.label[row]) and torch.equal(alone.id[0], together.id[row])
        torch.testing.assert_close(alone.pose[0], together.pose[row], atol=1e-4, rtol=0)


def test_who_enters_has_driven_straight_on_and_an_identity_of_its_own(eager):
    given = asked(3, new=True)
    (came,) = eager.enter(**given)
    there = came.valid
    step = came.pose[:, :, 1:, :2] - came.pose[:, :, :-1, :2]
    torch.testing.assert_close(
        step[there], (came.velocity[there] * 0.5).double()[:, None].expand(-1, 3, 2), atol=1e-5, rtol=0
    )
    heading = torch.stack((came.now[..., 2].cos(), came.now[..., 2].sin()), dim=-1)
    torch.testing.assert_close(
        (came.velocity.double() * heading).sum(-1)[there], came.speed.double()[there], atol=1e-4, rtol=0
    )
    (later,) = eager.enter(**{**given, "key": given["key"] + torch.tensor([0, 1])})
    ids = torch.cat((came.id[0, came.valid[0]], later.id[0, later.valid[0]]))
    assert len(ids.unique()) == len(ids) and (ids >= 2**16).all()
    assert (came.id[~there] == -1).all() and came.pose.shape[2] == 4


def test_on_ground_that_was_in_view_only_those_from_outside_enter(eager):
    (came,) = eager.enter(**asked(16, new=False))
    local = relative(torch.tensor([100.0, 50.0, 0.7]).double(), came.now).float()
    back = local[..., :2] - 0.5 * came.speed[..., None] * torch.stack(
        (local[..., 2].cos(), local[..., 2].sin()), -1
    )
    assert came.valid.any()
    assert not in_view(back, SMALL.grid)[came.valid].any()


def test_one_that_the_view_left_behind_and_caught_up_with_was_seen():
    place = torch.tensor([[[-38.0, 0.0, 0.0], [-38.0, 0.0, 0.0], [38.0, 0.0, math.pi]]])
    new = torch.zeros(1, 200, 200, dtype=torch.bool)
    # The ego drives 5 m a frame: its view began 5 m further back. At 8 m/s one was in it; at 16 m/s it was not.
    seen = seen_before(place, torch.tensor([[8.0, 16.0, 8.0]]), new, torch.tensor([10.0]), OCC3D)
    assert seen.tolist() == [[True, False, False]]
    assert not seen_before(place, torch.zeros(1, 3), ~new, torch.tensor([10.0]), OCC3D).any()


def test_a_tree_crown_over_the_road_leaves_it_road_and_a_fence_on_it_does_not():
    columns = torch.full((5, 16), FREE, dtype=torch.uint8)
    columns[:4, OCC3D.ground] = DRIVEABLE
    columns[1, 9:12] = VEGETATION
    columns[2, 3:5] = BARRIER
    columns[3, 3:6] = CAR
    assert ground_of(columns, OCC3D).tolist() == [DRIVEABLE, DRIVEABLE, BARRIER, DRIVEABLE, UNSEEN]


def test_a_road_user_is_seen_in_the_cells_that_it_stands_on():
    users = car_at((4.4, 0.0, 0.0), 1)
    ground = torch.full((1, 200, 200), SIDEWALK, dtype=torch.uint8)
    new = torch.zeros(1, 200, 200, dtype=torch.bool)
    setting = Setting.of(ground, torch.zeros(1, 3), torch.zeros(1), new, None, 10)
    vehicles = view_image(users, setting, OCC3D, 10)[0, -7]
    i, j = vehicles.nonzero().unbind(1)
    x, y = (i - 10 + 0.5) * 0.8 - 40, (j - 10 + 0.5) * 0.8 - 40
    assert x.min() == pytest.approx(2.8, abs=0.5) and x.max() == pytest.approx(6.0, abs=0.5)
    assert y.abs().max() < 1.3


def test_one_that_leaves_the_view_and_comes_back_while_it_is_held_does_not_enter_again(straight_road):
    """The ego stands; a car leaves ahead and turns back at 55 m, one at 70 m, and one is put into the view."""
    scene = straight_road(
        cars=[(30.0, 3.0, 4.0), (30.0, -3.0, 4.0), (20.0, 6.0, 0.0)], steps=61, ego_speed=0.0
    )
    for track, turn in ((1, 12), (2, 20)):  # 54 m and 70 m
        scene.track_state[track, turn:, 0] = (
            2 * scene.track_state[track, turn, 0] - scene.track_state[track, turn:, 0]
        )
        scene.track_state[track, turn:, 3] *= -1
    scene.track_valid[3, :15] = False
    sampler = EntrySampler([scene], OCC3D)
    entered = [track for frame in sampler.towns[0].frames for track in frame.entered.tolist()]
    assert entered == [2]


def test_sizes_are_those_of_the_road_users_of_the_towns(straight_road):
    cars = [(60.0 + 30 * k, 3.0 if k % 2 else -3.0, -6.0 + k) for k in range(8)]
    sizes = EntrySampler([straight_road(cars=cars)], OCC3D).sizes()
    assert sizes[2, 0].tolist() == pytest.approx([4.4, 1.8, 1.6])


def test_of_a_start_a_share_of_who_is_in_view_is_known_and_the_others_enter(straight_road):
    cars = [(60.0 + 12 * k, 3.0 if k % 2 else -3.0, 0.0) for k in range(8)]
    sampler = EntrySampler([straight_road(cars=cars, steps=61)], OCC3D)
    numbers, yes = np.full(64, 20), np.ones(64, dtype=bool)
    seen = len(sampler.towns[0].frames[20].seen)
    assert seen > 3

    def begun(share: float) -> Samples:
        return sampler.frames(numbers, yes, 0 * numbers, np.full(64, share), np.random.default_rng(0))

    for share in (0.0, 0.5, 1.0):
        samples = begun(share)
        came = torch.bincount(samples.entered.row, minlength=64)
        known = samples.users.valid.sum(1)
        assert (came + known == seen).all() and samples.new.all()
        assert known.float().mean() == pytest.approx(share * seen, abs=0.6)
    assert (begun(0.5).users.valid.sum(1) == begun(0.5).vehicles).all()


def test_places_on_lanes_lie_along_the_map_s_lanes_and_are_learned_as_such(straight_road):
    sampler = EntrySampler([straight_road(cars=[(60.0, 3.0, 0.0)], steps=61)], OCC3D)
    samples = sampler.draw(4, torch.Generator().manual_seed(0))
    lanes = samples.lanes
    assert torch.bincount(lanes.row).tolist() == [96] * 4 and in_view(lanes.place, OCC3D).all()
    world = compose(samples.pose[lanes.row], lanes.place.double())
    # The road's one lane runs along x, 4 m wide.
    assert world[:, 1].abs().max() < 0.45 and world[:, 2].abs().max() < 1e-4
    assert world[:, 1].std() > 0.1 and not (lanes.label == PEDESTRIAN).any()
    torch.manual_seed(0)
    entries = Entries(dataclasses.replace(SMALL, grid=OCC3D))
    first = [float(entries_loss(entries, samples)[1]["entries/lanes"])]
    optimiser = torch.optim.Adam(entries.parameters(), lr=3e-3)
    for _ in range(12):
        optimiser.zero_grad()
        loss, logs = entries_loss(entries, samples)
        loss.backward()
        optimiser.step()
    assert float(logs["entries/lanes"]) < 0.6 * first[0]


def test_frames_in_which_somebody_comes_are_drawn_more_often_and_count_less(straight_road):
    cars = [(100.0 + 70 * k, 3.0, 0.0) for k in range(3)]
    sampler = EntrySampler([straight_road(cars=cars, steps=121, ego_speed=8.0)], OCC3D)
    comes = np.array([len(frame.entered) for frame in sampler.towns[0].frames])
    assert 0 < (comes > 0).mean() < 0.2
    samples = sampler.draw(512, torch.Generator().manual_seed(0))
    frames = ~samples.new.flatten(1).all(1)
    came = torch.bincount(samples.entered.row, minlength=512)[frames].double()
    weight = samples.weight[frames].double()
    assert (came > 0).double().mean() > 0.4
    assert (came * weight).sum() / weight.sum() == pytest.approx(comes.mean(), rel=0.15)


def test_as_many_more_are_drawn_as_give_way(eager, straight_road):
    cars = [(60.0 + 12 * k, 3.0 if k % 2 else -3.0, 0.0) for k in range(8)]
    sampler = EntrySampler([straight_road(cars=cars, steps=61)], OCC3D)
    torch.manual_seed(0)
    shy = Entries(EntriesConfig(width=8, marks=16)).eval()
    assert shy.rate.bias is not None
    torch.nn.init.constant_(shy.rate.bias, -30.0)
    measure_kept(shy, sampler, frames=64, rounds=2)
    assert (
        shy.kept[:, 0] == 0.25
    ).all()  # nobody comes of those who were recorded: as far as is plausible, twice
    assert (shy.kept[:, 2] == 1.0).all()  # no pedestrian was

    rare = copy.deepcopy(eager)
    assert rare.rate.bias is not None
    torch.nn.init.constant_(rare.rate.bias, -6.0)
    once = rare.enter(**asked(64, new=True), slots=START_SLOTS)[0].valid.sum()
    rare.kept[1] = 0.5
    twice = rare.enter(**asked(64, new=True), slots=START_SLOTS)[0].valid.sum()
    assert once > 50 and twice > 1.5 * once


def test_vehicles_asked_for_count_more_than_the_network_says_and_without_a_number_nothing_changes(eager):
    given = asked(2, new=True)
    torch.manual_seed(1)
    image = torch.rand(2, CHANNELS, 48, 48)
    told = {"vehicles": torch.tensor([4.0, 4.0]), "setting": given["setting"].rows()}
    prompt = torch.tensor([[-1.0, math.nan], [-1.0, 20.0]])
    eager = copy.deepcopy(eager)
    torch.nn.init.normal_(eager.rate.weight)
    with torch.no_grad():
        condition, free = (eager.conditions(one, **told) for one in (prompt, unasked(prompt)))
        plain, open_ = eager(image, condition)[0], eager(image, free)[0]
        guided = eager._guided(image, condition, free=free)[0]
    torch.testing.assert_close(guided[0], plain[0])
    torch.testing.assert_close(guided[1, 0], open_[1, 0] + GUIDANCE * (plain[1, 0] - open_[1, 0]))
    torch.testing.assert_close(guided[1, 1:], plain[1, 1:])
    assert not torch.allclose(plain[1, 0], open_[1, 0])
