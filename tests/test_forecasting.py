"""Claims on the forecasting score: known counts, known baselines, and nothing of the future in what a world sees."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from untrained import untrained_world_model

from occsora_sim.errors import ConfigurationError, SceneError
from occsora_sim.grid import CAR, DRIVEABLE, FREE, PEDESTRIAN, Grid
from occsora_sim.presets import tiny
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.voxel_scene import VoxelFrame, VoxelScene
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
from occsora_sim.scoring.world_report import (
    CONTESTANTS,
    _answers,
    evaluate_world,
    print_world_report,
    report_rows,
)
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
    assert oracle(replace(window, users=None), grid) is None


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
    return DiffusionWorld(untrained_world_model())


def noisy_after(scene: Scene, step: int) -> Scene:
    """The scene with noise for all that its road users do after a time step."""
    generator = np.random.default_rng(0)
    state, valid = scene.track_state.copy(), scene.track_valid.copy()
    state[:, step + 1 :] = generator.normal(0.0, 20.0, state[:, step + 1 :].shape)
    valid[:, step + 1 :] = generator.random(valid[:, step + 1 :].shape) < 0.8
    return replace(scene, track_state=state, track_valid=valid)


def voxel_scene(frames: np.ndarray) -> VoxelScene:
    """A recorded sequence of frames (t, x, y, z); the ego drives 2 m from each to the next."""
    steps = len(frames)
    pose = np.zeros((1, steps, 3), dtype=np.float32)
    pose[0, :, 0] = 2.0 * np.arange(steps)

    def read(path: Path) -> VoxelFrame:
        labels = frames[int(path.name)]
        return VoxelFrame(labels=labels, mask_lidar=labels != FREE, mask_camera=labels != FREE)

    return VoxelScene(
        name="voxels", dt=0.5, grid=tiny().grid, files=tuple(Path(str(step)) for step in range(steps)), read=read,
        ego_pose=pose, ego_valid=np.ones((1, steps), dtype=bool), ego_track=np.array([-1]), ego_kind=("expert",),
        route_points=np.zeros((0, 2), dtype=np.float32), route_offsets=np.array([0, 0]),
    )  # fmt: skip


def answers(world: DiffusionWorld, scene: Scene | VoxelScene) -> dict[str, torch.Tensor]:
    """What each contestant answers to the first window of a scene, and the window's own frames."""
    (window,) = forecast_windows(scene, 1, world.grid)
    found = dict(_answers(world, [window], window.truth[None], seed=3))
    return found | {"history": window.start.occupancy, "truth": window.truth}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tracks", "voxels"])
def test_noise_in_place_of_the_recorded_future_changes_no_forecast(untrained_model, road, kind):
    world = DiffusionWorld(untrained_model, steps=1)

    def noisy(seen: int) -> Scene | VoxelScene:
        """The recording with noise after its first `seen` steps."""
        if kind == "tracks":
            return noisy_after(road, seen - 1)
        shape = (HISTORY + FUTURE + 1, *world.grid.shape)
        frames = np.random.default_rng(1).choice([DRIVEABLE, CAR, FREE], shape).astype(np.uint8)
        frames[seen:] = np.random.default_rng(2).integers(0, FREE + 1, frames[seen:].shape)
        return voxel_scene(frames)

    recorded, poisoned = answers(world, noisy(HISTORY + FUTURE + 1)), answers(world, noisy(HISTORY))
    other = answers(world, noisy(HISTORY - 1))
    assert not torch.equal(recorded["truth"], poisoned["truth"])
    tracked = ("model_tracks", "draw_tracks") if kind == "tracks" else ()
    for name in ("history", "model", "draw", "ego_warp", "copy", *tracked):
        assert torch.equal(recorded[name], poisoned[name]), f"{name} has seen the future"
        assert not torch.equal(recorded[name], other[name]), "noise in the last frame seen is noticed"
    assert not torch.equal(recorded["model"], recorded["draw"])


def test_a_report_holds_every_contestant_at_every_horizon(world, road):
    report = evaluate_world(world, [road], windows_per_scene=2, batch=2)
    assert set(report["forecast"]) == {"1.0", "2.0", "3.0"}
    for table in report["forecast"].values():
        assert set(table) == set(CONTESTANTS)
        for metrics in table.values():
            assert 0 <= metrics["miou"] <= 1 and 0 <= metrics["iou"] <= 1
    assert report["windows"] == 2 and report["scenes"] == 1
    assert len(report_rows(report)) == 1 + 3 * len(CONTESTANTS)


def test_a_forecast_says_by_which_protocol_and_names_expectation_and_draw(world, road, capsys):
    report = evaluate_world(world, [road], windows_per_scene=1)
    print_world_report(report)
    shown = " ".join(capsys.readouterr().out.split())
    for said in ("2 Hz", "4 history frames", "ego motion given", "1, 2, 3 s", "voxels only"):
        assert said in report["protocol"]
    assert report["protocol"] in shown
    assert "model: the expectation" in shown
    assert f"draw: what the environment runs: one drawn future, {world.steps} calls of the network" in shown
    assert list(report["contestants"]) == list(CONTESTANTS) == list(report["forecast"]["1.0"])
