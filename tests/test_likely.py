"""Codes drawn without freaks: mixtures as often as their chances say, their shapes from the likely ones alone."""

import torch

from occsora_sim.models.ground.likely import Likely

CODES = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 2], [2, 2, 2]])
"""Lawn, three times lawn with a house, two of them, and a road."""

P = torch.tensor([0.5, 0.2, 0.16, 0.04, 0.02, 0.08])


def shares(likely: Likely, p=P) -> torch.Tensor:
    """How often each code is drawn, of chances spread evenly over [0, 1)."""
    chance = (torch.arange(100_000, dtype=torch.float64) / 100_000).float()[:, None]
    drawn = likely.draw(p.expand(len(chance), -1), chance)
    return torch.bincount(drawn, minlength=len(p)).double() / len(chance)


def test_codes_that_hold_the_same_parts_are_a_mixture():
    mixtures = Likely.of(CODES, 0.0, 0.0).mixtures
    assert sorted(map(tuple, mixtures.long().tolist())) == sorted(
        [(1, 0, 0, 0, 0, 0), (0, 1, 1, 1, 0, 0), (0, 0, 0, 0, 1, 0), (0, 0, 0, 0, 0, 1)]
    )


def test_with_nothing_cut_all_are_drawn_as_often_as_they_should_be():
    assert torch.allclose(shares(Likely.of(CODES, 0.0, 0.0)), P.double(), atol=1e-4)


def test_an_unlikely_shape_is_not_drawn_but_what_it_holds_is_as_often():
    found = shares(Likely.of(CODES, 0.0, 0.5))  # 0.04 is less than half of 0.2
    expected = torch.tensor([0.5, 0.4 * 5 / 9, 0.4 * 4 / 9, 0.0, 0.02, 0.08], dtype=torch.float64)
    assert torch.allclose(found, expected, atol=1e-4)


def test_an_unlikely_mixture_is_not_drawn_at_all():
    found = shares(Likely.of(CODES, 0.1, 0.0))  # 0.02 is less than a tenth of 0.5, 0.08 is not
    kept = P.double() * torch.tensor([1, 1, 1, 1, 0, 1])
    assert torch.allclose(found, kept / kept.sum(), atol=1e-4)


def test_no_code_without_a_chance_is_drawn():
    p = torch.tensor([0.0, 0.0, 0.3, 0.0, 0.0, 0.7])
    for cut in (Likely.of(CODES, 0.02, 0.5), Likely.of(CODES, 0.0, 0.0)):
        ends = torch.tensor([[0.0], [2.0**-23], [1 - 2.0**-24]])
        assert set(cut.draw(p.expand(3, -1), ends).tolist()) <= {2, 5}
        assert shares(cut, p)[[0, 1, 3, 4]].sum() == 0
