"""Claims with known answers about the shapes of the ground: widths, ends of streets, outlines of buildings."""

import math

import pytest
import torch

from occsora_sim.scoring.ground_shapes import buildings_of, distance_to, street_nodes, widths

VOXEL, SIDE = 0.4, 120
X, Y = torch.meshgrid(torch.arange(SIDE).float(), torch.arange(SIDE).float(), indexing="ij")
EVERYWHERE = torch.ones(1, SIDE, SIDE, dtype=torch.bool)


def street(degrees: float = 0.0, width: float = 6.8, at: tuple[float, float] = (60, 60)) -> torch.Tensor:
    """A straight street through `at`, along x turned by `degrees`."""
    turn = math.radians(degrees)
    across = -(X - at[0]) * math.sin(turn) + (Y - at[1]) * math.cos(turn)
    return across.abs() * VOXEL < width / 2


def nodes(road: torch.Tensor, region: torch.Tensor = EVERYWHERE) -> tuple[int, int]:
    ends, junctions = street_nodes(road[None], region, VOXEL)
    return int(ends), int(junctions)


def test_distances_are_those_of_the_nearest_cell():
    mask = torch.rand(2, 30, 40, generator=torch.Generator().manual_seed(0)) > 0.98
    cells = torch.cartesian_prod(torch.arange(30.0), torch.arange(40.0))
    for one, found in zip(mask, distance_to(mask, 12), strict=True):
        nearest = torch.cdist(cells, one.nonzero().float()).amin(1).view(30, 40)
        torch.testing.assert_close(found, nearest.clamp(max=12))


@pytest.mark.parametrize("width", [2.0, 6.4, 6.8])
def test_a_street_along_the_grid_is_as_wide_as_it_is(width):
    road = street(width=width, at=(60, 60 if round(width / VOXEL) % 2 else 59.5))
    found = widths(road[None], EVERYWHERE, VOXEL)
    assert float(found.median()) == pytest.approx(width) and float(found.max()) < width + 0.05


@pytest.mark.parametrize("degrees", [20, 45, 65])
def test_a_street_across_the_grid_is_as_wide_to_a_voxel(degrees):
    found = widths(street(degrees)[None], EVERYWHERE, VOXEL)
    assert len(found) > 50 and float((found - 6.8).abs().max()) < VOXEL + 1e-3


def test_bands_that_go_on_beyond_the_region_have_no_width():
    half = EVERYWHERE & (Y < 60)
    assert not len(widths(street()[None], half, VOXEL))


def test_a_dead_end_is_counted_and_a_through_road_is_not():
    assert nodes(street()) == (0, 0) and nodes(street(30)) == (0, 0)
    assert nodes(street() & (X < 70)) == (1, 0)
    assert nodes(street(30) & (X < 70)) == (1, 0)
    assert nodes(street() & ((X < 45) | (X > 75))) == (2, 0)  # a gap of 12 m has two ends


def test_junctions_are_counted_once():
    assert nodes(street() | street(90)) == (0, 1)
    assert nodes(street() | (street(90) & (Y > 60))) == (0, 1)


def test_a_lay_by_a_square_and_what_leaves_the_region_are_no_ends():
    assert nodes(street() | (street(width=12.0) & (X > 50) & (X < 70))) == (0, 0)
    assert nodes((X > 25) & (X < 95) & (Y > 25) & (Y < 95))[0] == 0  # 28 m square
    assert nodes(street() & (X < 70), EVERYWHERE & (X < 75)) == (0, 0)


def test_houses_have_right_angles_and_straight_walls_and_blobs_have_not():
    square = ((X - 30).abs() <= 12) & ((Y - 30).abs() <= 10)
    blob = torch.hypot(X - 90, Y - 30) <= 12.5
    turn = math.radians(25)
    along = (X - 85) * math.cos(turn) + (Y - 85) * math.sin(turn)
    across = -(X - 85) * math.sin(turn) + (Y - 85) * math.cos(turn)
    turned = (along.abs() <= 14) & (across.abs() <= 9)
    house, lump, other = (buildings_of(mask[None], EVERYWHERE, VOXEL) for mask in (square, blob, turned))
    assert house.area.tolist() == pytest.approx([25 * 21 * VOXEL**2])
    assert house.rectangularity.tolist() == [1.0] and float(other.rectangularity) > 0.93
    assert 0.75 < float(lump.rectangularity) < 0.86
    assert float(house.straightness) > 0.35 and float(other.straightness) > 0.2
    assert float(lump.straightness) < 0.05


def test_buildings_cut_by_the_rim_are_left_out_and_corners_do_not_join():
    two = (X > 20) & (X < 40) & (Y > 20) & (Y < 40) | (X >= 40) & (X < 60) & (Y >= 40) & (Y < 60)
    assert len(buildings_of(two[None], EVERYWHERE, VOXEL).area) == 2
    assert len(buildings_of(two[None], EVERYWHERE & (X < 50), VOXEL).area) == 1
    assert not len(buildings_of((X < 10)[None], EVERYWHERE, VOXEL).area)
    assert not len(buildings_of(torch.zeros_like(EVERYWHERE), EVERYWHERE, VOXEL).area)
