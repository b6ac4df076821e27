"""Claims about what stands there on return."""

import math
from dataclasses import replace

import pytest
import torch
from untrained import untrained_world_model

from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import relative
from occsora_sim.grid import Grid
from occsora_sim.scenes.start import make_start
from occsora_sim.scoring.revisit import Block, revisit_report
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.replay import ReplayWorld

GRID = Grid(shape=(48, 48, 16), voxel=0.8, lower=(-19.2, -19.2, -1.0))
BLOCK = Block(side=50.0, radius=10.0, speed=8.0)


class Fading(ReplayWorld):
    """A world that moves everything by two voxels after some steps."""

    steps = 0

    def step(self, state, trajectories):
        self.steps += 1
        state = super().step(state, trajectories)
        if self.steps > 10:
            state = replace(state, occupancy=state.occupancy.roll(2, dims=2))
        return state


@pytest.fixture
def starts(built_street):
    return [make_start(built_street(steps=41), 0, 10, GRID)]


def test_a_round_closes_and_keeps_its_pace():
    path = BLOCK.round()
    assert torch.allclose(path[-1, :2], torch.zeros(2, dtype=torch.float64), atol=1e-9)
    assert float(torch.remainder(path[-1, 2] + 1e-9, 2 * math.pi)) == pytest.approx(0, abs=1e-6)
    steps = relative(torch.cat((path[-1:], path[:-1])), path)[:, :2].norm(dim=-1)
    assert float(steps.max()) == pytest.approx(BLOCK.metres / len(path), rel=1e-6)
    assert float(steps.min()) > 0.98 * float(steps.max())  # a corner's chord is a little shorter
    assert float(path[:, 1].max()) == pytest.approx(50.0, abs=0.01)


def test_a_recorded_world_is_the_same_on_return_and_a_fading_one_is_not(starts):
    told = []
    report = revisit_report(ReplayWorld(GRID), starts, block=BLOCK, on_chunk=lambda *n: told.append(n))
    assert report["iou"] == report["hidden"] == 1.0 and report["kept"]
    assert told[-1][0] == told[-1][1] == len(told)
    faded = revisit_report(Fading(GRID), starts, block=BLOCK)
    assert faded["hidden"] < 0.7 and not faded["kept"]


def test_a_generated_world_remembers_what_was_out_of_view(built_street):
    torch.manual_seed(0)
    world = DiffusionWorld(untrained_world_model(), steps=1)
    starts = [make_start(built_street(steps=41), 0, step, world.grid) for step in (10, 20)]
    report = revisit_report(world, starts, block=BLOCK, batch=1)
    assert report["hidden"] > 0.95 and report["kept"] and report["starts"] == 2


def test_blocks_without_sense_and_missing_starts_are_refused():
    with pytest.raises(ConfigurationError, match="side"):
        Block(side=10.0, radius=8.0)
    with pytest.raises(ConfigurationError, match="0 starts"):
        revisit_report(ReplayWorld(GRID), [])
