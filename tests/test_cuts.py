"""Claims about the cuts that the denoiser is trained on."""

import pytest
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.training.cuts import Draws, place_cuts, take_cuts


def test_every_cut_lies_inside_and_holds_a_cell_of_interest():
    interest = torch.full((2, 9, 9), 1e-9)
    interest[0, 0, 8] = interest[1, 5, 5] = 1.0
    corner = place_cuts(interest, Draws(cuts=50, edge=4), torch.Generator().manual_seed(0))
    assert corner.shape == (100, 2) and int(corner.min()) >= 0 and int(corner.max()) <= 5
    cell = torch.tensor([[0, 8]] * 50 + [[5, 5]] * 50)
    assert bool(((cell >= corner) & (cell < corner + 4)).all())
    assert len(corner[50:].unique(dim=0)) > 8  # the cell is not always in the same place of its cut


def test_a_cut_is_the_part_of_its_own_row_behind_its_corner():
    volume = torch.arange(2 * 3 * 25).view(2, 3, 5, 5)
    cuts = take_cuts(volume, torch.tensor([[0, 0], [2, 3], [1, 1], [3, 3]]), 2)
    assert torch.equal(cuts[1], volume[0, :, 2:4, 3:5]) and torch.equal(cuts[2], volume[1, :, 1:3, 1:3])


def test_a_latent_smaller_than_a_cut_is_taken_whole():
    corner = place_cuts(torch.ones(1, 3, 6), Draws(cuts=5, edge=4), torch.Generator().manual_seed(0))
    assert torch.equal(corner[:, 0], torch.zeros(5, dtype=torch.long))
    assert take_cuts(torch.zeros(1, 2, 3, 6), corner, 4).shape == (5, 2, 3, 4)


def test_the_same_generator_places_the_same_cuts():
    one, two = (
        place_cuts(torch.ones(2, 8, 8), Draws(), torch.Generator().manual_seed(seed)) for seed in (3, 3)
    )
    assert torch.equal(one, two)


@pytest.mark.parametrize("odd", [{"whole": 0}, {"cuts": -1}, {"edge": 0}])
def test_draws_without_sense_are_refused(odd):
    with pytest.raises(ConfigurationError, match="draws"):
        Draws(**odd)
