"""What the entries learn from recorded tracks: who came into view of recorded ego motions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from occsora_sim.models.entries import START_SLOTS, STEP_SLOTS, Entries, unasked
from occsora_sim.models.entry_view import GROUPS, group_of, view_image
from occsora_sim.training.entry_samples import EntrySampler, Samples

_BATCH = 32

_PLAUSIBLE = (0.5, 1.5)
"""Where few were recorded chance has its say, and is not to be made good."""


def entries_loss(entries: Entries, samples: Samples) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of samples on the device of `entries`, and what to log."""
    config = entries.config
    setting = samples.setting(config.margin).rows()
    image = view_image(samples.users, setting, config.grid, config.margin)
    condition = entries.conditions(samples.prompt, samples.vehicles, setting)
    return entries.loss(image, condition, samples.entered, samples.weight, samples.lanes)


@torch.no_grad()
def measure_kept(entries: Entries, sampler: EntrySampler, frames: int = 2048, rounds: int = 2) -> None:
    """Set `entries.kept`: candidates that overlap give way, and fewer enter than the rates say. That is made good in
    `rounds`, since of more candidates more give way, where no number of vehicles is asked for; a sixteenth of `frames`
    are starts.
    """
    rng = np.random.default_rng(0)
    for begins, slots, count in ((0, STEP_SLOTS, frames), (1, START_SLOTS, frames // 16)):
        for turn in range(rounds):
            came, recorded = torch.zeros(len(GROUPS)), torch.zeros(len(GROUPS))
            for first in range(0, count, _BATCH):
                ahead = rng.integers(0 if begins else 17, size=_BATCH, endpoint=bool(begins))
                start = np.full(_BATCH, bool(begins))
                samples = sampler.frames(rng.integers(len(sampler), size=_BATCH), start, ahead)
                recorded += torch.bincount(group_of(samples.entered.label), minlength=len(GROUPS))
                on = samples.to(entries.kept.device)
                key = torch.stack((torch.full((_BATCH,), turn), first + torch.arange(_BATCH)), dim=1)
                (entered,) = entries.enter(
                    on.users, on.setting(entries.config.margin), prompt=unasked(on.prompt),
                    key=key[:, None].to(on.pose.device), slots=slots, guided=False,
                )  # fmt: skip
                came += torch.bincount(group_of(entered.label[entered.valid]).cpu(), minlength=len(GROUPS))
            share = torch.where(recorded > 0, came / recorded.clamp(min=1), 1.0).clamp(*_PLAUSIBLE)
            entries.kept[begins] *= share.to(entries.kept)
