"""Claims on the generated world with untrained tiny weights: what holds whatever the weights are."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from occsora_sim.errors import ActionError, CheckpointError, ConfigurationError
from occsora_sim.grid import BUS, CAR, DRIVEABLE, FREE, MANMADE
from occsora_sim.models.columns import is_dynamic, without_road_users
from occsora_sim.models.weights import load_world_model, save_world_model
from occsora_sim.models.world_model import WorldModelConfig
from occsora_sim.presets import preset, small, tiny
from occsora_sim.road_users import RoadUsers, from_tracks
from occsora_sim.vehicle import Vehicle
from occsora_sim.voxels.paint import paint_road_users
from occsora_sim.worlds.ahead import poses_along
from occsora_sim.worlds.diffusion import DiffusionWorld, load_world
from occsora_sim.worlds.protocol import Start

AHEAD = torch.tensor([[3.0, 0.0, 0.0], [6.0, 0.0, 0.0]])
LEFT = torch.tensor([[2.0, 0.4, 0.3], [3.8, 1.3, 0.6]])


@pytest.fixture(scope="module")
def world(untrained_model) -> DiffusionWorld:
    return DiffusionWorld(untrained_model)


def start(world: DiffusionWorld, shift: int = 0) -> Start:
    frames = torch.full((4, *world.grid.shape), FREE, dtype=torch.uint8)
    frames[..., world.grid.ground] = DRIVEABLE
    frames[:, :, :12, 1:8] = MANMADE
    frames[:, 30 + shift : 35 + shift, 23:25, 2:4] = CAR
    poses = torch.stack((torch.arange(-3, 1) * 2.0, torch.zeros(4), torch.zeros(4)), dim=-1)
    route = torch.stack((torch.arange(-10.0, 60.0), torch.zeros(70)), dim=-1)
    return Start(occupancy=frames, ego_pose=poses, route=route)


def with_car(world: DiffusionWorld, speed: float) -> Start:
    """`start` with a bus beside the ego instead of the car, of which the track is known."""
    begin = start(world)
    frames = without_road_users(begin.occupancy)
    ago = torch.arange(-3, 1).double() * 0.5
    pose = torch.stack((4.0 + speed * ago, torch.full((4,), 4.0).double(), torch.zeros(4).double()), dim=-1)
    users = from_tracks(
        pose[None], torch.ones(1, 4, dtype=torch.bool), torch.tensor([[speed, 0.0]]), torch.tensor([[8.0, 2.4, 3.0]]),
        torch.tensor([BUS]), torch.tensor([5]),
    )  # fmt: skip
    return replace(begin, occupancy=frames, users=users)


def keep_on_for_ever(model) -> None:
    """Weights that say of everybody that it goes on as it went."""
    head = model.traffic.head
    with torch.no_grad():
        for part in (head.gate, head.first[-1], head.second[-1]):
            part.weight.zero_()
            part.bias.fill_(-50.0)
        for part in (head.first[-1], head.second[-1]):
            part.bias[len(part.bias) // 2] = 50.0  # the middle bin is no action


def roll(world, starts, seeds, trajectories):
    state, chunks = world.reset(starts, seeds), []
    for trajectory in trajectories:
        state = world.step(state, trajectory)
        chunks.append(state.occupancy)
    return torch.cat(chunks, dim=1), state


def test_the_same_seed_gives_the_same_rollout_and_another_seed_another(world):
    steps = [AHEAD[None]] * 3
    first, _ = roll(world, [start(world)], [5], steps)
    again, _ = roll(world, [start(world)], [5], steps)
    other, _ = roll(world, [start(world)], [6], steps)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_world_draws_the_same_alone_and_in_a_batch(world):
    """Draws are equal; sums of floats may differ in their last digits with the batch, and by that one voxel in 1000."""
    starts, seeds = [start(world), start(world, 4), start(world, 8)], [1, 2, 3]
    trajectory = torch.stack((AHEAD, LEFT, AHEAD))
    together, state = roll(world, starts, seeds, [trajectory] * 3)
    for row in range(3):
        alone, one = roll(world, [starts[row]], [seeds[row]], [trajectory[row : row + 1]] * 3)
        assert (together[row] == alone[0]).float().mean() > 0.999
        assert torch.equal(one.users.id[0], state.users.id[row])
        torch.testing.assert_close(one.users.now[0], state.users.now[row], atol=1e-3, rtol=0)


def test_slots_that_are_empty_change_nothing(world, monkeypatch):
    begun = world.reset([with_car(world, 4.0), start(world)], [5, 6])
    few = world.step(world.step(begun, AHEAD[None].repeat(2, 1, 1)), LEFT[None].repeat(2, 1, 1))
    monkeypatch.setattr(RoadUsers, "occupied", lambda users: users)
    all_slots = world.step(world.step(begun, AHEAD[None].repeat(2, 1, 1)), LEFT[None].repeat(2, 1, 1))
    valid = few.users.valid[..., None]
    assert torch.equal(few.users.valid, all_slots.users.valid) and valid.any()
    torch.testing.assert_close(few.users.now * valid, all_slots.users.now * valid, atol=1e-3, rtol=0)
    assert (few.occupancy == all_slots.occupancy).float().mean() > 0.999


def test_a_step_leaves_the_old_state_as_it_is(world):
    state = world.reset([start(world)], [0])
    first = world.step(state, AHEAD[None])
    assert torch.equal(first.occupancy, world.step(state, AHEAD[None]).occupancy)


def test_a_prompt_that_differs_in_its_last_frame_leaves_all_earlier_frames_equal(world):
    """Others see where the ego was, and ground is drawn where it is: nothing knows the plan."""
    state = world.reset([start(world)], [4])
    one, other = AHEAD.clone(), AHEAD.clone()
    other[-1] = torch.tensor([3.5, 1.0, 0.8])
    first, second = (world.step(state, prompt[None]) for prompt in (one, other))
    assert torch.equal(first.occupancy[:, 0], second.occupancy[:, 0])
    assert not torch.equal(first.occupancy[:, 1], second.occupancy[:, 1])
    assert torch.equal(first.users.pose[:, :, -2], second.users.pose[:, :, -2])


def test_road_users_keep_their_size_and_class_for_as_long_as_they_live(world):
    state = world.reset([start(world)], [1])
    known: dict[int, tuple] = {}
    for _ in range(8):
        state = world.step(state, AHEAD[None] / 2)
        users = state.users
        for slot in users.valid[0].nonzero()[:, 0].tolist():
            own = (users.label[0, slot].item(), *users.size[0, slot].tolist())
            assert known.setdefault(int(users.id[0, slot]), own) == own
    assert known


def test_a_moving_vehicle_is_drawn_as_the_same_box_in_every_frame(world, untrained_model):
    """Seen from an ego that goes on as fast beside it, so that each frame cuts it into the same voxels."""
    model = copy.deepcopy(untrained_model)
    keep_on_for_ever(model)
    one = DiffusionWorld(model, mode="mean")
    state = one.reset([with_car(one, speed=8.0)], [0])
    shapes = []
    for _ in range(4):
        state = one.step(state, torch.tensor([[[4.0, 0.0, 0.0], [8.0, 0.0, 0.0]]]))
        shapes += [(frame == BUS) for frame in state.occupancy[0]]
    assert shapes[0].any()
    assert all(torch.equal(shape, shapes[0]) for shape in shapes)


def test_a_car_that_stands_is_forecast_as_it_stood(untrained_model):
    model = copy.deepcopy(untrained_model)
    with torch.no_grad():
        model.traffic.head.gate.weight.zero_()
        model.traffic.head.gate.bias.fill_(50.0)  # everybody stands
    world = DiffusionWorld(model, mode="mean")
    begin = with_car(world, speed=0.0)
    assert begin.users is not None
    state = world.step(world.reset([begin], [0]), torch.zeros(1, 2, 3))
    there = paint_road_users(
        torch.full((1, *world.grid.shape), FREE, dtype=torch.uint8),
        begin.users,
        torch.zeros(1, 3).double(),
        world.grid,
    )[0]
    assert (there == BUS).any() and torch.equal(state.occupancy[0, 1] == BUS, there == BUS)


def test_new_ground_is_drawn_where_nothing_was_seen_and_only_there(world, untrained_model):
    model = copy.deepcopy(untrained_model)
    with torch.no_grad():
        model.ground.fine.answer.bias[3] = 50.0  # houses everywhere
    begin = start(world)
    one = world.step(world.reset([begin], [0]), AHEAD[None]).occupancy[0, 1]
    other = DiffusionWorld(model).step(world.reset([begin], [0]), AHEAD[None]).occupancy[0, 1]
    grid = world.grid
    old = grid.shape[0] - round(float(AHEAD[1, 0]) / grid.voxel) - 1
    still = ~is_dynamic(one) & ~is_dynamic(other)
    assert torch.equal(one[:old][still[:old]], other[:old][still[:old]])
    assert (other[old + 1 :, :, 3] == MANMADE).all() and not (one[old + 1 :, :, 3] == MANMADE).all()


def test_what_was_drawn_is_there_on_return_to_the_voxel(world):
    away, back = torch.tensor([[[8.0, 0.0, 0.0]]]), torch.tensor([[[-8.0, 0.0, 0.0]]])
    state = world.step(world.reset([start(world)], [2]), away)
    again = world.step(world.step(world.step(state, away), back), back)
    again = world.step(again, away)
    still = ~is_dynamic(state.occupancy) & ~is_dynamic(again.occupancy)
    assert still.float().mean() > 0.9
    assert torch.equal(state.occupancy[still], again.occupancy[still])


def test_the_expectation_of_new_ground_is_the_code_of_which_most_is_expected_to_be_right(untrained_model):
    """Of three codes, two alike but for a column, the alike ones win together over a likelier third."""
    model = copy.deepcopy(untrained_model)
    fine = model.ground.fine
    with torch.no_grad():
        fine.contents[10:12] = 1
        fine.contents[11, 0] = 2
        fine.answer.weight.zero_()
        fine.shared.weight.zero_()
        fine.answer.bias.fill_(-50.0)
        fine.answer.bias[torch.tensor([3, 10, 11])] = torch.tensor([0.40, 0.30, 0.29]).log()
    world = DiffusionWorld(model, mode="mean")
    frame = world.step(world.reset([start(world)], [0]), AHEAD[None]).occupancy[0, 1]
    assert (frame[-6:, :, 2] == DRIVEABLE).all()


def test_a_budget_of_tiles_is_kept_and_what_is_not_drawn_in_time_is_no_void(world):
    state = world.reset([start(world)], [0])
    fast = torch.tensor([[[6.0, 0.0, 0.0], [12.0, 0.0, 0.0]]])
    before = state.memory.ground.canvas
    one, four = (DiffusionWorld(world.model, tiles=tiles).step(state, fast) for tiles in (1, 4))
    tile = world.model.config.ground.tile**2
    new = [one.memory.ground.canvas.plan.known.sum() - before.plan.known.sum() for one in (one, four)]
    assert 0 < new[0] <= tile and new[0] < new[1] <= 4 * tile  # once in a chunk, not in each frame
    assert four.memory.ground.canvas.fine.known.sum() > before.fine.known.sum()
    assert (one.occupancy <= FREE).all()


def test_the_others_see_how_large_the_ego_is(world, untrained_model):
    model = copy.deepcopy(untrained_model)
    with torch.no_grad():
        model.traffic.head.gate.bias.fill_(-50.0)  # nobody stands
    begin = with_car(world, speed=4.0)
    sizes = (Vehicle(), Vehicle(length=12.0, width=2.5))
    worlds = [DiffusionWorld(model, mode="mean", vehicle=vehicle) for vehicle in sizes]
    small, large = (one.step(one.reset([begin], [0]), AHEAD[None]).users for one in worlds)
    assert small is not None and large is not None and not torch.equal(small.now, large.now)


def test_what_it_begins_with_where_there_are_no_tracks_is_found_in_the_voxels(world):
    state = world.reset([start(world)], [0])
    users = state.users
    assert users.valid.sum() == 1 and users.label[0, 0] == CAR
    x, y = (torch.tensor([32.5, 24.0]) * world.grid.voxel + torch.tensor(world.grid.lower[:2])).tolist()
    assert users.now[0, 0, :2].tolist() == pytest.approx([x, y], abs=0.3)


def test_what_stood_still_and_was_seen_stays_to_the_voxel(world):
    begin = start(world)
    state = world.step(
        world.reset([begin], [0]), torch.tensor([[[0.8, 0, 0], [1.6, 0, 0]]])
    )  # two voxels ahead
    drawn, last = state.occupancy[0, 1, :-2], begin.occupancy[-1, 2:]
    still = ~is_dynamic(drawn) & ~is_dynamic(last)
    assert still.float().mean() > 0.3
    assert torch.equal(drawn[still], last[still])


def test_poses_follow_the_prompt_exactly(world):
    state = world.step(world.reset([start(world)], [0]), LEFT[None])
    assert torch.allclose(state.ego_pose[0], LEFT)


def test_a_shorter_trajectory_draws_as_many_frames(world):
    state = world.step(world.reset([start(world)], [0]), AHEAD[None, :1])
    assert state.occupancy.shape[1] == 1
    assert torch.allclose(state.ego_pose[0, 0], AHEAD[0])


def test_selecting_and_replacing_worlds(world):
    state = world.reset([start(world), start(world, 5)], [1, 2])
    branched = world.select(state, [1, 1])
    assert torch.equal(branched.occupancy[0], state.occupancy[1])
    put = world.replace(state, [0], world.select(state, [1]))
    a = world.step(put, AHEAD.expand(2, -1, -1)).occupancy
    assert torch.equal(a[0], a[1])


def test_the_future_is_no_input(world):
    """A start holds the past alone, and what the world is given beside it is the trajectory."""
    begin = start(world)
    longer = Start(
        occupancy=torch.cat((torch.zeros_like(begin.occupancy[:2]), begin.occupancy)),
        ego_pose=torch.cat((begin.ego_pose[:2] - 50, begin.ego_pose)),
        route=begin.route,
        source=object(),
    )
    one, _ = roll(world, [begin], [3], [AHEAD[None]])
    two, _ = roll(world, [longer], [3], [AHEAD[None]])
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    "bad", [torch.zeros(1, 3, 3), torch.zeros(2, 2, 3), torch.full((1, 2, 3), float("nan"))]
)
def test_a_trajectory_that_cannot_be_is_refused_in_one_line(world, bad):
    with pytest.raises(ActionError) as error:
        world.step(world.reset([start(world)], [0]), bad)
    assert "\n" not in str(error.value)


def test_a_start_of_another_grid_is_refused(world):
    begin = start(world)
    wrong = Start(occupancy=begin.occupancy[:, :40], ego_pose=begin.ego_pose, route=begin.route)
    with pytest.raises(ConfigurationError, match="grid"):
        world.reset([wrong], [0])


def test_weights_travel_with_their_configuration(tmp_path, world):
    path = tmp_path / "w.safetensors"
    save_world_model(world.model, path, kind="world_model", trained_on="nothing", recipe={})
    model, header = load_world_model(path)
    assert model.config == world.model.config and header["trained_on"] == "nothing"
    # A finished model is stored in float16.
    rounded, whole = copy.deepcopy(world.model), world.model.state_dict()
    rounded.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in whole.items()})
    a, _ = roll(DiffusionWorld(rounded), [start(world)], [5], [AHEAD[None]])
    b, _ = roll(load_world(path), [start(world)], [5], [AHEAD[None]])
    assert torch.equal(a, b)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.safetensors"]


def test_unusable_weights_are_refused_in_one_line(tmp_path, world):
    path = tmp_path / "w.safetensors"
    save_world_model(world.model, path, kind="tokenizer", trained_on="nothing", recipe={})
    whole = path.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "foreign.safetensors").write_bytes(b"PK\x03\x04 not ours at all")
    for name, wanted in [
        ("w", "'tokenizer'"), ("cut", "damaged"), ("foreign", "damaged"), ("absent", "no such"),
    ]:  # fmt: skip
        with pytest.raises(CheckpointError, match=wanted) as error:
            load_world(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(error.value)


def test_configurations_travel_through_json():
    import json

    for config in (small(), tiny()):
        assert WorldModelConfig.from_header(json.loads(json.dumps(config.to_header()))) == config
    with pytest.raises(ConfigurationError, match="unknown"):
        preset("huge")


def test_poses_along_a_route_begin_beside_the_ego_turn_with_it_and_stop_at_its_end():
    corner = torch.tensor(
        [[float(x), 0.0] for x in range(-10, 31)] + [[30.0, float(y)] for y in range(1, 21)]
    )
    route = torch.stack((corner, torch.full_like(corner, torch.nan)))
    poses = poses_along(route, torch.tensor([[0.0, 1.0, 0.1], [5.0, 6.0, 0.2]]), 60.0, 20.0)
    torch.testing.assert_close(
        poses[0], torch.tensor([[20.0, 0.0, 0.0], [30.0, 10.0, math.pi / 2], [30.0, 20.0, math.pi / 2]])
    )
    assert poses[1].tolist() == [pytest.approx([5.0, 6.0, 0.2])] * 3


def test_ground_that_was_drawn_ahead_is_there_without_a_tile_drawn_later(world):
    ready = DiffusionWorld(world.model, steps=1, ahead=64.0, tiles=0)
    state = ready.reset([start(world)], [1])
    known = state.memory.ground.canvas.fine.known
    prompt = torch.tensor([[[4.0, 0.0, 0.0], [8.0, 0.0, 0.0]]])
    for _ in range(6):
        state = ready.step(state, prompt)
    assert torch.equal(state.memory.ground.canvas.fine.known, known)
    pose = state.ego_pose[:, -1]
    hidden = state.memory.ground.drawn(
        ready.ground, world.grid, pose, state.memory.route, torch.tensor([-1]), torch.tensor([1]), steps=1
    )
    assert torch.equal(hidden.canvas.fine.known, known)
    with pytest.raises(ConfigurationError, match="tiles=0"):
        DiffusionWorld(world.model, tiles=0)
