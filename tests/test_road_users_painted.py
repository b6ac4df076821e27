"""Road users painted into voxels: boxes as one by one, and shapes carried as they were seen."""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from painted_boxes import Boxes

from occsora_sim.geometry import compose
from occsora_sim.grid import BUS, CAR, DRIVEABLE, FREE, OCC3D, PEDESTRIAN, TINY, Grid
from occsora_sim.road_users import RoadUsers, from_tracks, stack
from occsora_sim.scenes.source import open_scenes
from occsora_sim.scenes.voxeliser import Voxeliser
from occsora_sim.voxels.cover import column_owners, piece_counts
from occsora_sim.voxels.paint import paint_road_users
from occsora_sim.voxels.shape import observe_shape
from occsora_sim.voxels.shape_cells import CELLS

LOGS = Path(os.environ.get("OCCSORA_SIM_LOGS", "logs"))
"""A folder of ScenarioNet logs, where there is one."""
SIZES = {PEDESTRIAN: (0.1, 0.1, 1.7), CAR: (4.5, 1.9, 1.5), BUS: (18.0, 2.6, 3.2)}


def users_at(*rows):
    """One world's road users: (label, size, pose) each."""
    pose = torch.tensor([row[2] for row in rows], dtype=torch.float64)[:, None]
    return from_tracks(
        pose,
        torch.ones(len(rows), 1, dtype=torch.bool),
        torch.zeros(len(rows), 2),
        torch.tensor([row[1] for row in rows]),
        torch.tensor([row[0] for row in rows]),
        torch.arange(len(rows)),
    )


def ground(worlds=1, grid=OCC3D):
    labels = torch.full((worlds, *grid.shape), FREE, dtype=torch.uint8)
    labels[..., grid.ground] = DRIVEABLE
    return labels


def painted_one_by_one(scene, grid, frames, seed=0):
    """Frames of a scene's egos at any time, drawn by the voxeliser and box by box."""
    rng = np.random.default_rng(seed)
    ego, step = np.nonzero(scene.ego_valid)
    rows = rng.choice(len(ego), frames)
    pose = torch.from_numpy(scene.ego_pose[ego[rows], step[rows]].astype(np.float64))
    pose[::2] += torch.from_numpy(rng.normal(0, 5, (len(pose[::2]), 3)))
    late = torch.from_numpy(rng.uniform(0, 0.6, frames)) * (torch.arange(frames) % 3)
    time = (torch.from_numpy(step[rows] * scene.dt) + late).clamp(max=(scene.steps - 1) * scene.dt)
    exclude = torch.from_numpy(scene.ego_track[ego[rows]])
    made = Voxeliser(scene, grid)
    drawn = made.frames(pose, time, exclude)
    wanted = made.draw(RoadUsers.empty(frames, 0, 1), pose, torch.zeros(frames, dtype=torch.long))
    Boxes(scene, grid, torch.device("cpu")).paint(pose, time, exclude, wanted, None)
    return drawn, wanted


def crowd(road):
    rng = np.random.default_rng(3)
    label = np.array([PEDESTRIAN, CAR, BUS])[rng.integers(0, 3, 70)].astype(np.uint8)
    state = np.zeros((len(label), 5, 5), np.float32)
    state[..., :3] = np.cumsum(rng.normal(0, 2, (len(label), 5, 3)), axis=1)
    state[..., :2] += rng.uniform(-30, 60, (len(label), 1, 2))
    return replace(
        road,
        track_state=np.concatenate((road.track_state[:1], state)),
        track_valid=np.concatenate((road.track_valid[:1], rng.random((len(label), 5)) < 0.8)),
        track_size=np.array([road.track_size[0], *(SIZES[int(one)] for one in label)], dtype=np.float32),
        track_class=np.concatenate((road.track_class[:1], label)),
    )


@pytest.mark.parametrize(
    "grid", [OCC3D, TINY, Grid(shape=(60, 50, 11), voxel=0.5, lower=(-10.0, -12.0, -1.0))]
)
def test_a_crowd_is_drawn_as_box_by_box(grid, straight_road):
    drawn, wanted = painted_one_by_one(crowd(straight_road(steps=5)), grid, 24)
    assert torch.equal(drawn, wanted) and (wanted == BUS).any()


@pytest.mark.parametrize("spec", ["traffic:0", "traffic:1", "traffic:2"])
def test_a_town_is_drawn_as_box_by_box(spec):
    pytest.importorskip("libsumo", reason="towns need SUMO (the extra `traffic`)")
    drawn, wanted = painted_one_by_one(open_scenes(spec)[0], OCC3D, 24)
    assert torch.equal(drawn, wanted) and (wanted == CAR).any()


