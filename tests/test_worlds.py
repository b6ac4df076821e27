"""One protocol, three worlds: what an environment may count on, whichever it drives."""

import ctypes
import gc
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import ActionError, ConfigurationError
from occsora_sim.geometry import compose
from occsora_sim.grid import DYNAMIC, FREE, Grid, class_mask
from occsora_sim.presets import tiny
from occsora_sim.scenes.start import Start, make_start
from occsora_sim.scenes.town import TownConfig
from occsora_sim.scenes.traffic import make_town
from occsora_sim.voxels.paint import paint_road_users
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.protocol import World
from occsora_sim.worlds.replay import ReplayWorld
from occsora_sim.worlds.traffic import TrafficWorld

TOWN = TownConfig(extent=90.0, block=90.0, fringe=50.0, warm_up=8.0, duration=10.0, egos=6)
GRID = tiny().grid
AHEAD = torch.tensor([[3.0, 0.0, 0.0], [6.0, 0.0, 0.0]])
LEFT = torch.tensor([[2.0, 0.4, 0.3], [3.8, 1.3, 0.6]])
STILL = torch.zeros(2, 3)


@pytest.fixture(scope="module")
def starts() -> list[Start]:
    """Three moments of one small town."""
    scene = make_town(7, TOWN)
    return [make_start(scene, ego, 5, GRID, history=4) for ego in (0, 1, 2)]


@pytest.fixture(scope="module", params=["diffusion", "replay", "traffic"])
def world(request, untrained_model):
    makers: dict[str, Callable[[], World]] = {
        "diffusion": lambda: DiffusionWorld(untrained_model, steps=1),
        "replay": lambda: ReplayWorld(GRID),
        "traffic": lambda: TrafficWorld(GRID),
    }
    made = makers[request.param]()
    yield made
    if isinstance(made, TrafficWorld):
        made.close()


def roll(world, starts, seeds, *chunks):
    """All frames after the start: occupancy (b, t, x, y, z) and the last state."""
    state, frames = world.reset(starts, seeds), []
    for chunk in chunks:
        state = world.step(state, chunk)
        frames.append(state.occupancy)
    return torch.cat(frames, dim=1), state


def test_a_world_begins_with_the_last_frame_of_its_start(world, starts):
    state = world.reset(starts, [0, 1, 2])
    assert torch.equal(state.occupancy, torch.stack([start.occupancy[-1:] for start in starts]))
    assert torch.equal(state.ego_pose, torch.stack([start.ego_pose[-1:] for start in starts]))


@pytest.mark.parametrize("frames", [1, 2])
def test_a_step_makes_a_frame_for_each_pose(world, starts, frames):
    state = world.step(world.reset(starts, [0, 1, 2]), torch.stack((AHEAD, LEFT, STILL))[:, :frames])
    assert state.occupancy.shape == (3, frames, *GRID.shape) and state.occupancy.dtype == torch.uint8
    assert int(state.occupancy.max()) == FREE and len(state.occupancy.unique()) > 3
    assert state.ego_pose.shape == (3, frames, 3) and state.ego_pose.dtype == torch.float32


def test_the_ego_goes_where_its_trajectory_leads(world, starts):
    before = world.reset(starts[:1], [0])
    after = world.step(before, LEFT[None])
    wanted = compose(before.ego_pose[0, -1].double().expand(2, 3), LEFT.double()).float()
    torch.testing.assert_close(after.ego_pose[0], wanted)
    # the next trajectory begins where this one ended
    last = world.step(after, LEFT[None])
    wanted = compose(after.ego_pose[0, -1].double().expand(2, 3), LEFT.double()).float()
    torch.testing.assert_close(last.ego_pose[0], wanted)


def test_the_same_seed_and_actions_give_the_same_rollout(world, starts):
    chunks = [AHEAD[None], LEFT[None], STILL[None]]
    assert torch.equal(*(roll(world, starts[:1], [5], *chunks)[0] for _ in range(2)))


def test_a_world_is_the_same_alone_and_in_a_batch(world, starts):
    chunk = torch.stack((AHEAD, LEFT, STILL))
    together, state = roll(world, starts, [1, 2, 3], chunk, chunk)
    for row in range(3):
        alone, last = roll(world, starts[row : row + 1], [row + 1], *[chunk[row : row + 1]] * 2)
        assert torch.equal(together[row], alone[0])
        assert torch.equal(state.ego_pose[row], last.ego_pose[0])


