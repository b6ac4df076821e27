"""What the environment hands out, and what it is handed, is nobody else's memory."""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch

from occsora_sim.agents.episode import run_episodes
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.grid import TINY
from occsora_sim.scenes.start import Start, make_start
from occsora_sim.worlds.replay import ReplayWorld


@pytest.fixture
def options(straight_road):
    """A small environment that can be drawn, and imagines in its own world; episodes of two steps."""
    scene = straight_road(cars=[(60.0, 0.0, 1.0), (100.0, 3.0, -6.0)])
    starts = [make_start(scene, 0, step, TINY, history=3) for step in (2, 4)]
    seen = ("occupancy", "birdseye", "ego", "route")
    return {
        "world": ReplayWorld(TINY), "scenes": starts, "seconds": 2.0, "observation": seen, "imagination": "oracle",
    }  # fmt: skip


def arrays(value):
    """All arrays in a value, however deep."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return [value]
    if is_dataclass(value):
        value = [getattr(value, entry.name) for entry in fields(value)]
    if isinstance(value, dict):
        value = list(value.values())
    return (
        [array for part in value for array in arrays(part)]
        if isinstance(value, list | tuple | np.ndarray)
        else []
    )


def ruin(value):
    for array in arrays(value):
        array[...] = 1


def story(env, write):
    """All that five steps bring, with a picture and what is imagined before each; what is handed out is overwritten."""
    told: list[np.ndarray] = []
    plans = np.zeros((2, 2, 2, 2) if isinstance(env, DriveVectorEnv) else (2, 2, 2))

    def tell(given):
        told.extend(array.copy() for array in arrays(given))
        if write:
            ruin(given)

    tell(env.reset(seed=1))
    for _ in range(5):
        tell(env.imagine(plans, frames=True))
        tell(env.render())
        found = env.step(np.full(env.action_space.shape, 0.3, np.float32))
        tell(found)
        if not isinstance(env, DriveVectorEnv) and found[3]:
            tell(env.reset())
    return told


@pytest.mark.parametrize("autoreset", [None, "next_step", "same_step"])
def test_what_a_planner_writes_into_what_it_was_handed_changes_nothing(options, autoreset):
    def make():
        if autoreset is None:
            return DriveEnv(**options, render_mode="rgb_array")
        return DriveVectorEnv(num_envs=2, **options, autoreset=autoreset, render_mode="rgb_array")

    read, written = story(make(), False), story(make(), True)
    assert len(read) == len(written) > 40
    assert all(np.array_equal(one, two) for one, two in zip(read, written, strict=True))


def test_arrays_of_one_answer_share_no_memory(options):
    env = DriveEnv(**options)
    found = arrays([env.reset(seed=0), env.step(np.zeros(2))])
    for k, one in enumerate(found):
        assert not any(np.shares_memory(one, two) for two in found[k + 1 :])


class Scribbler:
    """An agent that fills one array with its actions again and again, remembers observations and writes into them."""

    def __init__(self, write):
        self.write, self.kept, self.copies = write, [], []

    def reset(self, n):
        self.actions, self.kept, self.copies = np.zeros((n, 2), np.float32), [], []

    def act(self, observation):
        if self.write:
            ruin(observation)
        self.kept.append(observation)
        self.copies.append({name: value.copy() for name, value in observation.items()})
        self.actions[:] = [[0.5, 0.0], [0.1, 0.0]] if len(self.kept) < 3 else [[-1.0, 0.0], [0.0, 0.0]]
        return self.actions


def test_an_agent_that_writes_and_one_that_remembers_drive_the_same_recorded_episodes(options):
    env = DriveEnv(**(options | {"seconds": 4.0}))
    agents = Scribbler(False), Scribbler(True)
    one, two = (run_episodes(env, agent, 2, batch=2, record=2) for agent in agents)
    for a, b in zip(one, two, strict=True):
        assert all(
            np.array_equal(x, y) for x, y in zip(arrays(a.recording), arrays(b.recording), strict=True)
        )
        assert a.summary == b.summary
    assert one[0].recording.actions[0, 0] == 0.5 and one[0].recording.actions[-1, 0] == -1.0
    for kept, copy in zip(agents[0].kept, agents[0].copies, strict=True):
        assert all(np.array_equal(kept[name], copy[name]) for name in copy), (
            "steps that follow change what was seen"
        )


def test_a_start_is_the_environments_own_once_it_is_given(options):
    given = options["scenes"][0]
    buffers = [getattr(given, name).numpy().copy() for name in ("occupancy", "ego_pose", "route")]
    start = Start(
        occupancy=torch.from_numpy(buffers[0]),
        ego_pose=torch.from_numpy(buffers[1]),
        route=torch.from_numpy(buffers[2]),
        source=given.source,
    )
    env = DriveEnv(**(options | {"scenes": [start]}))
    first = env.reset(seed=0)[0]
    ruin(buffers)
    again = env.reset(seed=0)[0]
    assert all(np.array_equal(first[name], again[name]) for name in first)
    plain = replace(
        start, occupancy=given.occupancy.numpy(), ego_pose=given.ego_pose.numpy(), route=given.route.numpy()
    )
    shown = DriveEnv(**(options | {"scenes": [plain]})).reset(seed=0)[0]
    assert all(np.array_equal(first[name], shown[name]) for name in first), "arrays of NumPy do as well"
