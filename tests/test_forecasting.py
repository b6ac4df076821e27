"""Claims on the forecasting score: known counts, known baselines, and nothing of the future in what a world sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from occsora_sim.errors import ConfigurationError, SceneError
from occsora_sim.grid import CAR, DRIVEABLE, FREE, PEDESTRIAN, Grid
from occsora_sim.models.world_model import WorldModel
from occsora_sim.presets import tiny
from occsora_sim.scoring.confusion import Confusion
from occsora_sim.scoring.forecasting import (
    FUTURE,
    HISTORY,
    chunk_trajectories,
    copy_last,
    ego_warp,
    forecast_windows,
    oracle,
)
from occsora_sim.scoring.world_report import _roll, evaluate_world, report_rows
from occsora_sim.worlds.diffusion import DiffusionWorld


def test_iou_of_hand_counted_voxels():
    truth = torch.tensor([CAR, CAR, CAR, CAR, DRIVEABLE, DRIVEABLE, FREE, FREE], dtype=torch.uint8)
    guess = torch.tensor([CAR, CAR, CAR, FREE, DRIVEABLE, CAR, FREE, FREE], dtype=torch.uint8)
    confusion = Confusion()
    confusion.add(guess[:5], truth[:5])
    confusion.add(guess[5:], truth[5:])
    metrics = confusion.metrics()
    assert metrics["per_class"]["car"] == 3 / 5
    assert metrics["per_class"]["driveable_surface"] == 1 / 2
    assert metrics["per_class"]["bus"] is None
    assert metrics["miou"] == pytest.approx((3 / 5 + 1 / 2) / 2)
    assert metrics["dynamic_miou"] == 3 / 5
    assert metrics["miou_occworld"] == pytest.approx((3 / 5 + 1 / 2 + 15) / 17)
    assert metrics["iou"] == 5 / 6


def test_no_road_user_in_the_truth_means_no_dynamic_score():
    confusion = Confusion()
    confusion.add(
        torch.full((3,), PEDESTRIAN, dtype=torch.uint8), torch.full((3,), DRIVEABLE, dtype=torch.uint8)
    )
    assert confusion.metrics()["dynamic_miou"] is None
    assert confusion.metrics()["miou"] == 0.0


def test_frames_of_unlike_shape_are_refused():
    with pytest.raises(ConfigurationError, match="differ"):
        Confusion().add(torch.zeros(2, dtype=torch.uint8), torch.zeros(3, dtype=torch.uint8))


def test_windows_hold_the_past_in_the_start_and_the_future_apart(road):
    grid = Grid(shape=(48, 48, 16), voxel=0.8, lower=(-19.2, -19.2, -1.0))
    windows = list(forecast_windows(road, 3, grid))
    for window in windows:
        assert window.start.occupancy.shape[0] == HISTORY and window.truth.shape[0] == FUTURE
        assert len(window.start.route) == 0
    trajectories = chunk_trajectories(windows, 2)
    assert [t.shape[1] for t in trajectories] == [2, 2, 2]
    moved = windows[0].poses[1, :2] - windows[0].start.ego_pose[-1, :2]
    assert torch.allclose(trajectories[0][0, 1, :2].norm(), moved.norm(), atol=1e-4)


def test_warp_of_a_still_world_is_perfect_where_seen_and_copy_is_not(road):
    grid = Grid(shape=(48, 48, 16), voxel=0.8, lower=(-19.2, -19.2, -1.0))
    (window,) = forecast_windows(road, 1, grid)
    still = replace(window, poses=window.start.ego_pose[-1:].expand(FUTURE, 3))
    assert torch.equal(ego_warp(still, grid), copy_last(still, grid))
    ahead = window.start.ego_pose[-1].clone()
    ahead[0] += 1.6  # two voxels along the world's x
    shifted = ego_warp(replace(window, poses=ahead.expand(FUTURE, 3)), grid)[0]
    assert torch.equal(shifted[:-2], window.start.occupancy[-1, 2:])
    assert (shifted[-2:] == FREE).all()


def test_the_oracle_knows_the_map_and_carries_cars_at_constant_speed(road):
    grid = Grid(shape=(48, 48, 16), voxel=0.8, lower=(-19.2, -19.2, -1.0))
    for window in forecast_windows(road, 3, grid):
        foreseen, truth = oracle(window, grid), window.truth
        assert foreseen is not None and (truth == CAR).any()
        away = (foreseen != CAR) & (truth != CAR)
        assert torch.equal(foreseen[away], truth[away])
        wrong = (foreseen == CAR) ^ (truth == CAR)
        warped = ego_warp(window, grid)
        assert wrong.sum() < 0.5 * ((warped == CAR) ^ (truth == CAR)).sum()
    assert oracle(replace(window, velocity=None), grid) is None


def test_a_scene_without_a_long_enough_ego_is_refused_in_one_line(road):
    short = replace(road, ego_valid=np.zeros_like(road.ego_valid))
    with pytest.raises(SceneError, match="nothing to score"):
        forecast_windows(short, 1, Grid())


@pytest.fixture
def road(straight_road):
    return straight_road(cars=[(20.0, 0.0, 6.0), (40.0, -2.0, 0.0)])


@pytest.fixture(scope="module")
def world() -> DiffusionWorld:
    torch.manual_seed(0)
    return DiffusionWorld(WorldModel(tiny()))


def test_poisoning_the_future_changes_no_forecast(world, road):
    windows = forecast_windows(road, 1, world.grid)
    poisoned = [replace(w, truth=torch.full_like(w.truth, CAR)) for w in windows]
    for mode in ("mean", "sample"):
        variant = world.variant(mode=mode, follow_route=False)
        assert torch.equal(_roll(variant, windows, 1, None), _roll(variant, poisoned, 1, None))


def test_a_report_holds_every_contestant_at_every_horizon(world, road):
    report = evaluate_world(world, [road], windows_per_scene=2, batch=2)
    assert set(report["forecast"]) == {"1.0", "2.0", "3.0"}
    for table in report["forecast"].values():
        assert set(table) == {"model", "draw", "ego_warp", "copy", "tokenizer", "oracle"}
        for metrics in table.values():
            assert 0 <= metrics["miou"] <= 1 and 0 <= metrics["iou"] <= 1
    assert report["windows"] == 2 and report["scenes"] == 1
    assert len(report_rows(report)) == 1 + 3 * 6
