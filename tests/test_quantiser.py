"""Claims about the quantisers."""

import math

import pytest
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.models.quantiser import FiniteQuantiser, IdentityQuantiser, VectorQuantiser


def plain(codes: list[list[float]], **options) -> VectorQuantiser:
    """A quantiser with these codes, whose projections are the identity."""
    quantiser = VectorQuantiser(len(codes), len(codes[0]), **options)
    with torch.no_grad():
        quantiser.codes.copy_(torch.tensor(codes))
        for layer in (quantiser.project_in, quantiser.project_out):
            layer.weight.copy_(torch.eye(len(codes[0]))[:, :, None, None, None])
            assert layer.bias is not None
            layer.bias.zero_()
    return quantiser


def latent(vectors: list[list[float]]) -> torch.Tensor:
    """Vectors (n, c) as a latent (1, c, 1, 1, n)."""
    return torch.tensor(vectors).T[None, :, None, None]


def test_each_vector_goes_to_its_nearest_code():
    answer = plain([[0.0, 0.0], [10.0, 0.0], [0.0, 4.0]])(latent([[9.0, 1.0], [0.4, -0.2], [-1.0, 3.0]]))
    assert answer.indices.flatten().tolist() == [1, 0, 2]
    torch.testing.assert_close(answer.latent, latent([[10.0, 0.0], [0.0, 0.0], [0.0, 4.0]]))


def test_mixed_precision_does_not_mix_up_codes_that_lie_close_together():
    # In bf16 both codes are 1.0, and so would be their distances.
    quantiser, given = plain([[1.0, 0.0], [1.001, 0.0]]), latent([[1.0009, 0.0], [1.0001, 0.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert quantiser._nearest(given[0, :, 0, 0].T).tolist() == [1, 0]


def test_loss_is_the_squared_distance_weighted_on_both_sides():
    # Squared errors 1 and 4 over two vectors of two numbers: mean 5 / 4; once, and 0.25 times.
    answer = plain([[0.0, 0.0], [9.0, 9.0]], commitment=0.25)(latent([[1.0, 0.0], [9.0, 7.0]]))
    assert answer.loss.item() == pytest.approx(1.25 * (1 + 0.25))


def test_gradients_pass_straight_through_to_the_encoder():
    given = latent([[1.0, 0.0], [9.0, 7.0]]).requires_grad_()
    weight = torch.tensor([2.0, -3.0])[None, :, None, None, None]
    (plain([[0.0, 0.0], [9.0, 9.0]])(given).latent * weight).sum().backward()
    torch.testing.assert_close(given.grad, weight.expand_as(given))


def test_codes_move_towards_their_vectors():
    quantiser = plain([[0.0, 0.0], [9.0, 9.0]])
    quantiser(latent([[1.0, 0.0]])).loss.backward()
    assert quantiser.codes.grad is not None
    assert quantiser.codes.grad[0, 0] < 0 and quantiser.codes.grad[1].abs().sum() == 0


def test_perplexity_counts_the_codes_in_use():
    quantiser = plain([[0.0], [1.0], [2.0], [3.0]])
    assert quantiser(latent([[0.0], [1.0]])).perplexity.item() == pytest.approx(2.0)
    assert quantiser(latent([[0.0], [0.1]])).perplexity.item() == pytest.approx(1.0)
    three_to_one = quantiser(latent([[0.0], [0.0], [0.0], [1.0]])).perplexity.item()
    assert three_to_one == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_finite_levels_lie_evenly_from_end_to_end_and_a_code_is_their_combination():
    quantiser = FiniteQuantiser((3, 2))
    answer = quantiser(latent([[-9.0, -9.0], [0.1, 9.0], [9.0, 0.1]]))
    torch.testing.assert_close(answer.latent, latent([[-1.0, -1.0], [0.0, 1.0], [1.0, 1.0]]))
    assert answer.indices.flatten().tolist() == [0, 1 + 3, 2 + 3]
    assert answer.perplexity.item() == pytest.approx(3.0) and answer.loss.item() == 0


def test_finite_levels_let_gradients_through_as_if_nothing_were_rounded():
    given = latent([[0.3, -2.0]]).requires_grad_()
    FiniteQuantiser((8, 5))(given).latent.sum().backward()
    torch.testing.assert_close(given.grad, 1 - given.detach().tanh() ** 2)


def test_drawn_latents_go_to_the_nearest_finite_code_and_codes_stay():
    quantiser = FiniteQuantiser((3, 2))
    snapped = quantiser.snap(latent([[0.4, -0.1], [-1.7, 5.0]]))
    torch.testing.assert_close(snapped, latent([[0.0, -1.0], [-1.0, 1.0]]))
    assert torch.equal(quantiser.snap(snapped), snapped)


def test_identity_changes_nothing_and_costs_nothing():
    given = latent([[1.0, 2.0]])
    answer = IdentityQuantiser()(given)
    assert answer.latent is given and answer.indices is None and answer.loss.item() == 0


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigurationError, match="codes"):
        VectorQuantiser(0, 4)
    with pytest.raises(ConfigurationError, match="levels"):
        FiniteQuantiser((8, 1))