@pytest.mark.skipif(not LOGS.is_dir(), reason="there are no logs")
def test_logs_are_drawn_as_box_by_box():
    for log in sorted(LOGS.glob("*.pkl"))[:3]:
        (scene,) = open_scenes(log)
        drawn, wanted = painted_one_by_one(scene, OCC3D, 12)
        assert torch.equal(drawn, wanted) and (wanted == CAR).any()


def test_many_places_in_one_call_are_drawn_as_each_alone(straight_road):
    road = straight_road(cars=[(12.0, 0.0, 8.0)], steps=5)
    bare = replace(
        road,
        polygon_points=road.polygon_points[4:] + np.float32(3.3),
        polygon_offsets=road.polygon_offsets[:2],
        polygon_class=road.polygon_class[1:],
        polygon_z=road.polygon_z[1:],
        track_state=road.track_state[:0],
        track_valid=road.track_valid[:0],
        track_size=road.track_size[:0],
        track_class=road.track_class[:0],
        dt=0.25,
    )
    scenes = (crowd(road), bare, road)
    together, alone = Voxeliser(scenes, TINY), [Voxeliser(scene, TINY) for scene in scenes]
    rng = np.random.default_rng(0)
    pose, time = torch.from_numpy(rng.uniform(-3, 9, (12, 3))), torch.from_numpy(rng.uniform(0, 1, 12))
    place, exclude = torch.arange(12) % 3, torch.arange(12) % 2 - 1
    drawn = together.frames(pose, time, exclude, place)
    users = together.road_users(pose, time, exclude, place=place)
    for row in range(12):
        one, asked = alone[row % 3], (pose[row : row + 1], time[row : row + 1], exclude[row : row + 1])
        assert torch.equal(one.frames(*asked)[0], drawn[row])
        those = one.road_users(*asked)
        assert torch.equal(those.id[0, those.valid[0]], users.id[row, users.valid[row]])
        assert torch.equal(those.pose[0, those.valid[0]], users.pose[row, users.valid[row]])


def test_road_users_are_as_many_as_a_scene_says_at_most(straight_road):
    scene = crowd(straight_road(steps=5))
    tracks = Voxeliser(scene).tracks
    pose = torch.zeros(60, 3, dtype=torch.float64)
    pose[:, :2] = torch.from_numpy(np.random.default_rng(0).uniform(-40, 80, (60, 2)))
    users = tracks.at(
        torch.zeros(60, dtype=torch.long), pose, torch.linspace(0, 2, 60), torch.full((60,), -1)
    )
    along, across = piece_counts(users.size, OCC3D)
    assert users.valid.sum(1).max() < tracks.slots <= 71  # so nobody was left out
    owners = column_owners(users, pose, OCC3D)
    assert torch.equal(owners, column_owners(users, pose, OCC3D, pieces=60 * tracks.pieces))
    assert (along * across * users.valid).sum(1).max() <= 1.5 * tracks.pieces


def test_the_past_of_road_users_is_their_track(straight_road):
    scene = straight_road(cars=[(20.0, 0.0, 8.0), (500.0, 0.0, 0.0)], steps=9)
    scene.track_valid[1, :2] = False
    made = Voxeliser(scene, TINY)
    users = made.road_users(torch.tensor([[0.0, 0, 0]]), torch.tensor([1.75]), torch.tensor([0]), history=4)
    assert users.id[users.valid].tolist() == [1]  # the ego's own is left out, and who is far away
    wanted = 20 + 8 * torch.tensor([1.25, 1.25, 1.25, 1.75])  # before it came, its first pose
    torch.testing.assert_close(users.pose[0, 0, :, 0], wanted.double())
    assert users.present[0, 0].tolist() == [False, False, True, True]
    assert users.velocity[0, 0].tolist() == [8.0, 0.0] and users.age[0, 0] == 2


def test_the_later_slot_wins_and_the_ground_stays():
    users = users_at((CAR, (4.0, 2.0, 1.6), (0, 0, 0)), (PEDESTRIAN, (0.8, 0.8, 1.6), (0, 0, 0)))
    out = paint_road_users(ground(), users, torch.zeros(1, 3), OCC3D)
    assert (out[..., OCC3D.ground] == DRIVEABLE).all()
    assert (out == PEDESTRIAN).any(-1).sum() == 4 and (out == CAR).any(-1).sum() == 50 - 4