def test_an_old_state_can_be_stepped_again(world, starts):
    state = world.step(world.reset(starts[:1], [3]), AHEAD[None])
    kept = state.occupancy.clone()
    first = world.step(state, AHEAD[None])
    other = world.step(state, STILL[None])
    world.step(world.step(first, LEFT[None]), LEFT[None])
    assert torch.equal(state.occupancy, kept)
    again = world.step(state, AHEAD[None])
    assert torch.equal(again.occupancy, first.occupancy) and torch.equal(again.ego_pose, first.ego_pose)
    assert not torch.equal(other.occupancy, first.occupancy)


def test_picked_rows_go_on_as_they_would_have(world, starts):
    chunk = torch.stack((AHEAD, LEFT, STILL))
    state = world.step(world.reset(starts, [1, 2, 3]), chunk)
    whole = world.step(state, chunk)
    part = world.step(world.select(state, [2, 0]), chunk[[2, 0]])
    assert torch.equal(part.occupancy, whole.occupancy[[2, 0]])
    branched = world.step(world.select(state, [1, 1]), torch.stack((STILL, LEFT)))
    assert torch.equal(branched.occupancy[1], whole.occupancy[1])
    assert not torch.equal(branched.occupancy[0], whole.occupancy[1])


def test_put_rows_go_on_as_they_would_have(world, starts):
    chunk = torch.stack((AHEAD, LEFT))
    state = world.step(world.reset(starts[:2], [1, 2]), chunk)
    fresh = world.reset(starts[2:], [3])
    mixed = world.replace(state, [0], fresh)
    assert torch.equal(mixed.occupancy[0], fresh.occupancy[0])
    assert torch.equal(mixed.occupancy[1, -1], state.occupancy[1, -1])
    after = world.step(mixed, chunk)
    assert torch.equal(after.occupancy[0], world.step(fresh, chunk[:1]).occupancy[0])
    assert torch.equal(after.occupancy[1], world.step(state, chunk).occupancy[1])


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(2, 2, 3),
        torch.zeros(1, 3, 3),
        torch.zeros(1, 0, 3),
        torch.zeros(1, 2, 2),
        torch.zeros(2, 3),
        torch.full((1, 2, 3), torch.nan),
        torch.full((1, 1, 3), torch.inf),
    ],
    ids=lambda bad: f"{tuple(bad.shape)}",
)
def test_a_trajectory_that_cannot_be_is_refused_in_one_line(world, starts, bad):
    state = world.reset(starts[:1], [0])
    with pytest.raises(ActionError, match=r"^[^\n]+$"):
        world.step(state, bad)
    world.step(state, AHEAD[None])  # nothing is broken by it


def test_starts_that_do_not_fit_are_refused_in_one_line(world, starts):
    with pytest.raises(ConfigurationError, match=r"^[^\n]*seed[^\n]*$"):
        world.reset(starts, [0])
    with pytest.raises(ConfigurationError, match=r"^[^\n]+$"):
        world.reset([], [])
    other = make_start(starts[0].source[0], 0, 5, Grid(shape=(40, 40, 16), voxel=0.8), history=4)
    with pytest.raises(ConfigurationError, match=r"^[^\n]*grid[^\n]*$"):
        world.reset([other], [0])


def test_the_environment_checker_finds_nothing(world, starts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(DriveEnv(world=world, scenes=starts, seconds=3.0), skip_render_check=True)


def test_an_episode_is_the_same_alone_and_in_a_vector_environment(world, starts):
    options = {"world": world, "scenes": starts, "seconds": 3.0}
    batch, alone = DriveVectorEnv(num_envs=2, **options), DriveEnv(**options)
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, size=(6, 2, 2)).astype(np.float32)
    observation, _ = batch.reset(seed=7)
    first, _ = alone.reset(seed=8)
    assert np.array_equal(observation["occupancy"][1], first["occupancy"])
    for action in actions:
        observation, reward, terminated, truncated, _ = batch.step(action)
        one = alone.step(action[1])
        assert np.array_equal(observation["occupancy"][1], one[0]["occupancy"]) and one[1] == reward[1]
        assert one[2:4] == (terminated[1], truncated[1])
        if one[2] or one[3]:
            break


def resident(pids):
    """Memory [MB] that processes hold."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * page / 1e6


def settled(world):
    """Memory [MB] of this process and the world's, without what is free but not given back."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
    return resident([os.getpid(), *(world.processes() if isinstance(world, TrafficWorld) else [])])


