"""Ground on a canvas that follows the ego: what is drawn stays, is read where it lies, and is forgotten far behind."""

import copy
from dataclasses import replace

import pytest
import torch

from occsora_sim.geometry import to_world
from occsora_sim.grid import DRIVEABLE, FREE, TERRAIN
from occsora_sim.models.columns import UNSEEN
from occsora_sim.models.ground.canvas import GroundCanvas
from occsora_sim.presets import tiny
from occsora_sim.worlds.ground import Ground

GRID, TILE, TOKEN = tiny().grid, tiny().ground.tile, tiny().ground.token


def poses(*rows):
    return torch.tensor(rows, dtype=torch.float32)


@pytest.fixture(scope="module")
def made(untrained_model):
    return untrained_model.ground


def seen(made, origin, columns=80):
    """A canvas on which a square of terrain around the origin is known, driveable ahead of it."""
    labels = torch.full((len(origin), columns, columns, 16), FREE, dtype=torch.uint8)
    labels[..., 2] = TERRAIN
    labels[:, columns // 2 :, :, 2] = DRIVEABLE
    known = torch.ones(labels.shape[:3], dtype=torch.bool)
    return made.enter(origin, made.kinds(labels), known, -columns // 8)


def kinds_at(made, canvas, points):
    kinds, known = canvas.look(torch.tensor(points)[None], made.fine.contents)
    return [int(kind) if there else None for kind, there in zip(kinds[0], known[0], strict=True)]


def test_recorded_columns_are_read_where_they_were_seen(made):
    canvas = seen(made, poses([5.0, -3.0, 0.7]))
    beside = [[-0.1, 3.0], [0.1, 3.0], [31.9, -31.9], [32.1, 0.0]]
    assert kinds_at(made, canvas, beside) == [0, 1, 1, None]
    half = made.enter(
        poses([0.0, 0.0, 0.0]),
        made.kinds(torch.full((1, 16, 16, 16), FREE, dtype=torch.uint8)),
        torch.arange(16).expand(1, 16, 16) < 12,
        -2,
    )
    # A token of the plan is known where all eight columns are.
    assert half.fine.known.sum() == 4 * 3 and half.plan.known.sum() == 2 * 1


def test_the_nearest_tile_with_hidden_ground_comes_first():
    canvas = GroundCanvas.empty(poses([0.0, 0.0, 0.0]), 1.6, 16)
    codes = torch.zeros(1, 1, 32, 32, dtype=torch.int64)
    layer = canvas.fine.put(codes, torch.ones_like(codes, dtype=torch.bool), torch.tensor([[[-16, -16]]]))
    canvas = replace(canvas, fine=layer)
    _, wanted, plan, planned = canvas.urgent(poses([10.0, 2.0, 0.0]), 20.0, 32)
    # Its window begins at x = 12.8 m and lies across four tiles of the plan, of which nothing is known: the plan first.
    assert plan.tolist() == [[0, 0]] and planned.tolist() == [True] and wanted.tolist() == [False]
    codes = torch.zeros(1, 1, 64, 64, dtype=torch.int64)
    layer = canvas.plan.put(codes, torch.ones_like(codes, dtype=torch.bool), torch.tensor([[[-32, -32]]]))
    canvas = replace(canvas, plan=layer)
    tile, wanted, _, planned = canvas.urgent(poses([10.0, 2.0, 0.0]), 20.0, 32)
    assert tile.tolist() == [[1, 0]] and wanted.tolist() == [True] and planned.tolist() == [False]
    _, wanted, _, planned = canvas.urgent(poses([10.0, 2.0, 0.0]), 14.0, 32)
    assert wanted.tolist() == planned.tolist() == [False]


def test_nothing_in_view_stays_hidden_whichever_way_the_ego_looks(made):
    canvas, half = GroundCanvas.empty(poses([0.0, 0.0, 0.0]), TOKEN, TILE), 12.0
    for yaw in (0.0, 0.3, 0.8):
        pose = poses([3.0, -2.0, yaw])
        canvas = made.draw(
            canvas,
            pose,
            torch.full((1, 1, 2), torch.nan),
            torch.tensor([-1]),
            torch.tensor([0]),
            half,
            steps=1,
        )
        axis = torch.linspace(-half + 0.01, half - 0.01, 60)
        inside = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).view(1, -1, 2)
        assert canvas.look(to_world(inside, pose[:, None]), made.fine.contents)[1].all()


def test_ground_is_drawn_once_alone_as_in_a_batch_and_the_known_stays(made):
    origin = poses([0.0, 0.0, 0.0], [40.0, 9.0, 2.0])
    canvas = before = seen(made, origin)
    told = torch.full((2, 4, 2), torch.nan), torch.tensor([-1, 2]), torch.tensor([3, 4])
    pose = to_world_pose(origin, 25.0)
    canvas = made.draw(canvas, pose, *told, 20.0, steps=2)
    known = before.fine.known
    assert canvas.fine.known.sum() > known.sum() and canvas.plan.known.sum() > before.plan.known.sum()
    assert torch.equal(canvas.fine.codes[known], before.fine.codes[known])
    alone = made.draw(
        before.map(lambda field: field[1:]), pose[1:], *(each[1:] for each in told), 20.0, steps=2
    )
    assert torch.equal(alone.fine.known[0], canvas.fine.known[1])
    assert (alone.fine.codes[0] == canvas.fine.codes[1]).float().mean() > 0.999


def to_world_pose(origin, ahead):
    """Poses `ahead` [m] of `origin`."""
    xy = to_world(torch.tensor([ahead, 0.0]).expand(len(origin), 2), origin)
    return torch.cat((xy, origin[:, 2:]), dim=-1)


def test_a_budget_draws_as_many_tiles_in_every_world(made):
    canvas = GroundCanvas.empty(poses([0.0, 0.0, 0.0], [9.0, 0.0, 1.0]), TOKEN, TILE)
    told = torch.full((2, 4, 2), torch.nan), torch.tensor([-1, -1]), torch.tensor([3, 4])
    after = made.draw(canvas, canvas.origin, *told, 30.0, steps=1, tiles=4)
    assert after.fine.known.flatten(1).sum(1).tolist() == [4 * TILE**2] * 2
    assert after.plan.known.flatten(1).sum(1).tolist() == [4 * TILE**2] * 2


def test_a_canvas_follows_the_ego_and_forgets_what_is_far_behind(made):
    origin = poses([0.0, 0.0, 0.0])
    canvas = seen(made, origin)
    near = canvas.followed(poses([150.0, 0.0, 0.0]))
    points = [[-30.0, 5.0], [10.0, 10.0]]
    assert kinds_at(made, near, points) == kinds_at(made, canvas, points) == [0, 1]
    far = canvas.followed(poses([600.0, 0.0, 0.0]))
    assert not far.fine.known.any() and not far.plan.known.any()
    assert kinds_at(made, far.followed(origin), points) == [None, None]


def test_what_was_seen_is_shown_as_it_was_and_the_rest_as_it_was_drawn(made):
    frames = torch.full((1, 2, *GRID.shape), FREE, dtype=torch.uint8)
    frames[..., 2] = DRIVEABLE
    frames[:, :, 20, 20, 2:9] = torch.tensor(
        [14, 3, 14, 3, 14, 3, 14], dtype=torch.uint8
    )  # no kind of the palette
    frames[:, :, :8] = UNSEEN
    at = poses([3.0, 4.0, 0.5], [3.0, 4.0, 0.5])[None]
    ground = Ground.of(frames, at, made, GRID)
    shown = ground.read(at[:, -1:], made, GRID).columns()[:, 0]
    assert torch.equal(shown[:, 8:], frames[:, -1, 8:])
    assert (shown <= FREE).all()  # what was never drawn is no void
    other = copy.deepcopy(made)
    with torch.no_grad():
        other.fine.answer.bias[3] = 50.0
    told = torch.full((1, 4, 2), torch.nan), torch.tensor([-1]), torch.tensor([3])
    drawn = ground.drawn(other, GRID, at[:, -1], *told, steps=2)
    shown = drawn.read(at[:, -1:], other, GRID).columns()[:, 0]
    assert torch.equal(shown[:, 8:], frames[:, -1, 8:]) and (shown[:, :8] == other.palette[3]).all()
    crop = drawn.crops(at[:, -1:].double(), drawn.kinds(other, GRID), other, GRID)
    assert crop.shape[:2] == (1, 1) and len(crop.unique()) >= 2