def test_the_labels_that_are_given_stay_as_they_were():
    labels, users = ground(), users_at((CAR, SIZES[CAR], (3, 1, 1)))
    kept = labels.clone()
    out = paint_road_users(labels, users, torch.zeros(1, 3), OCC3D)
    assert torch.equal(labels, kept) and not torch.equal(out, kept)
    assert paint_road_users(labels, users, torch.zeros(1, 3), OCC3D, in_place=True) is labels
    assert torch.equal(labels, out)


def lumps(users, pose, grid, seed):
    """Frames with half of the voxels of each road user at random, but all of the lowest: partial, as a sensor's are."""
    whole = paint_road_users(ground(len(pose), grid), users, pose, grid)
    some = torch.rand(whole.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    some[..., grid.ground + 1] = True
    return torch.where(some | (whole == DRIVEABLE), whole, FREE)


@pytest.mark.parametrize("grid", [OCC3D, TINY])
def test_a_road_user_that_stays_is_painted_to_the_voxel_as_it_was_seen(grid):
    rng, seen = np.random.default_rng(0), []
    for _ in range(6):
        places = [(x, y, rng.uniform(-4, 4)) for x in (-14, -4.5, 6) for y in (-12.1, 3.3, 14.2)]
        kinds = rng.permutation([CAR, BUS, PEDESTRIAN, CAR, CAR, PEDESTRIAN, CAR, CAR, CAR])
        size = {**SIZES, PEDESTRIAN: (0.9, 0.9, 1.8), BUS: (9.0, 2.5, 3.2)}
        seen.append(
            users_at(*[(int(kind), size[int(kind)], at) for kind, at in zip(kinds, places, strict=True)])
        )
    users = stack(seen)
    pose = torch.from_numpy(rng.uniform(-2, 2, (6, 3)))
    frames = lumps(users, pose, grid, 0)
    users = replace(users, shape=observe_shape(frames, users, pose, grid))
    assert torch.equal(paint_road_users(ground(6, grid), users, pose, grid), frames)
    # The same when world and ego are somewhere else together.
    there = torch.tensor([812.5, -333.0, 2.0], dtype=torch.float64)
    moved = replace(users, pose=compose(there.expand_as(users.pose), users.pose))
    again = paint_road_users(ground(6, grid), moved, compose(there.expand_as(pose), pose), grid)
    assert (again != frames).float().mean() < 1e-4


def test_a_shape_turns_and_drives_with_its_road_user():
    users = users_at((CAR, (4.0, 2.0, 1.6), (0, 0, 0)))
    frame = paint_road_users(ground(), users, torch.zeros(1, 3), OCC3D)
    frame[:, 100:] = ground()[:, 100:]  # its front half was not seen
    users = replace(users, shape=observe_shape(frame, users, torch.zeros(1, 3), OCC3D))
    turned = users.moved(torch.tensor([[[8.0, 0.0, math.pi / 2]]]), users.velocity)
    out = paint_road_users(ground(), turned, torch.zeros(1, 3), OCC3D)
    filled = (out[0] == CAR).any(-1).nonzero()
    assert len(filled) == 25 and filled.min(0).values.tolist() == [118, 95] and filled[:, 1].max() == 99


def test_voxels_beside_the_box_count_but_for_those_of_a_neighbour():
    users = users_at((CAR, (4.0, 2.0, 1.6), (0, 0, 0)), (CAR, (4.0, 2.0, 1.6), (0, 2.4, 0)))
    frame = paint_road_users(ground(), users, torch.zeros(1, 3), OCC3D)
    frame[0, 96, 98, 4] = frame[0, 94, 98, 4] = frame[0, 80, 98, 4] = CAR  # in it, beside it, far from it
    shape = observe_shape(frame, users, torch.zeros(1, 3), OCC3D)
    cells = (shape[0] > 0).sum(dim=(1, 2)) / 4  # a column is four cells
    assert shape.shape == (1, 2, *CELLS) and shape.dtype == torch.int16
    assert cells.tolist() == [51.0, 50.0]


def test_who_was_not_seen_is_a_box():
    users = users_at((CAR, SIZES[CAR], (3, 1, 1)), (BUS, (25.0, 2.6, 3.0), (-5, -9, 0)))
    boxes = paint_road_users(ground(), users, torch.zeros(1, 3), OCC3D)
    nothing = observe_shape(ground(), users, torch.zeros(1, 3), OCC3D)
    assert not nothing.any()
    assert torch.equal(
        paint_road_users(ground(), replace(users, shape=nothing), torch.zeros(1, 3), OCC3D), boxes
    )
    shape = observe_shape(boxes, users, torch.zeros(1, 3), OCC3D)
    assert shape[0, 0].any() and not shape[0, 1].any()  # a bus of 25 m is too large for a shape
