"""Claims on the measures of generated frames: hand-counted voxels, road users and distances."""

import math

import pytest
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import BICYCLE, CAR, DRIVEABLE, FREE, MANMADE, NUM_CLASSES, PEDESTRIAN, TRUCK
from occsora_sim.scoring.frequencies import (
    class_counts,
    filled_frequencies,
    frequencies,
    jensen_shannon,
    roughness,
)
from occsora_sim.scoring.real_clips import beyond, distances, spread
from occsora_sim.scoring.road_users import patches_of


def shares(*values):
    return torch.tensor(values, dtype=torch.float64)


def free(n=1, x=24, y=20, z=4):
    return torch.full((n, x, y, z), FREE, dtype=torch.uint8)


def test_the_divergence_of_known_distributions():
    assert float(jensen_shannon(shares(0.3, 0.7), shares(0.3, 0.7))) == 0.0
    assert float(jensen_shannon(shares(1.0, 0.0), shares(0.0, 1.0))) == pytest.approx(1.0)
    # p = (1, 0), q = (1/2, 1/2): H(3/4, 1/4) - H(1/2, 1/2) / 2 bits
    known = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) - 0.5
    assert float(jensen_shannon(shares(1.0, 0.0), shares(0.5, 0.5))) == pytest.approx(known)


def test_shares_count_free_or_leave_it_out():
    frame = free(2)
    frame[0, :6, :, 0] = DRIVEABLE
    frame[0, 0, :, 1] = MANMADE
    counts = class_counts(frame)
    assert counts.shape == (2, NUM_CLASSES) and counts[0, DRIVEABLE] == 120 and counts[0, MANMADE] == 20
    assert float(frequencies(counts)[0, DRIVEABLE]) == pytest.approx(120 / 1920)
    assert float(filled_frequencies(counts)[0, DRIVEABLE]) == pytest.approx(120 / 140)
    assert filled_frequencies(counts)[1].sum() == 0  # nothing is filled


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(ConfigurationError, match="255"):
        class_counts(torch.full((1, 2, 2, 2), 255, dtype=torch.uint8))


def test_pooled_frames_are_compared_over_all_and_over_filled_voxels():
    road, wall = free(), free()
    road[:, 0, :, 0], wall[:, 0, :, 0] = DRIVEABLE, MANMADE
    js = distances(class_counts(road), class_counts(wall))
    assert js["filled"] == pytest.approx(1.0) and js["all"] == pytest.approx(1 / 96)
    assert distances(class_counts(road), class_counts(road)) == {"all": 0.0, "filled": 0.0}


def test_roughness_rises_where_a_surface_dissolves():
    plane = free()
    plane[..., 0] = DRIVEABLE
    specks = plane.clone()
    specks[:, ::2, ::2, 0] = FREE
    assert roughness(plane) == 0.0 and roughness(free()) == 0.0
    # 19 * 12 + 23 * 10 of the 23 * 20 + 24 * 19 pairs lie along or across a row with holes
    assert float(roughness(specks)) == pytest.approx((19 * 12 + 23 * 10) / (23 * 20 + 24 * 19))


def test_road_users_are_connected_patches_of_one_class():
    frames = free(2)
    frames[0, 2:12, 3:7, 1:3] = CAR
    frames[0, 14:20, 3:7, 1:3] = CAR  # two columns of free space between them
    frames[0, 12:14, 4, 1] = TRUCK  # touches both cars, and is none
    frames[0, 5, 12, 1] = PEDESTRIAN
    frames[0, 6, 13, 2] = PEDESTRIAN  # corner to corner: one
    frames[0, 9, 15, 3] = PEDESTRIAN
    frames[1, :, 5, 0] = BICYCLE
    frames[1, 3, :, 0] = DRIVEABLE  # cuts it in two
    found = patches_of(frames)
    assert sorted(found.label[found.frame == 0].tolist()) == sorted([CAR, CAR, TRUCK, PEDESTRIAN, PEDESTRIAN])
    assert found.label[found.frame == 1].tolist() == [BICYCLE, BICYCLE]
    assert len(patches_of(free(3)).label) == 0


def test_a_long_winding_patch_is_one():
    frame = free()
    for row in range(0, 20, 4):
        frame[0, 2:22, row, 1] = CAR
        frame[0, 21 if row % 8 == 0 else 2, row : row + 5, 1] = CAR
    assert patches_of(frame).label.tolist() == [CAR]


def test_bounds_are_widened_percentiles_and_the_largest_of_a_rare_class():
    common = torch.linspace(1.0, 2.0, 101, dtype=torch.float64)
    rare = torch.zeros(101, dtype=torch.float64)
    rare[:3] = 7.0
    bounds = spread(torch.stack((common, rare), dim=1))
    # percentiles 1.05 and 1.95, their half width 0.45 widened by a half of itself
    torch.testing.assert_close(bounds[0], shares(1.5 - 0.675, 0.0))
    torch.testing.assert_close(bounds[1], shares(1.5 + 0.675, 7.0))
    assert beyond(shares(2.2, 7.0), bounds).tolist() == [True, False]
    assert beyond(shares(0.9, 7.1), bounds).tolist() == [False, True]
