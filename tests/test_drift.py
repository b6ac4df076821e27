"""Claims on the drift report: a recording stays a street, a world that dissolves does not; the driver lasts."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from untrained import untrained_world_model

from occsora_sim.errors import ConfigurationError, SceneError
from occsora_sim.grid import DRIVEABLE, FREE, TINY
from occsora_sim.models.occupancy_encoder import OccupancyEncoder, OccupancyEncoderConfig
from occsora_sim.scoring.drift import _ratios, drift_report, frame_rows, print_drift_report, street_rows
from occsora_sim.scoring.long_rollout import drift_starts
from occsora_sim.scoring.pursuit import CRUISE, LATERAL, drive_route
from occsora_sim.scoring.real_clips import floors, outside_share, real_clips
from occsora_sim.scoring.route import make_routes
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.protocol import WorldState
from occsora_sim.worlds.replay import ReplayWorld


class DissolvingWorld(ReplayWorld):
    """A recording that loses half of its road's voxels once the ego is 25 m along."""

    def step(self, state, trajectories):
        after = super().step(state, trajectories)
        frames, generator = after.occupancy.clone(), torch.Generator().manual_seed(0)
        hole = torch.rand(frames.shape, generator=generator) < 0.5
        far = (after.ego_pose[..., 0] > 45.0)[..., None, None, None]
        frames[far & hole & (frames == DRIVEABLE)] = FREE
        return WorldState(occupancy=frames, ego_pose=after.ego_pose, memory=after.memory)


@pytest.fixture
def street(built_street):
    return built_street(cars=[(20.0, 2.0, 8.0), (30.0, -2.0, 6.0), (-10.0, 2.0, 8.0)])


def corner():
    """A route of 60 m along x, then a bend of radius 8 m to the left, then 60 m along y."""
    angle = torch.linspace(-math.pi / 2, 0, 14)
    bend = 8 * torch.stack((angle.cos(), angle.sin() + 1), dim=-1) + torch.tensor([60.0, 0.0])
    along, up = torch.arange(0.0, 60.0), torch.arange(1.0, 61.0)
    return torch.cat(
        (
            torch.stack((along, 0 * along), dim=-1),
            bend,
            torch.stack((68 + 0 * up, 8 + up), dim=-1),
        )
    )


def test_the_driver_keeps_to_the_route_slows_in_its_bend_and_lasts_for_the_time():
    routes, frames = make_routes([corner()]), 60
    pose, speed = torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([6.0])
    poses = drive_route(routes, pose, speed, frames)
    path = torch.cat((pose[:, None].double(), poses), dim=1)
    off = [routes.project(path[:, k, :2].float(), torch.zeros(1), routes.length)[1] for k in range(frames)]
    assert max(map(float, off)) < 0.6
    speeds = path[0, :, :2].diff(dim=0).norm(dim=-1) / 0.5
    turns = path[0, :, 2].diff().abs() / 0.5
    assert float(speeds.max()) <= CRUISE + 0.1 and float(speeds.min()) > 1.0
    assert float((speeds * turns).max()) < 1.4 * LATERAL
    left = routes.length - routes.project(path[:, -1, :2].float(), torch.zeros(1), routes.length)[0]
    assert float(left) < 8.0
    # More time, the same route: slower, and still on the way at the end.
    longer = drive_route(routes, pose, speed, 2 * frames)[0, :, :2]
    assert float(longer[-5:].diff(dim=0).norm(dim=-1).min()) > 0.3


def test_the_driver_stands_at_the_end_of_its_route():
    line = torch.stack((torch.arange(0.0, 30.0), torch.zeros(30)), dim=-1)
    poses = drive_route(make_routes([line]), torch.zeros(1, 3), torch.tensor([8.0]), 60)
    assert float(poses[0, -1, 0]) == pytest.approx(29.0, abs=1.0)


def test_routes_are_driven_alone_as_in_a_batch():
    line = torch.stack((torch.arange(0.0, 90.0), torch.zeros(90)), dim=-1)
    routes, pose = make_routes([corner(), line]), torch.zeros(2, 3)
    both = drive_route(routes, pose, torch.tensor([3.0, 5.0]), 20)
    alone = drive_route(make_routes([line]), pose[1:], torch.tensor([5.0]), 20)
    torch.testing.assert_close(both[1], alone[0], atol=1e-6, rtol=0)


def test_a_recording_stays_a_street(street, capsys):
    starts = drift_starts([street], 2, TINY)
    assert len(starts) == 1  # there is one expert
    done = []
    report = drift_report(
        ReplayWorld(TINY), starts, [street], seconds=10.0, on_chunk=lambda *n: done.append(n)
    )
    assert report["stays_a_street"], frame_rows(report) + street_rows(report)
    assert list(report["times"]) == ["2", "4", "8", "10"] and done[-1] == (10, 10)
    for row in report["times"].values():
        assert row["outside"] == [] and row["motion"]["obeyed"] and row["motion"]["chunks"] == 2
        assert row["js"]["filled"] < 0.01
        assert row["road_users"]["mean"] == pytest.approx(report["recorded"]["road_users"]["mean"], abs=1.0)
    assert report["times"]["10"]["metres_driven"] == pytest.approx(78.0, abs=4.0)
    assert json.dumps(report, allow_nan=False)
    print_drift_report(report)
    assert "stays a street: True" in capsys.readouterr().out


