"""The Lovasz-softmax loss: a surrogate of the mean Jaccard loss (Berman, Triki & Blaschko, CVPR 2018)."""

from __future__ import annotations

import torch


def lovasz_weights(truth: torch.Tensor) -> torch.Tensor:
    """How much the Jaccard loss rises with each further error, errors taken in descending order.

    Algorithm 1 of the paper: the discrete derivative of 1 - intersection / union.

    Args:
        truth: (n,) bool, True where the voxel has the class, in the order of descending error.

    Returns:
        (n,) float32; the sum is 1 when n > 0.

    """
    # Counts are integers: a float32 sum stands still at 2^24, and a clip has more voxels than that.
    right = truth.cumsum(0)
    wrong = (~truth).cumsum(0)
    jaccard = 1.0 - (right[-1] - right) / (right[-1] + wrong).clamp_min(1)
    return torch.diff(jaccard, prepend=jaccard.new_zeros(1))


def lovasz_softmax(logits: torch.Tensor, labels: torch.Tensor, *, points: int | None = None) -> torch.Tensor:
    """Mean over the classes present of the Lovasz extension of each class's Jaccard loss.

    One sort a class: O(classes * n log n). The classes are taken one by one: memory stays at a few times n.

    Args:
        logits: (..., classes) float.
        labels: (...,) integer labels.
        points: use at most this many voxels, each class in its proportion, evenly spaced through the
            flattened input: the sort is what costs. None: all.

    Returns:
        Scalar in [0, 1]; 0 when there is none.

    """
    classes = logits.shape[-1]
    logits, labels = logits.reshape(-1, classes), labels.reshape(-1).long()
    if labels.numel() == 0:
        return logits.sum() * 0.0
    if points is not None and labels.numel() > points:
        # Sorted by class first, an even stride is a stratified sample; it needs no random numbers.
        order = labels.argsort(stable=True)
        chosen = order[torch.arange(points, device=labels.device) * labels.numel() // points]
        logits, labels = logits[chosen], labels[chosen]
    # The sums run over millions of voxels: float32 even where autocast made the logits bf16.
    probabilities = logits.float().softmax(dim=-1)
    losses = []
    for label in labels.unique().tolist():
        truth = labels == label
        errors, order = (truth.float() - probabilities[:, label]).abs().sort(descending=True)
        losses.append(torch.dot(errors, lovasz_weights(truth[order])))
    return torch.stack(losses).mean()
