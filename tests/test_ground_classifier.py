"""Claims about the classifier that tells drawn ground from recorded ground, and about its crops."""

import pytest
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.scoring.ground_classifier import (
    ClassifierConfig,
    auc,
    auc_over_towns,
    cross_score,
    score,
    train_classifier,
)
from occsora_sim.scoring.ground_crops import commonest

FAST = ClassifierConfig(steps=60)
TOWNS = torch.arange(160) % 8


def streets(seed: int, count: int = 160, side: int = 16) -> torch.Tensor:
    """Crops of terrain with a straight road each, anywhere in it."""
    generator = torch.Generator().manual_seed(seed)
    crops = torch.full((count, side, side), 4, dtype=torch.uint8)
    for crop, at in zip(
        crops, torch.randint(2, side - 4, (count,), generator=generator).tolist(), strict=True
    ):
        crop[at : at + 3] = 1
    return crops


def judged(first: torch.Tensor, second: torch.Tensor, seed: int = 0) -> float:
    scored = cross_score(first, second, (TOWNS, TOWNS), FAST, seed)
    every = torch.ones(160, dtype=torch.bool)
    assert scored is not None
    found = auc_over_towns(scored, (TOWNS, TOWNS), (every, every))
    assert found is not None and found["towns"] == 8 and found["crops"] == 160
    low, high = found["interval"]
    assert low <= found["auc"] <= high
    return found["auc"]


def test_crops_of_one_kind_cannot_be_told_apart():
    assert 0.4 < judged(streets(0), streets(1)) < 0.6


@pytest.mark.parametrize("side", [8, 16])
def test_torn_roads_are_told_from_whole_ones(side):
    torn = streets(0, side=side)
    torn[:, :, side // 2] = 4  # a gap in each
    assert judged(torn, streets(1, side=side)) > 0.95


def test_specks_in_large_crops_are_found():
    whole, specked = streets(0, 48, 64), streets(1, 48, 64)
    where = torch.rand(specked.shape, generator=torch.Generator().manual_seed(2)) > 0.99
    specked[where] = 6
    model = train_classifier(specked[:32], whole[:32], ClassifierConfig(steps=40), 0)
    assert auc(score(model, specked[32:]), score(model, whole[32:])) > 0.95


def test_the_same_seed_gives_the_same_figures():
    torn = streets(0)
    torn[:80, :, 8] = 4
    assert judged(torn, streets(1), 3) == judged(torn, streets(1), 3)


def test_the_auc_counts_pairs_and_halves_ties():
    assert auc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == 1.0
    assert auc(torch.tensor([0.0]), torch.tensor([0.0, 1.0, -1.0, 0.0])) == pytest.approx(0.5)
    assert auc(torch.tensor([1.0, 0.0]), torch.tensor([0.5])) == 0.5
    with pytest.raises(ConfigurationError, match="0 and 1 scores"):
        auc(torch.zeros(0), torch.zeros(1))


def test_towns_that_a_fold_lacks_leave_nothing_to_judge():
    crops, one = streets(0, 4), torch.zeros(4, dtype=torch.long)
    assert cross_score(crops, crops, (one, one), FAST, 0) is None
    assert cross_score(crops[:0], crops[:0], (one[:0], one[:0]), FAST, 0) is None


def test_a_coarse_cell_is_of_its_commonest_kind():
    kinds = torch.full((1, 8, 8), 3, dtype=torch.uint8)
    kinds[0, :4, :3], kinds[0, 4:, :2] = 1, 2
    assert commonest(kinds, 4).tolist() == [[[1, 3], [2, 3]]]
    assert commonest(kinds, 1) is kinds
