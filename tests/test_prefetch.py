"""Claims on windows that other processes draw ahead: they are those that the sampler draws, in the order asked for."""

import multiprocessing

import pytest
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.presets import tiny
from occsora_sim.scenes.recorded import drawers_of
from occsora_sim.training.prefetch import Prefetcher
from occsora_sim.training.windows import Windows, WindowSampler

needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork"
)


@pytest.fixture
def road(straight_road):
    return straight_road(cars=[(20.0, 0.0, 6.0), (45.0, -2.0, 0.0)])


def sampler_of(scenes, **options) -> WindowSampler:
    return WindowSampler(scenes, tiny().grid, history=4, future=2, seed=3, **options)


def equal(a: Windows, b: Windows) -> bool:
    return torch.equal(a.labels, b.labels) and torch.equal(a.poses, b.poses)


@needs_fork
@pytest.mark.parametrize("workers", [0, 2])
def test_windows_drawn_ahead_are_those_of_the_sampler(road, workers):
    ahead = Prefetcher(sampler_of([road, road], workers=workers), workers, "cpu")
    alone = sampler_of([road, road])
    for count, step in ((2, 5), (2, 6), (2, 7), (3, 8), (2, 1)):  # in turn, another batch, a step back
        assert equal(ahead.draw(count, step), alone.draw(count, step))


@needs_fork
def test_voxelisers_made_by_processes_draw_what_others_draw(road):
    alone, together = drawers_of([road], tiny().grid)[0], drawers_of([road], tiny().grid, workers=1)[0]
    pose, time = torch.tensor([[12.0, 1.0, 0.3]]), torch.tensor([1.0])
    assert torch.equal(alone.frames(pose, time), together.frames(pose, time))


def test_processes_want_a_sampler_on_the_cpu(road):
    sampler = sampler_of([road])
    sampler.device = torch.device("meta")
    with pytest.raises(ConfigurationError, match="workers need the CPU"):
        Prefetcher(sampler, 1, "cpu")
