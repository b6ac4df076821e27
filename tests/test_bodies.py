"""Claims on bodies: a small road user is drawn where it is, as large as its class, and keeps its place exactly."""

import math

import pytest
import torch

from occsora_sim.geometry import relative, to_frame, to_world
from occsora_sim.grid import BICYCLE, CAR, FREE, OCC3D, PEDESTRIAN
from occsora_sim.models.bodies import draw_bodies

HERE = torch.zeros(1, 3)
X, Y = OCC3D.centres_xy().unbind(-1)


def frame(inside: torch.Tensor, label: int = PEDESTRIAN) -> torch.Tensor:
    """A frame (1, x, y, z) whose columns `inside` (x, y) a road user of four layers fills."""
    labels = torch.full((1, *OCC3D.shape), FREE, dtype=torch.uint8)
    labels[0, :, :, 3:7][inside] = label
    return labels


def disc(x: float, y: float) -> torch.Tensor:
    """The columns (x, y) bool whose centres a pedestrian at a place holds."""
    return (X - x) ** 2 + (Y - y) ** 2 < 0.35**2


def still(frames: int = 1) -> torch.Tensor:
    return torch.zeros(1, frames, *OCC3D.shape[:2], 2)


def test_a_pedestrian_who_goes_is_drawn_as_the_grid_would_show_him_there():
    now, way = disc(5.2, 3.2), still(2)  # a voxel's corner: four columns
    way[:, 0, :, :, 0], way[:, 1, :, :, 0] = 0.3, 0.6
    assert int(now.sum()) == 4
    target = torch.tensor([[[0.7, 0.1, 0.2], [1.4, 0.3, 0.4]]])
    bodies = draw_bodies(frame(now), way, still()[:, 0], HERE, target, OCC3D)
    for k, ahead in enumerate((0.3, 0.6)):
        x, y = to_frame(torch.tensor([5.2 + ahead, 3.2]), target[0, k]).tolist()
        assert torch.equal((bodies.labels[0, k] == PEDESTRIAN).any(-1), disc(x, y))
    assert not (bodies.rest == PEDESTRIAN).any()
    assert (bodies.labels[bodies.labels != FREE] == PEDESTRIAN).all()
    assert set((bodies.labels[0, 0] == PEDESTRIAN).nonzero()[:, 2].tolist()) == {3, 4, 5, 6}


def test_the_middle_of_his_columns_and_the_offset_say_where_he_is_and_the_way_how_far_he_came():
    now, way = disc(8.2, -2.6), still()
    way[..., 0], way[..., 1] = 0.47, -0.31
    offset = still()[:, 0]
    offset[..., 1] = 0.11
    target = torch.tensor([[[0.5, -0.2, 0.6]]])
    bodies = draw_bodies(frame(now), way, offset, HERE, target, OCC3D)
    columns = (bodies.labels[0, 0] == PEDESTRIAN).any(-1)
    middle = torch.stack((X, Y), dim=-1)[now].mean(0)
    there = torch.stack((X, Y), dim=-1)[columns].mean(0) + bodies.offset[0, 0][columns].mean(0)
    assert to_world(there, target[0, 0]).tolist() == pytest.approx(
        [float(middle[0]) + 0.47, float(middle[1]) + 0.11 - 0.31], abs=1e-4
    )
    c, s = math.cos(0.6), math.sin(0.6)
    come = bodies.way[0, 0][columns][0].tolist()
    assert come == pytest.approx([c * 0.47 - s * 0.31, -s * 0.47 - c * 0.31], abs=1e-5)


def test_a_bicycle_that_goes_heads_where_it_goes_and_one_that_stands_as_it_lay():
    lying = ((X - 6.0).abs() < 0.9) & ((Y - 2.2).abs() < 0.3)
    way = still()
    way[..., 1] = 2.0
    target = relative(HERE, HERE)[:, None]
    for displacement, long in ((still(), 0), (way, 1)):
        bodies = draw_bodies(frame(lying, BICYCLE), displacement, still()[:, 0], HERE, target, OCC3D)
        i, j = (bodies.labels[0, 0] == BICYCLE).any(-1).nonzero().unbind(1)
        sides = (int(i.max() - i.min()) + 1, int(j.max() - j.min()) + 1)
        assert sides[long] >= 4 and sides[1 - long] <= 2


def test_who_walks_on_for_a_minute_neither_vanishes_nor_grows():
    labels, pose, offset = frame(disc(5.0, -20.0)), HERE, still()[:, 0]
    for k in range(60):
        target = torch.tensor([[[0.1 * k, 0.0, 0.01 * k]]])
        yaw = float(pose[0, 2])
        way = still()
        way[..., 0], way[..., 1] = 0.5 * math.sin(yaw), 0.5 * math.cos(yaw)  # along the world's y axis
        bodies = draw_bodies(labels, way, offset, pose, target, OCC3D)
        labels, offset, pose = bodies.labels[:, 0], bodies.offset[:, 0], target[:, 0]
        assert 1 <= int((labels == PEDESTRIAN).any(-1).sum()) <= 4
    columns = (labels[0] == PEDESTRIAN).any(-1)
    there = (torch.stack((X, Y), dim=-1) + offset[0])[columns].mean(0)
    assert to_world(there, pose[0]).tolist() == pytest.approx([5.0, -20.0 + 30.0], abs=0.01)


def test_vehicles_a_crowd_and_who_is_cut_by_the_edge_of_the_view_are_left_to_others():
    car, crowd = ((X - 9).abs() < 2) & ((Y - 5).abs() < 0.9), ((X + 9).abs() < 0.6) & ((Y - 5).abs() < 0.6)
    edge = (X == X.max()) & ((Y - 7).abs() < 0.3)
    labels = frame(car, CAR)
    labels[0, :, :, 3:7][crowd | edge] = PEDESTRIAN
    bodies = draw_bodies(labels, still(), still()[:, 0], HERE, HERE[:, None], OCC3D)
    assert torch.equal(bodies.rest, labels) and (bodies.labels == FREE).all()


def test_where_two_meet_the_voxels_have_one_owner_and_worlds_keep_to_themselves():
    one, two = disc(5.0, 3.0), disc(5.0, 5.0)
    labels = torch.cat((frame(one | two), frame(one)))
    way = still().repeat(2, 1, 1, 1, 1)
    way[0, :, :, :, 1] = torch.where(Y > 4, -0.9, 0.9)
    poses = HERE.repeat(2, 1)
    bodies = draw_bodies(labels, way, still()[:, 0].repeat(2, 1, 1, 1), poses, poses[:, None], OCC3D)
    alone = draw_bodies(frame(one), still(), still()[:, 0], HERE, HERE[:, None], OCC3D)
    assert torch.equal(bodies.labels[1], alone.labels[0])
    both = (bodies.labels[0, 0] == PEDESTRIAN).any(-1)
    assert torch.equal(both, disc(5.0, 3.9) | disc(5.0, 4.1))
