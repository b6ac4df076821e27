"""New ground by masked diffusion: what is known stays, a tile's draw is its own, masks look like driving."""

import math

import pytest
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.models.ground.hourglass import Hourglass, HourglassConfig, rotary
from occsora_sim.models.ground.outpainter import (
    Outpainter,
    OutpainterConfig,
    route_features,
    shown_in_order,
    tile_key,
)
from occsora_sim.training.ground.crops import TokenCrops
from occsora_sim.training.ground.loss import outpaint_loss
from occsora_sim.training.ground.masks import known_ground, shown_ground
from occsora_sim.training.muon import orthogonal

SIZES = HourglassConfig(width=16, outer=1, inner=32, depth=1, heads=2)


def painter(plan=0) -> Outpainter:
    """A small outpainter of ten codes with random weights throughout."""
    torch.manual_seed(0)
    config = OutpainterConfig(codes=10, parts=2, values=4, plan=plan, window=16, tile=8, body=SIZES)
    model = Outpainter(config)
    model.contents.copy_(torch.stack((torch.arange(10) % 4, torch.arange(10) // 4), dim=-1))
    for parameter in model.parameters():
        if float(parameter.detach().abs().sum()) == 0:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def window(count, plan=0):
    """Random codes, half of them known, with a route through the middle."""
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 10, (count, 16, 16), generator=generator)
    known = torch.rand(count, 16, 16, generator=generator) < 0.5
    x = torch.arange(-15.0, 15.0)
    route = torch.stack((x, torch.zeros_like(x)), dim=-1).expand(count, -1, -1)
    planned = torch.randint(0, plan, (count, 8, 8), generator=generator) if plan else None
    key = tile_key(torch.arange(count), torch.stack((torch.arange(count), -torch.arange(count)), dim=-1))
    return codes, known, route_features(route, 16, 1.6), torch.full((count,), -1), key, planned


@torch.no_grad()
def test_known_tokens_stay_and_a_draw_does_not_depend_on_the_batch():
    model, (codes, known, route, place, key, plan) = painter(plan=6), window(3, plan=6)
    drawn = model.draw(codes, known, route, place, key, plan, steps=4)
    inside = (slice(None), slice(4, 12), slice(4, 12))
    assert drawn.shape == (3, 8, 8) and (drawn == codes[inside])[known[inside]].all()
    alone = model.draw(codes[2:], known[2:], route[2:], place[2:], key[2:], plan[2:], steps=4)
    assert (alone[0] == drawn[2]).float().mean() > 0.98  # floats may differ in the last digit
    other = model.draw(codes, known, route, place, key + 1, plan, steps=4)
    assert not torch.equal(other, drawn)


@torch.no_grad()
def test_what_is_hidden_is_not_looked_at_and_nothing_hidden_is_nothing_drawn():
    model, (codes, known, route, place, key, _) = painter(), window(2)
    garbled = torch.where(known, codes, (codes + 3) % 10)
    assert torch.equal(
        model.draw(codes, known, route, place, key, steps=3),
        model.draw(garbled, known, route, place, key, steps=3),
    )
    drawn = model.draw(codes, torch.ones_like(known), route, place, key, steps=3)
    assert torch.equal(drawn, codes[:, 4:12, 4:12])


@torch.no_grad()
def test_the_expectation_is_the_code_of_which_most_is_expected_to_be_right():
    model, (codes, known, route, place, key, _) = painter(), window(1)
    known[:] = False
    first = model.draw(codes, known, route, place, key, steps=1, expected=True)
    p = model.logits(model(codes, known, route, place))[:, 4:12, 4:12].softmax(-1)
    alike = (model.contents[:, None] == model.contents[None]).sum(-1).float()  # parts in common
    assert torch.equal(first, (p @ alike).argmax(-1))
    assert torch.equal(first, model.draw(codes, known, route, place, key + 1, steps=1, expected=True))


def test_tokens_that_are_shown_together_are_far_apart_and_the_known_come_last():
    known = torch.zeros(2, 16, 16, dtype=torch.bool)
    known[1, 0] = True
    order, total = shown_in_order(known, torch.tensor([[0.0, 0.0], [0.3, 0.9]]), 16, 0.0)
    assert total.tolist() == [[256], [240]] and (order.sort(dim=1).values == torch.arange(256)).all()
    assert order[0, :3].tolist() == [0, 8 * 16 + 5, 4 * 16 + 10]  # (0, 0), (1/2, 1/3), (1/4, 2/3)
    assert known[1].flatten()[order[1, 240:]].all()
    first = torch.stack((order[0, :16] // 16, order[0, :16] % 16), dim=-1).float()
    away = (first[:, None] - first).norm(dim=-1) + 99 * torch.eye(16)
    assert float(away.amin()) > 2.0  # none beside another, as of sixteen at random some are


def test_a_plan_grows_out_of_what_is_known():
    known = torch.zeros(1, 24, 24, dtype=torch.bool)
    known[:, :, :4] = True  # before the tile along y
    order, total = shown_in_order(known, torch.zeros(1, 2), 16, 1.0)
    assert int(total) == 256 and (order.sort(dim=1).values == torch.arange(256)).all()
    away = (order[0] % 16).float()
    assert away[:64].mean() < 3.5 < 11.5 < away[-64:].mean()
    nothing = shown_in_order(known & False, torch.zeros(1, 2), 16, 1.0)[0]
    assert torch.equal(nothing, shown_in_order(known & False, torch.zeros(1, 2), 16, 0.0)[0])


def test_unknown_tokens_are_neither_seen_nor_asked_for():
    model, (codes, _, route, place, _, _) = painter(), window(2)
    seen = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(2)) < 0.6
    losses = []
    for garbled in (codes, torch.where(seen, codes, (codes + 3) % 10)):
        crops = TokenCrops(codes=garbled, seen=seen, route=route, place=place)
        losses.append(outpaint_loss(model, crops, 20.0, torch.Generator().manual_seed(0))[0])
    assert torch.equal(*losses)


def test_a_token_is_told_how_far_the_route_is_and_where_it_leads():
    route = torch.tensor([[[-9.0, 0.8], [0.8, 0.8], [9.0, 0.8], [math.nan, math.nan]]])
    features = route_features(route, 4, 1.6)[0]
    on = features[2, 2]  # the token whose middle is (0.8, 0.8)
    assert on.tolist() == pytest.approx([1.0, 0.0, 0.0, 1.0, 0.0], abs=1e-5)
    beside = features[2, 1]  # its middle is (0.8, -0.8)
    near = 1 - 1.6 / 12
    assert beside.tolist() == pytest.approx([near, 0.0, near * 0.2, near, 0.0], abs=1e-4)
    nothing = route_features(torch.full((1, 3, 2), math.nan), 4, 1.6)
    assert not nothing.any()


def test_a_route_of_kilometres_is_told_as_its_part_in_the_window_is():
    """Its other points are left out: the work of a window would grow with them."""
    far = torch.arange(-3000.0, 3000.0)
    route = torch.stack((far, 4 * torch.sin(far / 9)), dim=-1)[None]
    part = route[:, 2900:3100]
    assert torch.equal(route_features(route, 16, 1.6), route_features(part, 16, 1.6))


def test_an_hourglass_knows_relative_places_alone():
    """A window moved by two tokens answers the same, moved, where the rim is far."""
    torch.manual_seed(0)
    model = Hourglass(SIZES)
    for parameter in model.parameters():
        if float(parameter.detach().abs().sum()) == 0:
            torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 8, 8, 16)
    assert model(x).shape == x.shape
    turned = model.blocks[0](torch.ones(1, 16, 32), _turn(0))
    moved = model.blocks[0](torch.ones(1, 16, 32), _turn(5))
    assert torch.allclose(turned, moved, atol=1e-5)


def _turn(by):
    cos, sin = rotary(4 + by, 4 + by, 16, torch.device("cpu"))
    return tuple(part.view(4 + by, 4 + by, -1)[by:, by:].flatten(0, 1) for part in (cos, sin))


def test_masks_hide_nothing_all_or_a_side_and_show_more_halfway():
    generator = torch.Generator().manual_seed(0)
    known = known_ground(400, 32, 16, 50.0, generator)
    share = known.flatten(1).float().mean(-1)
    assert (
        0.08 < float((share == 0).float().mean()) < 0.4
    )  # the tenth, and views that do not reach the window
    assert 0.25 < float(share.mean()) < 0.65
    shown = shown_ground(known, 16, generator)
    assert (shown | ~known).all() and float(shown.float().mean()) > float(share.mean()) + 0.1


def test_muon_makes_steps_orthogonal():
    matrix = torch.randn(24, 40, generator=torch.Generator().manual_seed(0)) @ torch.diag(
        torch.logspace(0, -2, 40)
    )
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert 0.5 < float(values.min()) and float(values.max()) < 1.4
    assert orthogonal(matrix.T).shape == (40, 24)


@pytest.mark.parametrize("wrong", [{"window": 18}, {"tile": 64}, {"codes": 0}, {"plan": -1}, {"values": 0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        OutpainterConfig(**{"codes": 10, "parts": 2, "values": 4, **wrong})
