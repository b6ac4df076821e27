"""Claims about the Lovasz-softmax loss."""

import math

import torch

from occsora_sim.models.lovasz import lovasz_softmax, lovasz_weights


def jaccard_loss(truth: list[bool], predicted: list[bool]) -> float:
    both = sum(a and b for a, b in zip(truth, predicted, strict=True))
    either = sum(a or b for a, b in zip(truth, predicted, strict=True))
    return 1 - both / either


def test_weights_are_the_steps_of_the_jaccard_loss():
    # Ground truth in the order of descending error: set, not, set. Losses after 1, 2, 3 errors: 1/2, 2/3, 1.
    weights = lovasz_weights(torch.tensor([True, False, True]))
    torch.testing.assert_close(weights, torch.tensor([1 / 2, 2 / 3 - 1 / 2, 1 / 3]))


def test_loss_of_certain_predictions_is_the_mean_jaccard_loss():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 0, 1, 1, 2, 2])
    logits = 200.0 * torch.nn.functional.one_hot(predicted, 4).float()
    expected = [jaccard_loss((labels == k).tolist(), (predicted == k).tolist()) for k in range(3)]
    torch.testing.assert_close(lovasz_softmax(logits, labels), torch.tensor(sum(expected) / 3))


def test_perfect_prediction_costs_nothing_and_absent_classes_do_not_count():
    labels = torch.tensor([[3, 3], [5, 3]])
    logits = 200.0 * torch.nn.functional.one_hot(labels, 18).float()
    assert lovasz_softmax(logits, labels).item() < 1e-6


def test_uniform_prediction_of_one_voxel_a_class_has_the_value_worked_out_by_hand():
    # Two classes, p = 1/2 everywhere: all errors are 1/2, so each class costs 1/2 * (sum of weights) = 1/2.
    loss = lovasz_softmax(torch.zeros(2, 2), torch.tensor([0, 1]))
    assert math.isclose(loss.item(), 0.5, rel_tol=1e-6)


def test_descent_reaches_the_labels():
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0, 0])
    logits = torch.zeros(8, 3, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.5)
    for _ in range(40):
        optimiser.zero_grad()
        lovasz_softmax(logits, labels).backward()
        optimiser.step()
    assert torch.equal(logits.argmax(-1), labels)


def test_a_sample_of_the_points_comes_near_the_whole():
    generator = torch.Generator().manual_seed(1)
    labels = (torch.rand(20000, generator=generator) ** 3 * 5).long()
    logits = torch.randn(20000, 5, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 5)
    whole, part = lovasz_softmax(logits, labels), lovasz_softmax(logits, labels, points=4000)
    assert abs(whole - part).item() < 0.02
    assert whole != part
