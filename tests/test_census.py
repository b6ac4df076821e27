"""Claims about the census of road users, on frames built by hand."""

import pytest
import torch

from occsora_sim.grid import CAR, DRIVEABLE, FREE, PEDESTRIAN, TRUCK, Grid
from occsora_sim.scoring.census import Census, take_census
from occsora_sim.scoring.road_users import patches_of

GRID = Grid(shape=(48, 48, 16), voxel=0.8, lower=(-19.2, -19.2, -1.0))


def clip(places: list[list[tuple[int, int, int]]]) -> torch.Tensor:
    """Frames with road users (label, x, y of the first of 4 x 2 columns) on a road."""
    frames = torch.full((1, len(places), *GRID.shape), FREE, dtype=torch.uint8)
    frames[..., 0] = DRIVEABLE
    for k, users in enumerate(places):
        for label, x, y in users:
            frames[0, k, x : x + 4, y : y + 2, 1:3] = label
    return frames


def test_speed_is_measured_in_the_world_whatever_the_ego_does():
    # A car that stands and one that drives 4 voxels of 0.8 m in half a second, seen from an ego that drives 2 voxels.
    frames = clip([[(CAR, 10, 5), (CAR, 10, 30)], [(CAR, 8, 5), (CAR, 12, 30)]])
    poses = torch.tensor([[[0.0, 0.0, 0.0], [1.6, 0.0, 0.0]]])
    census = take_census(frames, poses, GRID)
    assert census.speeds.tolist() == [[1, 0, 0, 1, 0]]  # 0 and 6.4 m/s
    assert census.figures()["standing"] == 0.5
    turned = take_census(frames, torch.tensor([[[5.0, 2.0, 0.7], [5.0, 2.0, 0.7]]]), GRID)
    assert turned.speeds.tolist() == [[0, 0, 2, 0, 0]]  # both 1.6 m in half a second


def test_a_road_user_is_found_again_only_as_its_own_kind_and_nearby():
    far = clip([[(CAR, 4, 5)], [(CAR, 30, 5)]])  # 20 m away: another one
    other = clip([[(CAR, 10, 5)], [(PEDESTRIAN, 10, 5)]])
    for frames in (far, other):
        census = take_census(frames, torch.zeros(1, 2, 3), GRID)
        assert int(census.speeds.sum()) == 0 and census.figures()["standing"] is None
        assert int(census.patches) == 2


def test_counts_sizes_and_contacts():
    frames = clip([[(CAR, 10, 5), (TRUCK, 14, 6), (CAR, 30, 30)], [(CAR, 10, 5)]])
    census = take_census(frames, torch.zeros(1, 2, 3), GRID)
    assert census.users[0, CAR] == 1.5 and census.users[0, TRUCK] == 0.5
    assert int(census.patches) == 4 and int(census.columns) == 4 * 8
    assert int(census.touching) == 2  # the car and the truck that meet
    assert census.figures()["touching"] == 0.5 and census.figures()["columns"] == 8
    both = Census.cat([census, census])
    assert both.users.shape[0] == 2 and both.select(torch.tensor([True, False])).patches.tolist() == [4]


def test_a_patch_has_its_middle_in_the_middle_of_its_columns():
    found = patches_of(clip([[(CAR, 10, 6)]])[0])
    assert found.middle.tolist() == [[12.0, 7.0]] and found.columns.tolist() == [8]
    assert found.frame.tolist() == [0] and found.label.tolist() == [CAR] and not bool(found.touching)


def test_an_empty_street_has_nobody():
    figures = take_census(clip([[], []]), torch.zeros(1, 2, 3), GRID).figures()
    assert figures == {"columns": None, "touching": None, "standing": None, "speeds": [0.0] * 5}
    assert pytest.approx(0) == float(take_census(clip([[]]), torch.zeros(1, 1, 3), GRID).users.sum())
