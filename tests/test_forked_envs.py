"""Environments in forked processes."""

import os
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

from occsora_sim.envs.drive import DriveEnv
from occsora_sim.grid import TINY
from occsora_sim.scenes.start import make_start
from occsora_sim.scenes.sumo_pool import SumoPool
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.replay import ReplayWorld
from occsora_sim.worlds.traffic import TrafficWorld

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

FORK = """
import os, torch, occsora_sim
torch.set_num_threads(2)
torch.ones(4_000_000).exp().sum()  # the parent's threads are there now
child = os.fork()
if child == 0:
    torch.ones(4_000_000).exp().sum()
    os._exit(10 + torch.get_num_threads())
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), torch.get_num_threads())
"""


def test_a_forked_child_computes_with_one_thread_and_its_parent_with_all():
    ran = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=120, check=True
    )
    assert ran.stdout.split() == ["11", "2"]


@contextmanager
def threads():
    """Lets torch compute with two threads, and sees to it that they are there."""
    given = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.ones(4_000_000).exp().sum()
    yield
    torch.set_num_threads(given)


@pytest.fixture(params=["replay", "generated"])
def make(request, straight_road, untrained_model):
    """Makes an environment in a small world."""
    world = ReplayWorld(TINY) if request.param == "replay" else DiffusionWorld(untrained_model, steps=1)
    starts = [make_start(straight_road(), 0, 6, TINY, history=4)]
    return partial(DriveEnv, world=world, scenes=starts, seconds=6.0)


def test_the_asynchronous_vector_environment_steps_as_the_synchronous(make):
    alone = gym.vector.SyncVectorEnv([make] * 2)
    action = np.array([[0.2, 0.0], [-0.2, 0.1]], dtype=np.float32)
    wanted = alone.reset(seed=3)[0], alone.step(action)[0]
    with threads():
        envs = gym.vector.AsyncVectorEnv([make] * 2, context="fork")
    try:
        envs.reset_async(seed=3)
        found = [envs.reset_wait(timeout=60)[0]]
        envs.step_async(action)
        found.append(envs.step_wait(timeout=60)[0])
    finally:
        envs.close(terminate=True)
    for one, two in zip(found, wanted, strict=True):
        assert all(np.array_equal(one[name], two[name]) for name in two)


def test_a_pool_of_stable_baselines_steps(make):
    pools = pytest.importorskip("stable_baselines3.common.vec_env", reason="the extra `rl`")
    with threads():
        envs = pools.SubprocVecEnv([make] * 2, start_method="fork")
    try:
        for remote in envs.remotes:
            remote.send(("reset", (0, {})))
            assert remote.poll(60), "the child waits for threads that it does not have"
            assert remote.recv()[0]["occupancy"].shape == (2, *TINY.shape)
        envs.step_async(np.zeros((2, 2), dtype=np.float32))
        assert all(remote.poll(60) for remote in envs.remotes)
        assert envs.step_wait()[1].shape == (2,)
    finally:
        for process in envs.processes:
            process.terminate()


def test_a_forked_child_leaves_the_workers_and_towns_of_its_parents_traffic_alone(monkeypatch):
    world, closed = TrafficWorld(TINY), []
    folder, parent = world._folder, os.getpid()
    monkeypatch.setattr(SumoPool, "close", lambda pool: closed.append(os.getpid()))
    monkeypatch.setattr(world._pool, "_workers", [object()])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            fresh = world.processes() == [] and world._folder != folder
            world.close()
            world._end()
            status = 0 if fresh and not world._folder.exists() and closed == [os.getpid()] * 2 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert folder.is_dir() and len(world._pool._workers) == 1
    world._end()
    assert closed == [parent] and not folder.exists()
