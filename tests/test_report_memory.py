"""Reports take as much memory for many windows, starts or clips as for a few; each test would notice a leak."""

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from occsora_sim.grid import NUM_CLASSES, TINY
from occsora_sim.models.occupancy_encoder import OccupancyEncoder, OccupancyEncoderConfig
from occsora_sim.scoring import allocator
from occsora_sim.scoring.clip_models import GIVEN, DrawnClip
from occsora_sim.scoring.clip_report import clip_report
from occsora_sim.scoring.control import control_report
from occsora_sim.scoring.drift import drift_report
from occsora_sim.scoring.examples import forecast_examples
from occsora_sim.scoring.forecasting import HORIZONS
from occsora_sim.scoring.generation import generation_report
from occsora_sim.scoring.long_rollout import drift_starts
from occsora_sim.scoring.revisit import Block, revisit_report
from occsora_sim.scoring.world_report import CONTESTANTS, evaluate_world
from occsora_sim.worlds.protocol import WorldState
from occsora_sim.worlds.replay import ReplayWorld

FRAME = int(np.prod(TINY.shape))
"""Bytes of a frame."""

COUNTS = len(CONTESTANTS) * len(HORIZONS) * NUM_CLASSES**2 * 8
"""Bytes of a scene's counts of voxels by class, of which the intervals are made; a fraction of a frame of `small`."""


def live() -> int:
    """Bytes of the tensors that were made since `gc.freeze` and are still there."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor:
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


class Still:
    """A generated world whose frames never change; a hoarder keeps one of every step."""

    frames_per_chunk, steps, grid = 2, 1, TINY

    def __init__(self, hoards: bool) -> None:
        self.hoards = hoards
        self.kept: list[torch.Tensor] = []

    def variant(self, **options):
        return self

    def reset(self, starts, seeds):
        frames = torch.stack([start.occupancy[-1:] for start in starts])
        return WorldState(occupancy=frames, ego_pose=torch.zeros(len(starts), 1, 3), memory=None)

    def step(self, state, trajectories):
        frames = state.occupancy[:, -1:].repeat(1, trajectories.shape[1], 1, 1, 1)
        if self.hoards:
            self.kept.append(frames[:1, :1].clone())
        return WorldState(occupancy=frames, ego_pose=state.ego_pose, memory=None)

    def reconstruct(self, state, trajectories, future):
        return self.step(state, trajectories)


class Replay(ReplayWorld):
    """A recorded world; a hoarder keeps a frame of every step."""

    def __init__(self, hoards: bool) -> None:
        super().__init__(TINY)
        self.hoards = hoards
        self.kept: list[torch.Tensor] = []

    def step(self, state, trajectories):
        after = super().step(state, trajectories)
        if self.hoards:
            self.kept.append(after.occupancy[:1, -1:].clone())
        return after


class Clips:
    """Answers with the recording; a hoarder keeps a frame of every clip."""

    preset, parameters, grid = "known", 0, TINY
    frames = 12

    def __init__(self, hoards: bool) -> None:
        self.hoards = hoards
        self.kept: list[torch.Tensor] = []

    def reconstruct(self, clip):
        return clip.labels[GIVEN:].clone()

    def draw(self, poses, seed):
        frames = torch.zeros(self.frames - GIVEN + 1, *TINY.shape, dtype=torch.uint8)
        if self.hoards:
            self.kept.append(frames[:1].clone())
        return DrawnClip(frames=frames, seconds=0.0, seconds_in_full=0.0)


@pytest.fixture(scope="module")
def encoder() -> OccupancyEncoder:
    torch.manual_seed(0)
    return OccupancyEncoder(OccupancyEncoderConfig()).eval()


@pytest.fixture
def street(straight_road):
    """Small in metres, so that its raster is quickly made, and long in time."""
    return straight_road(cars=[(12.0, 2.0, 1.0)], steps=161, ego_speed=1.0, length=160.0)


def forecast(street, encoder, hoards, count, told):
    evaluate_world(Still(hoards), [street] * 2, windows_per_scene=count, batch=2, on_window=told)  # type: ignore[arg-type]


def scenes(street, encoder, hoards, count, told):
    evaluate_world(Still(hoards), [street] * count, windows_per_scene=2, batch=2, on_window=told)  # type: ignore[arg-type]


def pictures(street, encoder, hoards, count, told):
    forecast_examples(Still(hoards), [street], 4 + count, on_window=told)  # type: ignore[arg-type]


def control(street, encoder, hoards, count, told):
    starts = drift_starts([street], 1, TINY) * count
    control_report(Replay(hoards), starts, seconds=1.0, batch=1, on_start=told)


def drift(street, encoder, hoards, count, told):
    starts = drift_starts([street], 1, TINY) * count
    drift_report(
        Replay(hoards),
        starts,
        [street],
        seconds=2.0,
        batch=1,
        clips_per_scene=6,
        encoder=encoder,
        on_chunk=told,
    )


def generation(street, encoder, hoards, count, told):
    starts = drift_starts([street], 1, TINY) * count
    generation_report(
        Replay(hoards),
        starts,
        [street],
        encoder,
        "e",
        seconds=4.0,
        batch=2,
        frames_per_scene=40,
        on_chunk=told,
    )


def revisit(street, encoder, hoards, count, told):
    starts = drift_starts([street], 1, TINY) * count
    block = Block(side=12.0, radius=3.0)
    revisit_report(Replay(hoards), starts, block=block, batch=1, on_chunk=told)


def clips(street, encoder, hoards, count, told):
    clip_report(
        {"one": Clips(hoards)}, [street], encoder, "e", clips=count, frames_per_scene=40, on_step=told
    )


REPORTS: list[Callable[..., None]] = [forecast, scenes, pictures, control, drift, generation, revisit, clips]


@pytest.fixture
def held(street, encoder, monkeypatch):
    """Measures a report: the largest live memory [bytes] while it works on `count`, and how often it gave back."""
    trims: list[int] = []
    monkeypatch.setattr(allocator, "_TRIM", trims.append)

    def measure(report, hoards, count):
        seen: list[int] = []
        trims.clear()
        gc.collect()
        gc.freeze()
        try:
            report(street, encoder, hoards, count, lambda *_: seen.append(live()))
        finally:
            gc.unfreeze()
        return max(seen), len(trims)

    return measure


@pytest.mark.slow
@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.__name__)
def test_six_take_no_more_memory_than_two_and_a_leak_is_noticed(held, report):
    (few, trims), (many, more) = held(report, False, 2), held(report, False, 6)
    counts = 4 * COUNTS if report is scenes else 0
    assert many - few < counts + FRAME / 2, f"{(many - few) / FRAME:.1f} frames more are held"
    assert more >= trims + 4, "what is free is given back with each of them"
    leaked = held(report, True, 6)[0] - held(report, True, 2)[0]
    assert leaked > 3 * FRAME


RESIDENT = Path("/proc/self/statm")


@pytest.mark.skipif(allocator._TRIM is None or not RESIDENT.exists(), reason="needs glibc and /proc")
def test_the_holes_of_the_heap_are_given_back():
    def resident() -> float:
        return int(RESIDENT.read_text().split()[1]) * 4096 / 1e6

    made = [torch.ones(100_000, dtype=torch.uint8) for _ in range(800)]  # 80 MB
    made = made[::8]  # the heap's end is in use
    before = resident()
    allocator.give_back()
    assert before - resident() > 40 and len(made) == 100
