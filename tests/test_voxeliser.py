"""Voxelising: what fills which voxel, from where, and when."""

import math

import numpy as np
import pytest
import torch

from occsora_sim.errors import SceneError
from occsora_sim.grid import (
    BUS,
    CAR,
    DRIVEABLE,
    FREE,
    MANMADE,
    OCC3D,
    PEDESTRIAN,
    SIDEWALK,
    TERRAIN,
    TINY,
    VEGETATION,
)
from occsora_sim.scenes.raster import polygon_spans
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.voxeliser import Voxeliser

GROUND = (-0.2, 0.2)


def rectangle(x0, y0, x1, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def make_scene(polygons=(), tracks=(), steps=3, dt=0.5):
    """polygons: (corners, label, z range); tracks: (label, size, states (steps, 5) or (5,), valid)."""
    corners = [np.asarray(p[0], dtype=np.float32) for p in polygons]
    state = [np.broadcast_to(np.asarray(t[2], dtype=np.float32), (steps, 5)) for t in tracks]
    valid = [np.broadcast_to(np.asarray(t[3] if len(t) > 3 else True), (steps,)) for t in tracks]
    return Scene(
        name="hand-built",
        dt=dt,
        polygon_points=np.concatenate([np.zeros((0, 2), np.float32), *corners]),
        polygon_offsets=np.cumsum([0, *map(len, corners)]).astype(np.int64),
        polygon_class=np.array([p[1] for p in polygons], np.uint8),
        polygon_z=np.array([p[2] for p in polygons], np.float32).reshape(-1, 2),
        lane_points=np.zeros((0, 2), np.float32),
        lane_offsets=np.zeros(1, np.int64),
        lane_width=np.zeros(0, np.float32),
        track_state=np.stack([np.zeros((steps, 5), np.float32), *state])[1:],
        track_valid=np.stack([np.zeros(steps, bool), *valid])[1:],
        track_size=np.array([t[1] for t in tracks], np.float32).reshape(-1, 3),
        track_class=np.array([t[0] for t in tracks], np.uint8),
        ego_pose=np.zeros((0, steps, 3), np.float32),
        ego_valid=np.zeros((0, steps), bool),
        ego_track=np.zeros(0, np.int64),
        ego_kind=(),
        route_points=np.zeros((0, 2), np.float32),
        route_offsets=np.zeros(1, np.int64),
    )


def poses(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def columns_of(occ, label):
    """Indices (x, y) of the columns that hold `label`."""
    return {(int(i), int(j)) for i, j in (occ == label).any(-1).nonzero()}


def test_a_car_fills_exactly_the_voxels_whose_centres_it_holds():
    scene = make_scene(tracks=[(CAR, (4.0, 2.0, 1.6), (10.0, -5.0, 0.0, 0, 0))])
    occ = Voxeliser(scene).frames(poses((0, 0, 0)), torch.zeros(1))[0]
    filled = (occ == CAR).nonzero()
    # 10 x 5 columns of 0.4 m; centres at 0.4, 0.8, 1.2 m lie above the ground layer and below 1.6 m.
    assert len(filled) == 10 * 5 * 3
    assert filled.min(0).values.tolist() == [(10 - 2 + 40) / 0.4, round((-5 - 1 + 40) / 0.4), 3]
    assert filled.max(0).values.tolist() == [119 + 10, 85 + 4, 5]
    assert (occ != FREE).sum() == len(filled)


def test_a_turned_car_stands_along_its_yaw():
    scene = make_scene(tracks=[(CAR, (4.0, 2.0, 1.6), (0.0, 0.0, math.pi / 2, 0, 0))])
    occ = Voxeliser(scene).frames(poses((0, 0, 0)), torch.zeros(1))[0]
    filled = (occ == CAR).nonzero()
    extent = filled.max(0).values - filled.min(0).values + 1
    assert extent.tolist() == [5, 10, 3]


def test_what_is_left_of_the_ego_has_the_larger_y():
    """An ego that faces north (+y) sees what lies east (+x) on its right."""
    scene = make_scene(tracks=[(CAR, (4.0, 2.0, 1.6), (10.0, 0.0, 0.0, 0, 0))])
    occ = Voxeliser(scene).frames(poses((0, 0, math.pi / 2)), torch.zeros(1))[0]
    centre = (occ == CAR).nonzero().float().mean(0)
    assert centre[0] == pytest.approx(100, abs=1) and centre[1] == pytest.approx(75, abs=1)


def test_turning_the_ego_by_a_quarter_turns_the_grid_exactly():
    scene = make_scene(
        polygons=[
            (rectangle(-60, -60, 60, 60), TERRAIN, GROUND),
            (rectangle(-60, -3.5, 60, 7), DRIVEABLE, GROUND),
            ([(-30, 9), (11, 9), (11, 30)], MANMADE, (0.2, 5)),
        ],
        tracks=[
            (CAR, (4.5, 1.9, 1.6), (12.3, -2.1, 0.4, 0, 0)),
            (PEDESTRIAN, (0.6, 0.6, 1.75), (-8.1, 3.3, -1.2, 0, 0)),
        ],
    )
    turned = [(0, 0, k * math.pi / 2) for k in range(4)]
    occ = Voxeliser(scene).frames(poses(*turned), torch.zeros(4))
    assert set(occ[0].unique().tolist()) == {CAR, PEDESTRIAN, DRIVEABLE, TERRAIN, MANMADE, FREE}
    for k in range(4):
        # The world turns clockwise (y towards x) around an ego that turns counter-clockwise.
        assert torch.equal(occ[k], torch.rot90(occ[0], k, (1, 0)))


def test_moving_the_ego_by_whole_voxels_shifts_the_grid():
    scene = make_scene(
        polygons=[(rectangle(5, -3, 25, 17), SIDEWALK, GROUND)],
        tracks=[(BUS, (12.1, 2.5, 3.1), (3.3, 6.1, 1, 0, 0))],
    )
    a, b = Voxeliser(scene).frames(poses((0, 0, 0), (4.0, -2.0, 0)), torch.zeros(2))
    assert torch.equal(a[10:, : 200 - 5], b[:-10, 5:])


def test_the_excluded_track_never_appears():
    here = (5.0, 5.0, 0.0, 1, 1)
    scene = make_scene(tracks=[(CAR, (4, 2, 1.6), here), (BUS, (12, 2.5, 3), (-20.0, 5, 0, 0, 0))], steps=2)
    vox = Voxeliser(scene)
    occ = vox.frames(poses(*[(0, 0, 0)] * 3), torch.zeros(3), torch.tensor([0, 1, -1]))
    assert [(o == CAR).any().item() for o in occ] == [False, True, True]
    assert [(o == BUS).any().item() for o in occ] == [True, False, True]
    users = vox.road_users(poses((0, 0, 0)), torch.zeros(1), torch.tensor([0]))
    assert users.id[users.valid].tolist() == [1]


def test_later_polygons_paint_over_within_their_heights():
    scene = make_scene(
        polygons=[
            (rectangle(-10, -10, 10, 10), TERRAIN, GROUND),
            (rectangle(-10, -2, 10, 2), DRIVEABLE, GROUND),
            (rectangle(4, 4, 6, 6), MANMADE, (-0.2, 3.0)),
            (rectangle(4, 4, 6, 6), VEGETATION, (1.0, 2.0)),
        ]
    )
    occ = Voxeliser(scene).frames(poses((0, 0, 0)), torch.zeros(1))[0]
    assert occ[100, 100].tolist() == [FREE] * 2 + [DRIVEABLE] + [FREE] * 13
    assert occ[100, 110].tolist() == [FREE] * 2 + [TERRAIN] + [FREE] * 13
    assert (
        occ[112, 112].tolist() == [FREE] * 2 + [MANMADE] * 3 + [VEGETATION] * 2 + [MANMADE] * 3 + [FREE] * 6
    )
    assert (occ[0] == FREE).all()  # nothing covers the edge of the grid


def test_later_tracks_win_where_boxes_overlap():
    same = (0.0, 0.0, 0.0, 0, 0)
    scene = make_scene(tracks=[(CAR, (4, 2, 1.6), same), (PEDESTRIAN, (0.8, 0.8, 1.6), same)])
    occ = Voxeliser(scene).frames(poses((0, 0, 0)), torch.zeros(1))[0]
    assert len(columns_of(occ, PEDESTRIAN)) == 4
    assert len(columns_of(occ, CAR)) == 50 - 4


def test_a_box_smaller_than_a_voxel_keeps_its_column():
    scene = make_scene(tracks=[(PEDESTRIAN, (0.1, 0.1, 1.7), (7.01, 3.01, 0.3, 0, 0))])
    occ = Voxeliser(scene).frames(poses((0, 0, 0)), torch.zeros(1))[0]
    assert columns_of(occ, PEDESTRIAN) == {(int(47.01 / 0.4), int(43.01 / 0.4))}
    assert (occ == PEDESTRIAN).sum() == 4  # 0.4, 0.8, 1.2, 1.6 m


def test_boxes_leave_the_ground_as_it_is():
    scene = make_scene(
        polygons=[(rectangle(-40, -40, 40, 40), DRIVEABLE, GROUND)],
        tracks=[(CAR, (4, 2, 1.6), (0.0, 0, 0, 0, 0))],
    )
    for grid in (OCC3D, TINY):
        occ = Voxeliser(scene, grid).frames(poses((0, 0, 0)), torch.zeros(1))[0]
        assert (occ[:, :, grid.ground] == DRIVEABLE).all()
        assert (occ[:, :, grid.ground + 1] == CAR).any()


def test_states_are_interpolated_between_steps_the_short_way_round():
    state = [(0.0, 0, 3.0, 4, 0), (4.0, 0, -3.0, 4, 0), (4.0, 0, -3.0, 0, 0)]
    scene = make_scene(tracks=[(CAR, (4.0, 2.0, 1.6), state, [True, True, False])], steps=3, dt=1.0)
    vox = Voxeliser(scene)
    asked = poses(*[(0, 0, 0)] * 4), torch.tensor([0.0, 0.5, 1.0, 1.5])
    occ, users = vox.frames(*asked), vox.road_users(*asked)
    centre = [(o == CAR).nonzero().float().mean(0)[0].item() for o in occ[:3]]
    assert centre == pytest.approx([99.5, 104.5, 109.5], abs=0.6)
    # half way from yaw 3 to yaw -3 is pi, not 0: the box is aligned with the grid
    assert len(columns_of(occ[1], CAR)) == 50
    assert users.velocity[1, 0].tolist() == pytest.approx([4, 0], abs=1e-4)
    assert not (occ[3] == CAR).any()  # the track ends after the second step


def test_a_batch_equals_its_frames_one_by_one():
    generator = np.random.default_rng(0)
    tracks = []
    for k in range(40):
        start = np.array([*generator.uniform(-30, 30, 2), generator.uniform(-3, 3), 1, 2])
        size = [(0.6, 0.6, 1.7), (4.5, 1.9, 1.5), (18.0, 2.6, 3.2)][k % 3]
        tracks.append(([PEDESTRIAN, CAR, BUS][k % 3], size, start))
    vox = Voxeliser(make_scene([(rectangle(-9, -9, 31, 17), DRIVEABLE, GROUND)], tracks, steps=9))
    pose = torch.from_numpy(generator.uniform(-3, 3, (19, 3)))
    time = torch.from_numpy(generator.uniform(0, 4, 19))
    exclude = torch.arange(19)
    occ = vox.frames(pose, time, exclude)
    for k in range(19):
        one = pose[k : k + 1], time[k : k + 1], exclude[k : k + 1]
        assert torch.equal(vox.frames(*one)[0], occ[k])


def fill(polygons, width, height):
    """How often each cell of the lattice is filled."""
    corners = np.concatenate([np.array(p, dtype=np.float64) for p in polygons])
    offsets = np.cumsum([0, *map(len, polygons)])
    count = np.zeros(width * height, dtype=int)
    for _, start, stop in zip(*polygon_spans(corners, offsets, width, height), strict=True):
        count[start:stop] += 1
    return count.reshape(width, height)


def test_a_concave_polygon_is_filled_even_odd():
    # a "C": the notch stays empty
    corners = [(0, 0), (6, 0), (6, 2), (2, 2), (2, 4), (6, 4), (6, 6), (0, 6)]
    expected = np.zeros((8, 9), dtype=int)
    expected[:6, :6] = 1
    expected[2:6, 2:4] = 0
    assert np.array_equal(fill([corners], 8, 9), expected)


def test_neighbours_share_no_cell_and_leave_no_gap():
    generator = np.random.default_rng(1)
    corners = [(0, 0), (23, 0), (23, 31), (0, 31)]
    middle = tuple(generator.uniform(5, 18, 2))
    fans = [[corners[k], corners[(k + 1) % 4], middle] for k in range(4)]
    expected = np.zeros((24, 32), dtype=int)
    expected[:23, :31] = 1
    assert np.array_equal(fill(fans, 24, 32), expected)


def test_what_has_no_area_fills_nothing():
    line, point, tiny = [(1, 1), (5, 5)], [(2, 2)], [(1.2, 1.2), (1.4, 1.2), (1.3, 1.4)]
    assert not fill([line, point, tiny], 8, 8).any()


def test_an_empty_scene_is_free():
    vox, asked = Voxeliser(make_scene(), TINY), (poses((3, 4, 1)), torch.zeros(1))
    assert (vox.frames(*asked) == FREE).all() and not vox.road_users(*asked).valid.any()


@pytest.mark.parametrize(
    ("pose", "time", "exclude"),
    [
        ([[0.0, 0.0]], [0.0], None),
        ([[0.0, 0.0, 0.0]], [0.0, 1.0], None),
        ([[0.0, 0.0, math.nan]], [0.0], None),
        ([[0.0, 0.0, 0.0]], [99.0], None),
        ([[0.0, 0.0, 0.0]], [-1.0], None),
        ([[0.0, 0.0, 0.0]], [0.0], [0, 1]),
    ],
)
def test_unusable_questions_are_refused_in_one_line(pose, time, exclude):
    vox = Voxeliser(make_scene(), TINY)
    with pytest.raises(SceneError) as error:
        vox.frames(torch.tensor(pose), torch.tensor(time), None if exclude is None else torch.tensor(exclude))
    assert "hand-built" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("far", [[(1e38, 0)], [(-3e38, 3e38)], [(3e30, 3e30)] * 4, [(4e5, 4e5)]])
def test_polygons_at_impossible_places_are_refused_in_one_line(far):
    """A damaged coordinate once became a negative size, and the process crashed."""
    corners = [*rectangle(0, 0, 5, 5)[: 4 - len(far)], *far]
    with pytest.raises(SceneError, match=r"^scene hand-built: polygon[^\n]+$"):
        Voxeliser(make_scene(polygons=[(corners, DRIVEABLE, GROUND)]), TINY)
