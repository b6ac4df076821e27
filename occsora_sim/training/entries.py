"""What the entries learn from recorded tracks: who came into view of recorded ego motions."""

from __future__ import annotations

from torch import Tensor

from occsora_sim.models.entries import Entries
from occsora_sim.models.entry_view import view_image
from occsora_sim.training.entry_samples import Samples


def entries_loss(entries: Entries, samples: Samples) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of samples on the device of `entries`, and what to log."""
    config = entries.config
    image = view_image(
        samples.users, samples.ground, samples.pose, samples.new, samples.route, config.grid, config.margin
    )
    condition = entries.conditions(
        samples.prompt, samples.vehicles, samples.speed, samples.new, samples.route
    )
    return entries.loss(image, condition, samples.entered, samples.weight)
