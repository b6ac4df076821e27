"""Static ground as kinds, tokens and plans; crops of recorded towns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from occsora_sim.errors import SceneError, SceneWarning
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
    Grid,
)
from occsora_sim.models.ground import palette as gp
from occsora_sim.models.ground.plan import common_patterns, groups_of_cells, patterns_of, plan_table
from occsora_sim.models.ground.tokenizer import GroundTokenizer, common_squares
from occsora_sim.presets import tiny
from occsora_sim.scenes.voxel_scene import VoxelFrame, VoxelScene
from occsora_sim.scenes.voxeliser import Voxeliser
from occsora_sim.training.ground.crops import CropSampler, tokens_seen
from occsora_sim.training.ground.towns import UNKNOWN, towns_of
from occsora_sim.training.ground.towns_file import kept_towns, load_towns
from occsora_sim.training.ground.vocabulary import ceiling, edges, vocabulary


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
    assert torch.equal(tokenizer.decode(codes), kinds)
    kinds[0, 0, 0] = 1 - kinds[0, 0, 0]  # 16 random columns: no other square of the book is one column away
    assert torch.equal(tokenizer.encode(kinds), codes)
    report = ceiling(tokenizer, kinds)
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
    book = common_patterns(torch.cat((pattern.flatten(), pattern.flatten(), torch.tensor([0]))), 2)
    assert book.tolist() == [[gp.OPEN, gp.ROAD, gp.OPEN, gp.OPEN], [gp.ROAD] * 4]
    table = plan_table(book)
    assert int(table[pattern]) == 0 and int(table[0]) == 1


def test_a_crop_is_what_the_voxeliser_draws_without_road_users(built_street):
    scene = built_street(cars=((30.0, 2.0, 0.0),))
    towns = towns_of([scene, scene], cell=0.1)
    pose = torch.tensor([[40.3, 1.2, 0.4]], dtype=torch.float64)
    kinds = towns.cut(torch.tensor([1]), pose, 200, 0.4)
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
    assert crops.seen.all()


def test_crops_are_drawn_all_the_same_where_none_is_as_it_should_be(straight_road):
    road = straight_road()
    lane = np.array([[0.0, 0.0], [300.0, 0.0]], dtype=np.float32)
    nowhere = np.full((4, 2), 1e3, dtype=np.float32)  # the road alone is painted: most of a crop is void
    points = np.concatenate((nowhere, road.polygon_points[4:]))
    towns = towns_of([replace(road, polygon_points=points, lane_points=lane, lane_offsets=np.array([0, 2]))])
    crops = towns.draw(2, 120, np.random.default_rng(0))
    assert crops.kinds.shape == (2, 120, 120)


def test_books_of_a_place_with_few_squares_are_filled_up(straight_road):
    config = tiny().ground
    towns = towns_of([straight_road()], tiny().grid, kinds=config.kinds)
    assert towns.palette.shape == (config.kinds, 16) and (towns.palette == FREE).all(-1).any()
    words = vocabulary(towns, config, 28.8)
    assert words["book"].shape == (config.codes, 16) and words["patterns"].shape == (config.patterns, 4)
    crops = CropSampler(towns, 64, config.column, 28.8).draw(4, 0)
    assert ceiling(GroundTokenizer(towns.palette, words["book"]), crops.kinds)["right"] > 0.95


def test_places_are_kept_in_a_file_until_they_are_made_of_something_else(straight_road, tmp_path):
    made = []

    def make():
        made.append(towns_of([straight_road()]))
        return made[-1]

    path = tmp_path / "towns.safetensors"
    first, again = (kept_towns(path, {"scenes": "a"}, make) for _ in range(2))
    assert len(made) == 1 and again.names == first.names and torch.equal(again.columns, first.columns)
    one, two = (CropSampler(towns, 40, 0.4, 20.0, seed=3).draw(2, 5) for towns in (first, load_towns(path)))
    assert torch.equal(one.kinds, two.kinds) and torch.equal(one.route.nan_to_num(), two.route.nan_to_num())
    kept_towns(path, {"scenes": "b"}, make)
    assert len(made) == 2


# ------------------------------------------------------------------ voxel sequences
SMALL = Grid(shape=(20, 20, 16), voxel=0.8, lower=(-8.0, -8.0, -1.0))


def sequence(turn: float = 0.0) -> VoxelScene:
    """Five frames along x, 2 m apart: road, a house to the left at x from 4 to 6, nothing measured far to the right; a
    car stands at x = 8 in the first two frames.
    """
    poses = np.zeros((1, 5, 3), dtype=np.float32)
    poses[0, :, 0], poses[0, :, 2] = 2.0 * np.arange(5), turn

    def read(path) -> VoxelFrame:
        step = int(path)
        centres = SMALL.centres_xy().numpy()
        cos, sin = math.cos(turn), math.sin(turn)
        x = cos * centres[..., 0] - sin * centres[..., 1] + 2.0 * step
        y = sin * centres[..., 0] + cos * centres[..., 1]
        labels = np.full(SMALL.shape, FREE, dtype=np.uint8)
        labels[y > -3, 1] = DRIVEABLE
        labels[(y > 2) & (x > 4) & (x < 6), 1:8] = MANMADE
        car = (np.abs(y) < 1) & (x > 7) & (x < 9)
        if step < 2:
            labels[car, 1] = FREE
            labels[car, 2:4] = CAR
        return VoxelFrame(labels=labels, mask_lidar=None, mask_camera=None)

    return VoxelScene(
        name="voxels", dt=0.5, grid=SMALL, files=tuple("01234"), read=read,  # type: ignore[arg-type]
        ego_pose=poses, ego_valid=np.ones((1, 5), dtype=bool), ego_track=np.array([-1]), ego_kind=("expert",),
        route_points=poses[0, :, :2], route_offsets=np.array([0, 5]),
    )  # fmt: skip


@pytest.mark.parametrize("turn", [0.0, 0.5])
def test_the_frames_of_a_voxel_sequence_are_merged_without_road_users_and_what_none_shows_is_unknown(turn):
    towns = towns_of([sequence(turn)], SMALL, kinds=4)

    def kind(x: float, y: float) -> int:
        frame = torch.tensor([[x, y, 0.0]], dtype=torch.float64)
        return int(towns.cut(torch.tensor([0]), frame, 1, 0.8)[0, 0, 0])

    def column_at(x: float, y: float) -> torch.Tensor:
        return towns.palette[kind(x, y)]

    road = column((DRIVEABLE, 1, 1))
    assert torch.equal(column_at(0.0, 0.0), road) and torch.equal(column_at(8.0, 0.0), road)  # under the car
    assert torch.equal(column_at(5.0, 4.0), column((MANMADE, 1, 7)))
    assert kind(4.0, -6.0) == UNKNOWN and kind(60.0, 0.0) == UNKNOWN
    crops = CropSampler(towns, 16, 0.8, 2.0).draw(4, 0)
    assert crops.seen.any() and not crops.seen.all()
    tokens = tokens_seen(crops.seen, 4)
    assert tokens.shape == (4, 4, 4) and tokens.float().mean() < crops.seen.float().mean()


def test_places_that_show_nothing_are_left_out_and_none_but_such_is_refused():
    def empty(path) -> VoxelFrame:
        return VoxelFrame(
            labels=np.full(SMALL.shape, FREE, dtype=np.uint8), mask_lidar=None, mask_camera=None
        )

    bare = replace(sequence(), name="bare", read=empty)
    with pytest.warns(SceneWarning, match=r"bare \(nothing that stands still\)"):
        assert towns_of([bare, sequence()], SMALL).names == ["voxels"]
    with pytest.raises(SceneError, match="none of the 1 scenes offers a crop of ground"):
        towns_of([bare], SMALL)
