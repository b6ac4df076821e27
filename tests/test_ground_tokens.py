"""Static ground as kinds, tokens and plans; crops of recorded towns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from outpainting import ground_palette as gp
from outpainting.ground_plan import common_patterns, groups_of_cells, patterns_of, plan_table
from outpainting.ground_tokenizer import GroundTokenizer, common_squares
from outpainting.ground_tokens import ceiling, edges
from outpainting.ground_towns import towns_of

from occsora_sim.grid import (
    BARRIER,
    CAR,
    DRIVEABLE,
    FREE,
    MANMADE,
    OCC3D,
    OTHERS,
    SIDEWALK,
    TERRAIN,
    VEGETATION,
)
from occsora_sim.scenes.voxeliser import Voxeliser


def column(*parts):
    """A column of labels: (label, lowest layer, highest layer)..."""
    out = torch.full((16,), FREE, dtype=torch.uint8)
    for label, low, high in parts:
        out[low : high + 1] = label
    return out


ROAD, PAVEMENT, LAWN = (column((label, 2, 2)) for label in (DRIVEABLE, SIDEWALK, TERRAIN))
HOUSE, TREE = column((MANMADE, 2, 9)), column((TERRAIN, 2, 2), (VEGETATION, 8, 12))
PALETTE = torch.stack((LAWN, ROAD, PAVEMENT, HOUSE, TREE, column()))


def test_columns_belong_to_the_groups_that_a_person_would_say():
    fence, post = column((BARRIER, 2, 4)), column((OTHERS, 2, 4))
    gantry = column((DRIVEABLE, 2, 2), (MANMADE, 14, 15))
    groups = gp.group_of(torch.cat((PALETTE, torch.stack((fence, post, gantry)))))
    wanted = [gp.OPEN, gp.ROAD, gp.PAVEMENT, gp.BUILDING, gp.GREEN, gp.NOTHING, gp.FENCE, gp.FENCE, gp.ROAD]
    assert groups.tolist() == wanted


def test_the_palette_holds_the_commonest_columns_and_the_nearest_answers_for_the_others():
    parked = column((DRIVEABLE, 2, 2), (CAR, 3, 5))  # a road user is no part of the ground
    palettes = [torch.stack((ROAD, HOUSE, parked)), torch.stack((LAWN, ROAD))]
    counts = [torch.tensor([5, 2, 4]), torch.tensor([7, 1])]
    assert torch.equal(gp.common_columns(palettes, counts, 3), torch.stack((ROAD, LAWN, HOUSE)))
    higher, bush = column((MANMADE, 2, 12)), column((SIDEWALK, 2, 2), (VEGETATION, 7, 12))
    assert gp.nearest_kind(torch.stack((parked, higher, bush)), PALETTE).tolist() == [1, 3, 4]


def test_a_square_of_the_book_comes_back_exactly_and_any_other_as_its_nearest():
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randint(0, 2, (2, 16, 16), generator=generator, dtype=torch.uint8)
    tokenizer = GroundTokenizer(PALETTE, common_squares(kinds, 32))
    codes = tokenizer.encode(kinds)
    assert torch.equal(tokenizer.decode(codes), kinds) and torch.equal(tokenizer.look_up(kinds), codes)
    kinds[0, 0, 0] = 1 - kinds[0, 0, 0]  # 16 random columns: no other square of the book is one column away
    assert torch.equal(tokenizer.encode(kinds), codes) and torch.equal(tokenizer.look_up(kinds), codes)
    report = ceiling(tokenizer, kinds, PALETTE)
    assert report["right"] == pytest.approx(1 - 1 / kinds.numel())


def test_edges_are_columns_beside_another_kind():
    kinds = torch.zeros(1, 4, 5, dtype=torch.uint8)
    kinds[0, 1, 1] = 1
    assert edges(kinds)[0].nonzero().tolist() == [[0, 1], [1, 0], [1, 1], [1, 2], [2, 1]]


def test_a_plan_says_what_covers_most_of_each_cell():
    kinds = torch.zeros(1, 8, 8, dtype=torch.uint8)
    kinds[0, :3, 4:] = 1  # 12 of the 16 columns of the second cell are road
    kinds[0, 4:6, :4] = 3  # half a house, half lawn: the group with the smaller number
    groups = groups_of_cells(kinds, PALETTE)
    assert groups.tolist() == [[[gp.OPEN, gp.ROAD], [gp.OPEN, gp.OPEN]]]
    pattern = patterns_of(groups)
    assert pattern.tolist() == [[[gp.OPEN + 8 * gp.ROAD + 64 * gp.OPEN + 512 * gp.OPEN]]]
    vocabulary = common_patterns(torch.cat((pattern.flatten(), pattern.flatten(), torch.tensor([0]))), 2)
    table = plan_table(vocabulary)
    assert table[vocabulary].tolist() == [0, 1] and int(table[pattern]) == 0


def test_a_crop_is_what_the_voxeliser_draws_without_road_users(built_street):
    scene = built_street(cars=((30.0, 2.0, 0.0),))
    towns = towns_of([scene, scene], cell=0.1)
    pose = torch.tensor([[40.3, 1.2, 0.4]], dtype=torch.float64)
    kinds = towns.cut(torch.tensor([1]), pose, 200)
    frame = Voxeliser(scene, OCC3D, cell=0.1).frames(
        pose.float(), torch.zeros(1), torch.full((1,), -1)
    )  # with cars
    ground = towns.palette[kinds.int()]
    still = ~((frame == CAR).any(-1, keepdim=True).expand_as(frame))
    assert (ground == frame)[still].float().mean() > 0.999 and not (ground == CAR).any()


def test_crops_avoid_the_ends_of_roads_and_know_their_route(straight_road):
    road = straight_road()
    lane = np.array([[-10.0, 0.0], [0.0, 0.0], [349.0, 0.0]], dtype=np.float32)  # the road ends at 350
    towns = towns_of([replace(road, lane_points=lane, lane_offsets=np.array([0, 3]))])
    assert towns.ends[0].tolist() == [[349.0, 0.0]]
    crops = towns.draw(8, 80, np.random.default_rng(0), reach=20.0)
    again = towns.draw(8, 80, np.random.default_rng(0), reach=20.0)
    assert torch.equal(crops.kinds, again.kinds) and crops.kinds.shape == (8, 80, 80)
    drivable = gp.group_of(towns.palette) == gp.ROAD
    for kinds, route in zip(crops.kinds, crops.route, strict=True):
        near = route[(route.abs() < 15.5).all(-1)]  # NaN is not near
        cells = ((near + 16.0) / 0.4).long()
        assert drivable[kinds[cells[:, 0], cells[:, 1]].int()].all()
    assert math.isfinite(float(crops.ego.sum()))
