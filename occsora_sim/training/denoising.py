"""What a closed-loop denoiser learns from: chunks noised whole and in cuts, and what is decoded of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from occsora_sim.models.columns import UNSEEN, is_dynamic
from occsora_sim.models.context import Context, unseen
from occsora_sim.models.flow import flow_loss, noise_levels
from occsora_sim.models.prompt import keep_mask
from occsora_sim.models.scene_condition import leave_open
from occsora_sim.models.world_model import WorldModel
from occsora_sim.training.cuts import Draws, place_cuts, take_cuts
from occsora_sim.training.reconstruction import voxel_loss

_VOXEL_WEIGHT = 0.1  # of the cross-entropy [nats per latent token] beside the squared error of unit latents


def denoiser_loss(
    model: WorldModel, labels: Tensor, known: Context, prompt: Tensor, class_weight: Tensor,
    generator: torch.Generator, draws: Draws, scene: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """The denoiser's loss on chunks: squared error of the latent, on whole frames and on cuts from them (`Draws`);
    and, where a whole frame starts from pure noise, the cross-entropy of what the frozen decoder makes of one of
    its frames. That first estimate is the mean that forecasts are scored by, and distance between latents does not
    tell the numbers that a voxel hangs on from those that change nothing. Later estimates are left to the squared
    error alone, since a sampler needs conditional means.

    Args:
        model: its denoiser learns.
        labels: (b, f, x, y, z) uint8, the true future.
        known: its context, (b, f, ...).
        prompt: (b, f, 3), the ego's future poses relative to the present one.
        class_weight: (NUM_CLASSES,) float32, of the cross-entropy.
        generator: of noise, levels, prompt dropout and what is drawn.
        draws: how many draws are made of each chunk, and of what size.
        scene: (b, 2) scene prompts; None: open.

    Returns:
        the loss, and what to log.

    """
    config, tokenizer = model.config, model.tokenizer
    flat = known.flatten()
    with torch.no_grad():
        features = tokenizer.context(flat)
        # Where the record differs from what is there, the record stands: nothing may be spent on it.
        recorded = (known.static != UNSEEN) & ~is_dynamic(labels)
        mean, _ = tokenizer.encode(torch.where(recorded, known.static, labels).flatten(0, 1), flat, features)
        x = model.chunk(mean).transpose(1, 2) * model.latent_scale  # (b, f c, 1, h, w)
        weight = _cell_weight(model, labels, known)  # (b, f c, 1, h, w)
        context = model.chunk(features["eighth"])
    keep = keep_mask(len(labels), config.prompt_dropout, generator, labels.device)
    if scene is not None:
        scene = leave_open(scene, config.scene_dropout, generator)
    condition = model.condition(scene)

    whole = min(draws.whole, len(labels))
    rows = torch.randperm(len(labels), generator=generator)[:whole].to(labels.device)
    level = noise_levels(whole, generator)
    pure = -(-whole // 2)
    level[:pure] = 1.0
    denoise = model.denoising(
        context[rows],
        prompt[rows],
        keep=keep[rows],
        condition=None if condition is None else condition[rows],
    )
    distance, estimate = flow_loss(denoise, x[rows], weight[rows], generator, level)
    frame = int(torch.randint(config.frames, (), generator=generator))
    at = rows[:pure] * config.frames + frame  # this frame of each pure chunk
    entropy, wrong = voxel_loss(
        tokenizer,
        model.frames(estimate[:pure])[frame :: config.frames],
        labels[rows[:pure], frame],
        Context(static=flat.static[at], prior=flat.prior[at], auxiliary=flat.auxiliary[at]),
        {name: part[at] for name, part in features.items()},
        class_weight,
        generator,
        config.tokenizer.columns_per_frame // 2,
    )
    cut = distance.new_zeros(())
    if draws.cuts:
        cut = _cut_loss(model, x, weight, context, prompt, keep, condition, generator, draws)
    loss = distance + cut + _VOXEL_WEIGHT * entropy
    with torch.no_grad():
        error = (estimate - x[rows]).pow(2).mean() / x[rows].pow(2).mean()
    return loss, {
        "world_model/loss": loss.detach(),
        "world_model/distance": distance.detach(),
        "world_model/cut_distance": cut.detach(),
        "world_model/cross_entropy": entropy.detach(),
        "world_model/relative_error": error,
        "world_model/wrong_voxels": wrong.mean(),
    }


def _cell_weight(model: WorldModel, labels: Tensor, known: Context) -> Tensor:
    """Weight of each latent cell (b, f c, 1, h, w): 1, and up to 3 more each for new ground and for road users that
    nothing known tells of.
    """
    appears = is_dynamic(labels).any(-1) & ~is_dynamic(known.prior).any(-1)
    both = torch.stack((unseen(known.static).float(), appears.float()), dim=2).flatten(0, 1)  # (b f, 2, x, y)
    share, some = nn.functional.avg_pool2d(both[:, :1], 8), nn.functional.max_pool2d(both[:, 1:], 8)
    weight = 1 + 3 * share + 3 * some
    return model.chunk(weight.expand(-1, model.config.tokenizer.latent, -1, -1)).transpose(1, 2)


def _cut_loss(
    model: WorldModel, x: Tensor, weight: Tensor, context: Tensor, prompt: Tensor, keep: Tensor,
    condition: Tensor | None, generator: torch.Generator, draws: Draws,
) -> Tensor:  # fmt: skip
    """Squared error on cuts, placed where there is something to draw."""
    corner = place_cuts(weight.amax(1)[:, 0] - 0.95, draws, generator)
    denoise = model.denoising(
        take_cuts(context, corner, draws.edge),
        prompt.repeat_interleave(draws.cuts, dim=0),
        keep=keep.repeat_interleave(draws.cuts),
        condition=None if condition is None else condition.repeat_interleave(draws.cuts, dim=0),
        corner=corner,
    )
    x, weight = take_cuts(x, corner, draws.edge), take_cuts(weight, corner, draws.edge)
    return flow_loss(denoise, x, weight, generator)[0]
