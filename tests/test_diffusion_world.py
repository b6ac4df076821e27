"""Claims on the generated world with untrained tiny weights: what holds whatever the weights are."""

import copy
from dataclasses import replace

import pytest
import torch

from occsora_sim.errors import ActionError, CheckpointError, ConfigurationError
from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE
from occsora_sim.models.columns import is_dynamic, road_user_image
from occsora_sim.models.weights import load_world_model, save_world_model
from occsora_sim.models.world_model import WorldModelConfig
from occsora_sim.presets import preset, small, tiny
from occsora_sim.worlds.diffusion import DiffusionWorld, load_world
from occsora_sim.worlds.foresight import foresee
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


def test_a_world_is_the_same_alone_and_in_a_batch(world):
    starts, seeds = [start(world), start(world, 4), start(world, 8)], [1, 2, 3]
    trajectory = torch.stack((AHEAD, LEFT, AHEAD))
    together, _ = roll(world, starts, seeds, [trajectory] * 3)
    for row in range(3):
        alone, _ = roll(world, [starts[row]], [seeds[row]], [trajectory[row : row + 1]] * 3)
        assert torch.equal(together[row], alone[0])


def test_a_step_leaves_the_old_state_as_it_is(world):
    state = world.reset([start(world)], [0])
    first = world.step(state, AHEAD[None])
    assert torch.equal(first.occupancy, world.step(state, AHEAD[None]).occupancy)


def test_a_car_that_stands_may_set_off_in_a_drawn_future_and_not_in_the_expected_one(world, untrained_model):
    model = copy.deepcopy(untrained_model)
    with torch.no_grad():
        model.motion.head.weight.zero_()  # everybody is foretold to stand
        model.motion.head.bias.zero_()
        last = model.departures.network[-1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([50.0, 1.6, 0.0, 3.2, 0.0]) * torch.tensor([1.0, 0.5, 1.0, 0.5, 1.0]))
    image = road_user_image(start(world).occupancy[-1:])
    there = image[0, :, :, 0].nonzero()[:, 0].float().mean()
    one = DiffusionWorld(model)
    memory = one.reset([start(world)], [0]).memory
    poses = memory.poses[:, -1:] + torch.zeros(1, 2, 3)
    drawn = [torch.Generator().manual_seed(0)]
    for generators, way in ((drawn, 4.0), (None, 0.0)):  # 3.2 m in a chunk, of voxels of 0.8 m
        known, _ = foresee(one.model, memory, poses, generators, one.follow_route)
        found = road_user_image(known.prior[:, 1])[0, :, :, 0].nonzero()[:, 0].float().mean()
        assert float(found - there) == pytest.approx(way, abs=0.3)


def test_a_car_that_stands_is_forecast_as_it_stood(untrained_model):
    model = copy.deepcopy(untrained_model)
    with torch.no_grad():
        model.motion.head.weight.zero_()
        model.motion.head.bias.zero_()
    world = DiffusionWorld(model, mode="mean")
    begin = replace(start(world), ego_pose=torch.zeros(4, 3))
    state = world.step(world.reset([begin], [0]), torch.zeros(1, 2, 3))
    car = begin.occupancy[-1] == CAR
    assert (state.occupancy[0][:, car] == CAR).all(), "whatever an untrained decoder makes of it"


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
    rounded = DiffusionWorld(copy.deepcopy(world.model).half().float())
    a, _ = roll(rounded, [start(world)], [5], [AHEAD[None]])
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
    with pytest.raises(CheckpointError, match="preset 'tiny'"):
        load_world_model(path, kind="tokenizer", preset="small")


def test_configurations_travel_through_json():
    import json

    for config in (small(), tiny()):
        assert WorldModelConfig.from_header(json.loads(json.dumps(config.to_header()))) == config
    with pytest.raises(ConfigurationError, match="unknown"):
        preset("huge")
