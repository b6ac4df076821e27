"""Give weights from before what has been added since, which leaves what they draw as it was until it is trained."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from occsora_sim.models.compensated_tokenizer import CompensatedTokenizerConfig
from occsora_sim.models.world_model import WorldModel, WorldModelConfig


def with_traffic(model: WorldModel) -> WorldModel:
    """The same model with departures, newcomers and a resampler (fresh ones let everybody stand, nobody come and the
    nearest sample answer); itself where it has them.
    """
    config, new = model.config, WorldModelConfig()
    if config.departures and config.newcomers and config.resampler:
        return model
    grown = WorldModel(
        replace(
            config,
            departures=config.departures or new.departures,
            newcomers=config.newcomers or new.newcomers,
            resampler=config.resampler or new.resampler,
        )
    )
    grown.to(model.latent_scale.device).load_state_dict({**grown.state_dict(), **model.state_dict()})
    return grown


def with_small_road_users(model: WorldModel) -> WorldModel:
    """The same model with latent channels for pedestrians, bicycles and motorcycles; itself where it has them.

    The channels' own encoder and decoder are new, and draw whom the compensated past lets expect. In the denoiser the
    channels go in with a weight of zero and come out as zero.
    """
    old = model.config.tokenizer
    if old.small_road_users:
        return model
    tokenizer = replace(old, small_road_users=CompensatedTokenizerConfig().small_road_users)
    device = model.latent_scale.device
    grown = WorldModel(replace(model.config, tokenizer=tokenizer)).to(device)
    state = model.state_dict()
    frames = model.config.frames
    # The channels of the frames of a chunk lie one after another.
    at = torch.cat([torch.arange(old.latent) + k * tokenizer.channels for k in range(frames)]).to(device)
    more = frames * (tokenizer.channels - old.latent)
    stem, head, bias = (state[f"denoiser.{name}"] for name in ("stem.weight", "head.weight", "head.bias"))
    inner = stem.new_zeros(len(stem), stem.shape[1] + more)
    inner[:, at] = stem[:, : len(at)]
    inner[:, frames * tokenizer.channels :] = stem[:, len(at) :]
    state["denoiser.stem.weight"] = inner
    state["denoiser.head.weight"], state["denoiser.head.bias"] = _rows(head, at, more), _rows(bias, at, more)
    grown.load_state_dict({**grown.state_dict(), **state})
    return grown


def _rows(values: Tensor, at: Tensor, more: int) -> Tensor:
    """`values` (n, ...) at the rows `at` of n + more, zero elsewhere."""
    out = values.new_zeros(len(values) + more, *values.shape[1:])
    out[at] = values
    return out
