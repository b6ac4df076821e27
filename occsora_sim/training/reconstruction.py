"""What a closed-loop tokenizer learns from: the frames that it reconstructs, voxel by voxel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.models.columns import UNSEEN, is_dynamic
from occsora_sim.models.compensated_tokenizer import CompensatedTokenizer
from occsora_sim.models.context import Context


def reconstruction_loss(
    tokenizer: CompensatedTokenizer, labels: Tensor, known: Context, class_weight: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Negative evidence bound (Kingma and Welling 2014, equation 3) of labels (n, x, y, z) uint8 given a flat context
    and `class_weight` (NUM_CLASSES,) float32, and what to log.
    """
    config, device = tokenizer.config, labels.device
    features = tokenizer.context(known)
    mean, log_variance = tokenizer.encode(labels, known, features)
    noise = torch.randn(mean.shape, generator=generator).to(device)
    latent = mean + noise * (0.5 * log_variance).exp()
    kept = torch.rand(len(labels), 1, 1, 1, generator=generator).to(device) >= config.latent_dropout
    latent = latent * kept
    per_token, wrong = voxel_loss(tokenizer, latent, labels, known, features, class_weight, generator)
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
    loss = per_token + config.kl * kl
    with torch.no_grad():
        logs = {
            "tokenizer/loss": loss.detach(),
            "tokenizer/cross_entropy": per_token.detach(),
            "tokenizer/kl": kl.detach(),
            "tokenizer/wrong_voxels_kept": (wrong * kept.flatten()).sum() / kept.sum().clamp(min=1),
            "tokenizer/wrong_voxels_empty": (wrong * ~kept.flatten()).sum() / (~kept).sum().clamp(min=1),
        }
    return loss, logs


def voxel_loss(
    tokenizer: CompensatedTokenizer, latent: Tensor, labels: Tensor, known: Context,
    features: dict[str, Tensor], class_weight: Tensor, generator: torch.Generator,
    columns_per_frame: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Cross-entropy [nats per latent token] of labels (n, x, y, z) decoded from a latent (n, c, h, w), and how many
    voxels of each frame's drawn columns are decoded wrongly (n,).

    It is taken on `columns_per_frame` columns, drawn more often where something changes, with the inverse of that
    odds as weight (square root, so that change still counts more).
    """
    columns = tokenizer.decode_features(latent, features)

    device = labels.device
    count = columns_per_frame or tokenizer.config.columns_per_frame
    static, prior = known.static[:, 0], known.prior[:, 0]
    # A recorded voxel's class is settled: where resampling made the target differ, the record stands.
    target = torch.where((static != UNSEEN) & ~is_dynamic(labels), static, labels)
    changed = (is_dynamic(target) != is_dynamic(prior)).any(-1) | is_dynamic(target).any(-1)
    new = (static == UNSEEN).any(-1)
    odds = 1 + 8.0 * new.flatten(1) + 16.0 * changed.flatten(1)  # (n, x y)
    draw = torch.rand(odds.shape, generator=generator).to(device) ** (1 / odds)
    chosen = draw.topk(min(count, draw.shape[1]), dim=1).indices
    weight = odds.gather(1, chosen) ** -0.5
    z = labels.shape[-1]

    def take(volume: Tensor) -> Tensor:
        flat = volume.reshape(len(volume), -1, volume.shape[-1])
        return flat.gather(1, chosen[..., None].expand(-1, -1, flat.shape[-1])).flatten(0, 1)

    logits = tokenizer.logits(take(columns), take(static), take(prior))
    wanted = take(target).long()
    entropy = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view(-1, z)
    entropy = entropy * class_weight[wanted]
    tokens = latent.shape[-2] * latent.shape[-1]
    per_token = (entropy.sum(-1) * weight.flatten()).sum() / (len(labels) * tokens)
    wrong = (logits.detach().argmax(-1) != wanted).float().sum(-1).view(len(labels), -1).sum(1)
    return per_token, wrong