def soak(world, starts, steps):
    """Drive an environment for so many steps; those that only begin the next episode do not count.

    Returns how many episodes ended, and how many MB the memory grew in the second half of the steps: by then
    everything that is kept once has been kept.
    """
    env = DriveVectorEnv(num_envs=1, world=world, scenes=starts, seconds=10.0)
    rng, before, driven, ended, over = np.random.default_rng(0), 0.0, 0, 0, False
    env.reset(seed=0)
    while driven < steps:
        action = np.array([[rng.uniform(-0.4, 0.6), rng.uniform(-0.05, 0.05)]], dtype=np.float32)
        _, _, terminated, truncated, _ = env.step(action)
        driven += not over
        over = bool(terminated[0] or truncated[0])
        ended += over
        if driven == steps // 2 and not before:
            before = settled(world)
    return ended, settled(world) - before


FLAT = 1.5  # MB in 100 steps; one frame kept of each would be 3.7, and what is measured is 0.1
MEMORY = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")


@pytest.mark.slow
@MEMORY
def test_hundreds_of_steps_leave_the_memory_flat(world, starts):
    """Longer ones: scripts/soak.py."""
    ended, growth = soak(world, starts, 200)
    assert ended > 15
    assert growth < FLAT, f"the memory grew by {growth:.1f} MB in 100 steps"


class Hoarder(ReplayWorld):
    """A world with a leak: it keeps a copy of the last frame of every state."""

    def __init__(self):
        super().__init__(GRID)
        self.kept = []

    def step(self, state, trajectories):
        after = super().step(state, trajectories)
        self.kept.append(after.occupancy[:, -1:].clone())
        return after


@pytest.mark.slow
@MEMORY
def test_a_world_that_keeps_a_frame_a_step_would_be_noticed(starts):
    world = Hoarder()
    _, growth = soak(world, starts, 200)
    assert len(world.kept) == 200 and growth > FLAT


def test_road_users_are_read_off_at_each_frame_with_lasting_ids(world, starts):
    state = world.reset(starts, [1, 2, 3])
    before = state.users
    assert before.pose.shape[2] >= world.frames_per_chunk + 1
    told, mine = set(starts[0].users.id[0].tolist()) - {-1}, set(before.id[0, before.valid[0]].tolist())
    seen_alone = isinstance(world, DiffusionWorld)  # it begins with whom the history shows
    assert mine <= told and len(mine) > 3 if seen_alone else mine >= told
    state = world.step(state, torch.stack((AHEAD, LEFT, STILL)))
    for row in range(3):
        old = {int(one): slot for slot, one in enumerate(before.id[row]) if one >= 0}
        new = {int(one): slot for slot, one in enumerate(state.users.id[row]) if one >= 0}
        both = old.keys() & new.keys()
        assert (
            len(both) > (1 if seen_alone else 10)
            and int(starts[row].source[0].ego_track[starts[row].source[1]]) not in both
        )
        for one in both:
            was, now = before.pose[row, old[one]], state.users.pose[row, new[one]]
            assert (
                torch.equal(now[-3], was[-1])
                and before.label[row, old[one]] == state.users.label[row, new[one]]
            )
            moved = torch.linalg.norm(now[-1, :2] - now[-2, :2]) / 0.5
            assert float((moved - state.users.speed[row, new[one]]).abs()) < 2.5
    at_each = state.users.instants(2)
    assert torch.equal(at_each.now[1::2], state.users.now) and at_each.pose.shape[2] == 1
    frames, pose = state.occupancy.flatten(0, 1), state.ego_pose.flatten(0, 1)
    labels = paint_road_users(torch.full_like(frames, FREE), at_each, pose, GRID)
    # One who leaves within the chunk is not told any more.
    there = class_mask(DYNAMIC)[frames.long()]
    assert there.any() and (there & (labels != frames)).sum() <= 0.02 * there.sum()


def test_picked_and_put_worlds_keep_their_road_users(world, starts):
    state = world.reset(starts, [1, 2, 3])
    picked = world.select(state, [2, 0])
    assert torch.equal(picked.users.id, state.users.id[[2, 0]])
    put = world.replace(state, [1], world.select(state, [0]))
    assert torch.equal(put.users.id, state.users.id[[0, 0, 2]])
    assert torch.equal(put.users.pose, state.users.pose[[0, 0, 2]])
