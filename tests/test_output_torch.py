"""The vector environment whose output stays tensors: its contract, its autoreset, and that nothing waits."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from occsora_sim import constants
from occsora_sim.envs import wrappers
from occsora_sim.envs.birdseye import _axes
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.pooled_episodes import PooledEpisodes
from occsora_sim.errors import ActionError, ConfigurationError
from occsora_sim.geometry import compose
from occsora_sim.grid import TINY, _centres
from occsora_sim.scenes.start import make_start
from occsora_sim.scoring.driving import _ground_cells
from occsora_sim.scoring.footprint import footprint_lattice
from occsora_sim.watch import Operations, Watch, mark
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.protocol import WorldState
from occsora_sim.worlds.replay import ReplayWorld

DRIVE = "OccSora/Drive-v0"


class Coasting(DiffusionWorld):
    """A generated world in which nothing is drawn: the ego drives, and sees what it saw; nothing waits."""

    def step(self, state: WorldState, trajectories: torch.Tensor) -> WorldState:
        frames = trajectories.shape[1]
        poses = compose(state.memory.poses[:, -1:].expand(-1, frames, -1), trajectories)
        key = state.memory.key
        memory = replace(
            state.memory,
            poses=torch.cat((state.memory.poses, poses), dim=1)[:, frames:],
            key=torch.stack((key[:, 0], key[:, 1] + frames), dim=1),
        )
        seen = state.occupancy[:, -1:].expand(-1, frames, -1, -1, -1)
        return WorldState(occupancy=seen, ego_pose=poses, memory=memory, users=memory.users)


@pytest.fixture(scope="module")
def options(straight_road, untrained_model):
    """Keywords of a small environment: four starts on a road."""
    scene = straight_road(cars=[(30.0, 3.0, 5.0)], steps=61)
    world = Coasting(untrained_model, steps=1)
    starts = [make_start(scene, 0, step, world.grid, history=4) for step in (3, 4, 5, 6)]
    return {"world": world, "scenes": starts, "seconds": 3.0, "observation": "policy", "road_users": 4}


def make(options, count=3, **more) -> Any:
    return gym.make_vec(DRIVE, num_envs=count, output="torch", **{**options, **more})


def leaves(tree, path=""):
    """Tensors and arrays by their path in nested dictionaries."""
    for name, value in tree.items():
        yield from leaves(value, f"{path}/{name}") if isinstance(value, dict) else [(f"{path}/{name}", value)]


AHEAD = torch.tensor([[0.4, 0.0], [0.1, 0.02], [-0.2, 0.0]])


def test_everything_that_comes_back_is_a_tensor(options):
    env = make(options)
    observation, infos = env.reset(seed=1)
    for _ in range(2):
        assert all(isinstance(value, torch.Tensor) for _, value in leaves({**observation, **infos}))
        assert {name: value.dtype for name, value in observation.items()} == {
            "birdseye": torch.uint8, "road_users": torch.float32, "ego": torch.float32, "route": torch.float32,
        }  # fmt: skip
        assert env.observation_space.contains({name: value.numpy() for name, value in observation.items()})
        observation, reward, terminated, truncated, infos = env.step(AHEAD)
        assert reward.shape == terminated.shape == truncated.shape == (3,)
        assert reward.dtype == torch.float32 and terminated.dtype == truncated.dtype == torch.bool


def test_until_an_end_tensors_hold_what_arrays_hold(options):
    ours, theirs = make(options), gym.make_vec(DRIVE, num_envs=3, **options)
    found: tuple[Any, ...] = ours.reset(seed=7)
    wanted: tuple[Any, ...] = theirs.reset(seed=7)
    for step in range(3):
        for (path, mine), (other, his) in zip(
            sorted(leaves(found[0] | found[-1])), sorted(leaves(wanted[0] | wanted[-1])), strict=True
        ):
            assert path == other
            np.testing.assert_array_equal(mine.numpy(), his, err_msg=f"{step} {path}")
        for mine, his in zip(found[1:-1], wanted[1:-1], strict=True):
            np.testing.assert_array_equal(mine.numpy(), his)
        found, wanted = ours.step(AHEAD), theirs.step(AHEAD.numpy())


def test_rows_that_end_take_the_next_of_the_pool_in_worlds_of_their_own_seeds(options):
    env = make(options, pool=2, seconds=2.0)
    env.reset(seed=3)
    pooled, seeds = env.episodes.pool.start.tolist(), env.state.world.memory.key[:, 0].tolist()
    ends = [env.step(AHEAD)[3].tolist() for _ in range(2)]
    assert ends == [[False] * 3, [True] * 3]
    _, reward, terminated, truncated, infos = env.step(torch.full((3, 2), torch.nan))
    assert reward.tolist() == [0, 0, 0] and not (terminated | truncated).any()
    assert infos["start"].tolist() == [pooled[0], pooled[1], pooled[0]]
    assert infos["progress"].tolist() == [0, 0, 0] and infos["_progress"].all()
    assert not infos["_episode_score"].any() and not infos["terms"]["_nc"].any()
    key = env.state.world.memory.key
    assert key[:, 1].tolist() == [0, 0, 0] and len({*seeds, *key[:, 0].tolist()}) == 6
    _, _, _, truncated, infos = env.step(AHEAD)
    assert not truncated.any() and infos["episode_score"]["seconds"].tolist() == [1, 1, 1]
    assert infos["_episode_score"].all()


def test_at_once_the_last_observation_and_info_are_handed_over(options):
    env, alone = make(options, autoreset="same_step", seconds=1.0), make(options, seconds=1.0)
    env.reset(seed=3), alone.reset(seed=3)
    last, reward, _, _, told = alone.step(AHEAD)
    observation, rewarded, _, truncated, infos = env.step(AHEAD)
    assert truncated.all() and torch.equal(reward, rewarded)
    assert infos["_final_obs"].all() and infos["_final_info"].all() and not infos["_reward_terms"].any()
    for name, value in last.items():
        assert torch.equal(infos["final_obs"][name], value) and value.shape == observation[name].shape
    assert torch.equal(infos["final_info"]["episode_score"]["score"], told["episode_score"]["score"])
    assert infos["progress"].tolist() == [0, 0, 0]
    again = alone.step(AHEAD)[0]  # which is the step that begins anew
    assert all(torch.equal(again[name], value) for name, value in observation.items())


def test_an_end_of_one_row_leaves_the_others_alone(options):
    short, long = make(options, seconds=2.0), make(options, seconds=9.0)
    mask = np.array([False, True, True])  # begin a step later than the first row
    for env in (short, long):
        env.reset(seed=5), env.step(AHEAD), env.reset(options={"reset_mask": mask})
    for ends in (True, False):
        (sight, reward, _, truncated, _), other = short.step(AHEAD), long.step(AHEAD)
        assert truncated.tolist() == [ends, not ends, not ends] and not other[3].any()
        assert all(torch.equal(value[1:], other[0][name][1:]) for name, value in sight.items())
        assert torch.equal(reward[1:], other[1][1:])
    assert not torch.equal(sight["ego"][0], other[0]["ego"][0])


def watched(env, actions):
    """What is seen of a step, of which all that the environment holds is on the device."""
    mark(env.episodes.state, vars(env.episodes), actions)
    with Watch() as watch, Operations() as operations:
        observation, *found, infos = env.step(actions)
    assert all(value.there for _, value in leaves({**observation, **infos})) and all(
        one.there for one in found
    )
    return watch, operations


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_looking_at_who_has_ended_changes_nothing(options, autoreset):
    seen = ("occupancy", "birdseye", "road_users", "ego", "route")
    envs = [make(options, seconds=1.5, pool=2, autoreset=autoreset, observation=seen) for _ in range(2)]
    told: list[list[Any]] = [[], []]
    for number, (env, kept) in enumerate(zip(envs, told, strict=True)):
        assert env.episodes.looks  # on a CPU
        env.episodes.looks = number == 0
        mask = {"reset_mask": np.array([True, False, False])}
        kept += [env.reset(seed=0), env.step(AHEAD), env.reset(options=mask)]
        kept += [env.step(AHEAD) for _ in range(4)]  # rows end at different times
    for one, other in zip(*told, strict=True):
        parts: tuple[list[Any], ...] = ([], [])
        for found, part in zip((one, other), parts, strict=True):
            part += [value for held in found if isinstance(held, dict) for value in leaves(held)]
            part += [("", value) for value in found if isinstance(value, torch.Tensor)]
        for (path, mine), (_, theirs) in zip(*parts, strict=True):
            assert torch.equal(mine, theirs), path


@pytest.mark.parametrize("action", ["controls", "trajectory", "manoeuvre"])
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_a_step_waits_for_nothing_and_takes_as_many_operations_for_any_batch(options, action, autoreset):
    counts = set()
    for count in (1, 3):
        env = make(options, count, autoreset=autoreset, action=action, seconds=2.0, pool=2)
        env.reset(seed=0)
        env.episodes.looks = False  # as on a device that is not the host
        actions = torch.zeros(env.action_space.shape).to(
            torch.int64 if action == "manoeuvre" else torch.float32
        )
        for cache in (constants._made, constants._span, _centres, footprint_lattice, _ground_cells, _axes):
            cache.cache_clear()
        watched(env, actions)  # in which constants are made
        for _ in range(3):  # an end and a beginning are among them
            watch, operations = watched(env, actions)
            assert watch.waits == watch.mixed == [] and watch.calls > 100
            counts.add(operations.count)
    assert len(counts) == 1


@pytest.mark.parametrize(("tiles", "most"), [(0, 3000), (1, 4800)])
def test_with_a_budget_of_tiles_a_step_of_the_whole_world_waits_for_nothing(options, tiles, most):
    """From action to observation, ground drawn and road users moved; the same operations for any batch."""
    counts = set()
    for count in (2, 4):
        world = DiffusionWorld(options["world"].model, tiles=tiles, ahead=0.0 if tiles else 40.0)
        env = make({**options, "world": world}, count, seconds=2.0, pool=2)
        env.reset(seed=0)
        env.episodes.looks = False
        actions = torch.zeros(env.action_space.shape)
        with Watch():  # in which constants are made
            env.step(actions)
        mark(env.episodes.state, vars(env.episodes), world.model, world.ground, actions)
        for _ in range(2):
            with Watch() as watch, Operations() as operations:
                env.step(actions)
            assert watch.waits == [] and watch.calls > 1000
            counts.add(operations.count)
    assert len(counts) == 1 and counts.pop() <= most


def test_epdms_makes_nothing_wait_either(options):
    env = make(options, 2, pool=2, score={"kind": "epdms"})
    env.reset(seed=0)
    env.episodes.looks = False
    watched(env, torch.zeros(2, 2))  # in which constants are made
    for _ in range(3):
        assert watched(env, torch.zeros(2, 2))[0].waits == []


def test_actions_are_brought_into_the_space(options):
    env, other = make(options), make(options)
    env.reset(seed=0), other.reset(seed=0)
    wild = torch.tensor([[7.0, 0.0], [torch.nan, 0.1], [-torch.inf, 0.0]])
    one, two = env.step(wild), other.step(torch.tensor([[1.0, 0.0], [0.0, 0.1], [-1.0, 0.0]]))
    assert torch.equal(one[0]["ego"], two[0]["ego"]) and torch.equal(one[1], two[1])
    with pytest.raises(ActionError, match=r"^action: shape \(2, 2\), expected \(3, 2\)"):
        env.step(wild[:2])
    env = make(options, action="manoeuvre")
    env.reset(seed=0)
    assert env.step(torch.tensor([0, 99, -5]))[0]["ego"].isfinite().all()


@pytest.mark.parametrize("asked", [{"seed": 3}, {"options": {"vehicles": 9.0}}])
def test_what_rows_of_the_pool_cannot_be_given_is_refused_and_nothing_changes(options, asked):
    env, other = make(options), make(options)
    env.reset(seed=0), other.reset(seed=0)
    mask = {"reset_mask": np.array([True, False, False])}
    with pytest.raises(ConfigurationError, match="take the next of the pool"):
        env.reset(seed=asked.get("seed"), options={**mask, **asked.get("options", {})})
    assert torch.equal(env.step(AHEAD)[0]["ego"], other.step(AHEAD)[0]["ego"])


def test_a_mask_lets_rows_begin_with_the_next_of_the_pool(options):
    env = make(options)
    env.reset(seed=0)
    env.step(AHEAD)
    mask = np.array([False, True, True])
    infos = env.reset(options={"reset_mask": mask})[1]
    assert infos["_start"].tolist() == mask.tolist()
    assert infos["start"][1:].tolist() == env.episodes.pool.start[:2].tolist()
    infos = env.step(AHEAD)[4]
    assert infos["episode_score"]["seconds"].tolist() == [2, 1, 1]
    with pytest.raises(ConfigurationError, match=r"^reset: start with a reset_mask[^\n]+$"):
        env.reset(options={"reset_mask": mask, "start": 0})


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_a_recording_is_rolled_on_from_the_host_and_handed_over_as_tensors(straight_road, autoreset):
    scene = straight_road(cars=[(60.0, 0.0, 1.0)])
    given: dict[str, Any] = {
        "world": ReplayWorld(TINY),
        "scenes": [make_start(scene, 0, 2, TINY, history=3)],
        "seconds": 2.0,
    }
    given |= {"observation": "policy", "autoreset": autoreset}
    ours, theirs = make(given), gym.make_vec(DRIVE, num_envs=3, **given)
    assert not isinstance(ours.episodes, PooledEpisodes)
    assert torch.equal(
        ours.reset(seed=0)[0]["birdseye"], torch.from_numpy(theirs.reset(seed=0)[0]["birdseye"])
    )
    for _ in range(3):
        found, wanted = ours.step(AHEAD), theirs.step(AHEAD.numpy())
        assert all(isinstance(value, torch.Tensor) for _, value in leaves(found[-1]))
        np.testing.assert_array_equal(found[1].numpy(), wanted[1])
        for row in np.flatnonzero(wanted[-1].get("_final_obs", [])):
            for name, value in wanted[-1]["final_obs"][row].items():
                np.testing.assert_array_equal(found[-1]["final_obs"][name][row].numpy(), value)


def test_a_single_environment_gives_arrays(options):
    with pytest.raises(ConfigurationError, match=r"^output=[^\n]*make_vec$"):
        DriveEnv(**options, output="torch")
    with pytest.raises(ConfigurationError, match=r"^output='jax'[^\n]+$"):
        DriveEnv(**options, output="jax")


def test_the_learners_wrapper_takes_tensors_and_others_say_that_they_need_arrays(options):
    options = {**options, "autoreset": "same_step", "seconds": 1.0}
    ours = wrappers.learner(make(options), pool=2)
    theirs = wrappers.learner(gym.make_vec(DRIVE, num_envs=3, **options), pool=2)
    found, wanted = ours.reset(seed=2)[0], theirs.reset(seed=2)[0]
    infos, others = ours.step(AHEAD)[-1], theirs.step(AHEAD.numpy())[-1]
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-6)
        for row in range(3):
            np.testing.assert_allclose(
                infos["final_obs"][name][row].numpy(), others["final_obs"][row][name], rtol=1e-6
            )
    for wrap in (wrappers.flat, lambda env: wrappers.frame_stack(env, 2)):
        with pytest.raises(ConfigurationError, match=r"^[^\n]+output=\"numpy\"$"):
            wrap(make(options))
