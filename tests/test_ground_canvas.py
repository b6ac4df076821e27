"""Ground on a canvas that follows the ego: what is drawn stays, is read where it lies, and is forgotten far behind."""

import torch
from outpainting.ground import GroundModel
from outpainting.ground_canvas import TILE, GroundCanvas
from outpainting.ground_tokenizer import GroundTokenizer
from outpainting.hourglass import HourglassConfig
from outpainting.outpaint import OutpainterConfig

from occsora_sim.grid import DRIVEABLE, FREE, OCC3D, TERRAIN
from occsora_sim.models.columns import UNSEEN

SIZES = HourglassConfig(width=16, outer=1, inner=32, depth=1, heads=2)


def model() -> GroundModel:
    """A ground model of two kinds of columns with random weights."""
    torch.manual_seed(0)
    palette = torch.full((2, 16), FREE, dtype=torch.uint8)
    palette[0, 2], palette[1, 2] = TERRAIN, DRIVEABLE
    generator = torch.Generator().manual_seed(0)
    book = torch.randint(0, 2, (8, 16), generator=generator, dtype=torch.uint8)
    book[0], book[1] = 0, 1
    plan = OutpainterConfig(codes=4, features=32, token=3.2, window=24, tile=TILE, body=SIZES)
    fine = OutpainterConfig(codes=8, features=32, plan=4, window=24, tile=TILE, body=SIZES)
    return GroundModel(GroundTokenizer(palette, book), torch.arange(4), plan, fine).eval()


def poses(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_recorded_columns_are_read_where_they_were_seen():
    made, origin = model(), poses([5.0, -3.0, 0.7])
    kinds = torch.zeros(1, 48, 48, dtype=torch.uint8)
    kinds[:, 24:] = 1  # road ahead of the origin
    known = torch.ones_like(kinds, dtype=torch.bool)
    known[:, :, 40:] = False
    canvas = made.enter(GroundCanvas.empty(origin), kinds, known, torch.tensor([[-6, -6]]))
    labels = canvas.read(origin, made.tokenizer, OCC3D, UNSEEN)[0, :, :, 2]
    assert (labels[76:100, 76:116] == TERRAIN).all() and (labels[100:124, 76:116] == DRIVEABLE).all()
    assert (labels[76:124, 116:] == UNSEEN).all() and (labels[:76] == UNSEEN).all()
    _, planned = canvas.plan.gather(torch.tensor([[[-3, -3]]]), canvas.first(plan=True), 6)
    assert planned[0, 0, :, :5].all() and not planned[0, 0, :, 5].any()


def test_the_nearest_tile_with_hidden_ground_comes_first():
    canvas = GroundCanvas.empty(poses([0.0, 0.0, 0.0]))
    codes = torch.zeros(1, 1, 32, 32, dtype=torch.int64)
    canvas = GroundCanvas(
        fine=canvas.fine.put(codes, torch.ones_like(codes, dtype=torch.bool), torch.tensor([[[-16, -16]]])),
        plan=canvas.plan, block=canvas.block, origin=canvas.origin,
    )  # fmt: skip
    tiles, wanted = canvas.urgent(poses([10.0, 2.0, 0.0]), 20.0, 4)
    assert tiles[0, 0].tolist() == [1, 0] and tiles[0, 1].tolist() == [1, -1]
    assert wanted.tolist() == [[True, True, False, False]]


@torch.no_grad()
def test_ground_is_drawn_once_alone_as_in_a_batch_and_the_known_stays():
    made, origin = model(), poses([0.0, 0.0, 0.0], [40.0, 9.0, 2.0])
    kinds = torch.ones(2, 80, 80, dtype=torch.uint8)
    canvas = made.enter(GroundCanvas.empty(origin), kinds, kinds.bool(), torch.tensor([[-10, -10]] * 2))
    route = torch.full((2, 4, 2), torch.nan)
    place, seed = torch.tensor([-1, 2]), torch.tensor([3, 4])
    before = canvas
    for _ in range(3):
        canvas = made.draw(canvas, origin, route, place, seed, tiles=2, plans=1, steps=2)
    known = before.fine.known
    assert canvas.fine.known.sum() > known.sum() and canvas.plan.known.sum() > before.plan.known.sum()
    assert torch.equal(canvas.fine.codes[known], before.fine.codes[known])
    alone = before.map(lambda field: field[1:])
    for _ in range(3):
        alone = made.draw(alone, origin[1:], route[1:], place[1:], seed[1:], tiles=2, plans=1, steps=2)
    assert torch.equal(alone.fine.known[0], canvas.fine.known[1])
    assert (alone.fine.codes[0] == canvas.fine.codes[1]).float().mean() > 0.99


def test_a_canvas_follows_the_ego_and_forgets_what_is_far_behind():
    made, origin = model(), poses([0.0, 0.0, 0.0])
    kinds = torch.ones(1, 80, 80, dtype=torch.uint8)
    canvas = made.enter(GroundCanvas.empty(origin), kinds, kinds.bool(), torch.tensor([[-10, -10]]))
    near = canvas.followed(poses([150.0, 0.0, 0.0]))
    assert torch.equal(
        near.read(origin, made.tokenizer, OCC3D, UNSEEN), canvas.read(origin, made.tokenizer, OCC3D, UNSEEN)
    )
    far = canvas.followed(poses([600.0, 0.0, 0.0]))
    assert not far.fine.known.any() and not far.plan.known.any()
    assert (far.followed(poses([0.0, 0.0, 0.0])).read(origin, made.tokenizer, OCC3D, UNSEEN) == UNSEEN).all()


def test_a_saved_model_reads_back(tmp_path):
    made = model()
    made.save(tmp_path / "ground.safetensors", trained_on="nothing")
    again = GroundModel.load(tmp_path / "ground.safetensors")
    assert torch.equal(again.tokenizer.book, made.tokenizer.book)
    assert torch.allclose(again.plan.answer.bias, made.plan.answer.bias, atol=1e-3)
    assert torch.equal(again.fine.described, made.fine.described)