def test_a_world_that_dissolves_is_found_out(street):
    report = drift_report(DissolvingWorld(TINY), drift_starts([street], 1, TINY), [street], seconds=8.0)
    assert report["times"]["2"]["clean"] and not report["times"]["8"]["clean"]
    assert "driveable_surface" in report["times"]["8"]["outside"]
    assert report["times"]["8"]["roughness"] > report["recorded"]["roughness_bounds"][1]
    assert report["times"]["8"]["js"]["filled"] > report["floor"]["same_size"]["filled"]["max"]
    assert not report["stays_a_street"]


def test_a_generated_world_can_be_reported_on(street):
    torch.manual_seed(0)
    world = DiffusionWorld(untrained_world_model())
    report = drift_report(world, drift_starts([street], 1, TINY), [street], seconds=3.0, clips_per_scene=6)
    assert list(report["times"]) == ["2", "3"] and report["recorded_clips"] == 6
    assert report["ratios"]["js_filled_to_4_s"] is None  # no such instant
    assert json.dumps(report, allow_nan=False)


def test_ratios_compare_the_end_with_the_beginning_and_pass_over_what_registration_cannot_tell():
    def instant(metres, degrees, filled):
        return {
            "motion": {"metres": metres, "degrees": degrees},
            "js": {"filled": filled},
            "kernel": 2 * filled,
        }

    table = {"2": instant(0.002, 0.4, 0.1), "4": instant(0.1, 0.1, 0.01), "60": instant(0.01, 0.6, 0.03)}
    ratios = _ratios(table)
    assert ratios["metres_to_2_s"] == 1.0  # five times as much, of next to nothing
    assert ratios["degrees_to_2_s"] == pytest.approx(1.5) and ratios["js_filled_to_4_s"] == pytest.approx(3.0)
    assert ratios["kernel_to_4_s"] == pytest.approx(3.0)
    assert _ratios(table, {"mean": 0.03, "max": 0.09})["kernel_to_4_s"] == pytest.approx(2.0)
    table["4"]["kernel"] = -0.01  # below what real clips differ by: noise
    assert _ratios(table, {"mean": 0.06, "max": 0.09})["kernel_to_4_s"] == 1.0
    table["60"] = instant(None, None, 0.03)  # nothing could be registered
    assert _ratios(table)["metres_to_2_s"] is None


def test_floors_are_of_real_clips_against_real_clips(street, built_street):
    clips = real_clips([street, built_street(ego_speed=5.0)], TINY, frames=4, per_scene=8)
    assert len(clips.counts) == 16 and clips.town.tolist() == [0] * 8 + [1] * 8
    floor = floors(clips, size=2, seed=0)
    assert floor == floors(clips, size=2, seed=0)
    assert floor["kernel"] is None  # without an encoder
    for rows in (floor["same_size"], floor["halves"], floor["towns"]):
        for key in ("all", "filled"):
            assert 0 < rows[key]["mean"] <= rows[key]["max"] < 0.1
    assert (
        floor["same_size"]["filled"]["mean"] > floor["halves"]["filled"]["mean"]
    )  # fewer clips, more chance
    assert 0 <= (outside_share(clips) or 0.0) <= 1 and outside_share(clips) is not None
    one = clips.select(clips.town == 0)
    assert outside_share(one) is None and floors(one, size=1)["towns"] is None
    torch.manual_seed(0)
    encoder = OccupancyEncoder(OccupancyEncoderConfig()).eval()
    seen = real_clips([street], TINY, frames=4, per_scene=8, encoder=encoder)
    assert seen.features.shape == (8, 4, 32)
    kernel = floors(seen, size=2)["kernel"]
    assert kernel["mean"] < kernel["max"]


def test_what_cannot_be_rolled_is_refused_in_one_line(street):
    starts = drift_starts([street], 1, TINY)
    for chosen, seconds in (([], 60.0), (starts, 1.0)):
        with pytest.raises(ConfigurationError, match=r"^drift: [^\n]*$"):
            drift_report(ReplayWorld(TINY), chosen, [street], seconds=seconds)
    silent = replace(street, ego_valid=np.zeros_like(street.ego_valid))
    with pytest.raises(SceneError, match="no expert ego"):
        real_clips([silent], TINY, frames=4)
    with pytest.raises(SceneError, match="none of the 1 scenes"):
        drift_starts([silent], 1, TINY)
