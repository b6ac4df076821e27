"""Claims about what is taken down of the ground that rollouts show, and about the report on it."""

from dataclasses import replace

import pytest
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import relative
from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE, PEDESTRIAN, SIDEWALK, VEGETATION, Grid
from occsora_sim.models.columns import UNSEEN
from occsora_sim.scenes.start import make_start
from occsora_sim.scoring.ground_classifier import ClassifierConfig
from occsora_sim.scoring.ground_crops import SIDE, take_crops
from occsora_sim.scoring.ground_report import ground_report, print_ground_report
from occsora_sim.scoring.ground_views import KINDS, PAVEMENT, ROAD, GroundWatch, Views, kinds_of_columns
from occsora_sim.scoring.long_rollout import route_poses
from occsora_sim.worlds.replay import ReplayWorld

GRID = Grid(shape=(96, 96, 16), voxel=0.8, lower=(-38.4, -38.4, -1.0))
SECONDS = 16


def watched(street, change=None, step: int = 4) -> Views:
    """What a replay of a street shows, its frames changed."""
    starts = [make_start(street, 0, step, GRID)]
    world, poses = ReplayWorld(GRID), route_poses(starts, 2 * SECONDS)
    watch, state = GroundWatch(starts, [0], 0, GRID), world.reset(starts, [0])
    for k in range(0, 2 * SECONDS, 2):
        state = world.step(state, relative(poses[:, k, None], poses[:, k + 1 : k + 3]).float())
        watch.see(state if change is None else replace(state, occupancy=change(state.occupancy)))
    return watch.views()


@pytest.fixture(scope="module")
def street(built_street):
    return built_street(cars=[(60.0, 2.0, 0.0), (90.0, -2.0, 0.0), (30.0, 2.0, 8.0)], steps=61)


@pytest.fixture(scope="module")
def views(street):
    return watched(street)


def test_columns_are_of_the_kind_of_their_uppermost_voxel():
    columns = torch.full((8, 16), FREE, dtype=torch.uint8)
    columns[1:7, 2] = DRIVEABLE
    columns[2, 2] = SIDEWALK
    columns[3, 3:5], columns[4, 3:], columns[5, 8:11] = MANMADE, MANMADE, VEGETATION
    columns[6, 3:6], columns[7] = CAR, UNSEEN
    grid = Grid(shape=(1, 8, 16), voxel=0.4, lower=(0.0, 0.0, -1.0))
    names = [KINDS[kind] for kind in kinds_of_columns(columns, grid).tolist()]
    assert names == [
        "nothing", "road", "pavement", "low building", "high building", "vegetation", "vehicle", "nothing",
    ]  # fmt: skip
    columns[1, 5] = PEDESTRIAN
    assert KINDS[int(kinds_of_columns(columns, grid)[1])] == "pedestrian"


def test_looks_hold_the_ground_and_what_stands_on_it(views):
    assert views.seconds.tolist() == [2.0 * k for k in range(1, SECONDS // 2 + 1)]
    assert bool((views.ground > 0).all()) and not bool((views.ground >= KINDS.index("vehicle")).any())
    assert bool((views.shown == KINDS.index("vehicle")).any())
    there = views.shown < KINDS.index("vehicle")
    assert torch.equal(views.ground[there], views.shown[there])
    assert int(views.standing.max()) == 2  # the one that drives is not counted
    new = views.new.flatten(1).double().mean(dim=1)
    assert float(new[0]) < 0.3 and float(new[-1]) == 1.0 and bool((new.diff() >= 0).all())
    middle = GRID.shape[1] // 2
    assert bool((views.ground[:, :, middle] == ROAD).all())
    assert bool((views.ground[:, :, middle + 7] != ROAD).all()) and bool((views.ground == PAVEMENT).any())


def test_what_was_shown_once_is_not_rewritten(street, views):
    chunks = iter(range(SECONDS))
    changed = watched(street, lambda frames: frames if next(chunks) < 6 else torch.full_like(frames, FREE))
    old, empty = changed.ground == views.ground, changed.ground == 0
    assert bool((old | empty).all()) and bool(old[:3].all()) and bool(empty[-1].any())
    assert bool(old[3, : GRID.shape[0] // 2].all()) and bool(empty[3, -1].all())


def test_crops_lie_where_nothing_was_seen_at_the_start_and_at_the_same_places(views):
    drawn = replace(views, ground=views.ground.clone())
    one, other, holes = take_crops(drawn, views, GRID)
    assert len(one.town) == len(other.town) > 0 and holes == 0
    assert torch.equal(one.ground, other.ground) and one.ground.shape[1:] == (SIDE, SIDE)
    drawn.ground[:, ::8, ::8] = 0
    none, _, holes = take_crops(drawn, views, GRID)
    assert not len(none.town) and holes >= len(one.town)
    drawn = replace(views, new=torch.zeros_like(views.new))
    assert not len(take_crops(drawn, views, GRID)[0].town)
    with pytest.raises(ConfigurationError, match="from the same poses"):
        take_crops(replace(views, pose=views.pose + 1.0), views, GRID)


def test_a_report_on_a_copy_finds_no_difference_and_on_torn_ground_finds_it(street, views, capsys):
    towns = [replace(views, town=views.town + k, rollout=views.rollout + k) for k in range(2)]
    real = Views.cat(towns)
    config = ClassifierConfig(channels=(8, 8, 8), steps=15, batch=4)
    torn = replace(real, ground=torch.where(real.ground == ROAD, 4, real.ground))
    same, other = (ground_report(drawn, real, GRID, config=config) for drawn in (real, torn))
    assert same["towns"] == same["rollouts"] == 2 and same["crops"] == other["crops"]
    assert same["classifier"]["ground"]["0.8"]["drawn"]["early"]["auc"] == pytest.approx(0.5)
    assert other["classifier"]["ground"]["0.8"]["drawn"]["early"]["auc"] > 0.95
    assert other["classifier"]["with_road_users"]["0.8"]["drawn"]["early"]["auc"] == pytest.approx(0.5)
    assert same["classifier"]["ground"]["0.8"]["drawn"]["late"] is None and same["shapes"]["late"] is None
    shapes = same["shapes"]["early"]
    assert shapes["road_width"]["divergence"] == 0.0
    assert shapes["road_width"]["recorded"] == pytest.approx(8.0, abs=0.4)
    assert shapes["standing"]["drawn"] == shapes["standing"]["recorded"] > 0
    assert other["shapes"]["early"]["road_width"]["drawn"] is None
    print_ground_report(other)
    assert "each as drawn and as recorded" in " ".join(capsys.readouterr().out.split())
