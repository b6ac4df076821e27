"""Claims on the control report: a recording obeys, a deaf world does not, a bare street proves nothing."""

import json

import pytest
import torch
from untrained import untrained_world_model

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import TINY
from occsora_sim.scenes.start import make_start
from occsora_sim.scoring.control import (
    MANOEUVRES,
    SWAPS,
    control_report,
    control_rows,
    manoeuvre,
    print_control_report,
)
from occsora_sim.vehicle import Vehicle
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.protocol import WorldState
from occsora_sim.worlds.replay import ReplayWorld


class DeafWorld(ReplayWorld):
    """Goes straight on at 6 m/s whatever it is told, and says that it obeyed."""

    def step(self, state, trajectories):
        own = torch.zeros_like(trajectories)
        own[..., 0] = 3.0 * torch.arange(1, trajectories.shape[1] + 1)
        shown, told = super().step(state, own), super().step(state, trajectories)
        return WorldState(occupancy=shown.occupancy, ego_pose=told.ego_pose, memory=shown.memory)


def begin(scene, count=1):
    return [make_start(scene, 0, 3 + 2 * k, TINY) for k in range(count)]


def asked(name, speed=6.0, turn=0.0, frames=6):
    speed, turn = (torch.tensor([value], dtype=torch.float64) for value in (speed, turn))
    return manoeuvre(name, speed, turn, frames, Vehicle())[0]


def test_manoeuvres_are_what_they_are_called():
    poses = {name: asked(name) for name in MANOEUVRES}
    assert poses["left"][-1, 2] > 0.8 and torch.allclose(
        poses["left"], poses["right"] * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    )
    assert float(poses["brake"][-1, 0]) == pytest.approx(6.0**2 / (2 * 4.0))  # stands after 4.5 m
    assert float(poses["straight"][-1, 0]) == pytest.approx(6 * 3 + 1.5 * 3**2 / 2)
    assert float(poses["keep"][-1, 0]) == pytest.approx(18.0)
    assert float(asked("keep", turn=0.3)[-1, 2]) == pytest.approx(0.9)
    assert float(asked("keep", speed=0.0)[-1].abs().sum()) == 0.0
    with pytest.raises(ConfigurationError, match="there are straight"):
        asked("fly")


def test_a_recording_obeys_and_a_swapped_prompt_fails(built_street, capsys):
    starts = begin(built_street(cars=[(20.0, 2.0, 4.0)]), 2)
    report = control_report(ReplayWorld(TINY), starts, seconds=2.0, batch=2)
    assert report["obeyed"] and report["swap_fails"] and report["differ"]
    for name in MANOEUVRES:
        error = report["manoeuvres"][name]
        assert error["chunks"] == 4 and error["metres"] < TINY.voxel / 2 and error["degrees"] < 1.0
    assert set(report["swapped"]) == {f"{a} as {b}" for a, b in SWAPS.items()}
    assert len(report["unlike"]) == 6 and json.dumps(report, allow_nan=False)
    print_control_report(report)
    assert "a swapped prompt fails: True" in " ".join(capsys.readouterr().out.split())
    assert len(control_rows(report)) == len(MANOEUVRES) + len(SWAPS)


def test_a_batch_changes_nothing(built_street):
    starts = begin(built_street(), 2)
    together = control_report(ReplayWorld(TINY), starts, seconds=1.0, batch=2)
    alone = control_report(ReplayWorld(TINY), starts, seconds=1.0, batch=1)
    for name, error in together["manoeuvres"].items():
        assert error["metres"] == pytest.approx(alone["manoeuvres"][name]["metres"], abs=1e-3)


def test_a_world_that_does_not_listen_is_found_out(built_street):
    report = control_report(DeafWorld(TINY), begin(built_street()), seconds=2.0)
    assert not report["obeyed"]
    assert report["manoeuvres"]["left"]["registered"] == 1.0
    assert not report["manoeuvres"]["left"]["obeyed"] and not report["manoeuvres"]["brake"]["obeyed"]
    assert not report["differ"]  # it shows the same frames under every prompt


def test_a_street_without_features_proves_nothing(straight_road):
    report = control_report(ReplayWorld(TINY), begin(straight_road()), seconds=1.0)
    assert report["manoeuvres"]["straight"]["registered"] == 0.0
    assert report["manoeuvres"]["straight"]["metres"] is None
    assert not report["obeyed"] and not report["swap_fails"]


def test_a_generated_world_can_be_reported_on(built_street):
    torch.manual_seed(0)
    world = DiffusionWorld(untrained_world_model())
    report = control_report(world, begin(built_street()), seconds=1.0)
    assert report["chunk_seconds"] == 1.0 and report["manoeuvres"]["keep"]["chunks"] == 1
    # Untrained weights; what stood still is kept by the record, so even they obey.
    assert report["obeyed"]


def test_nothing_to_roll_is_refused_in_one_line(built_street):
    for starts, seconds in (([], 3.0), (begin(built_street()), 0.2)):
        with pytest.raises(ConfigurationError, match=r"^control: [^\n]*$"):
            control_report(ReplayWorld(TINY), starts, seconds=seconds)
