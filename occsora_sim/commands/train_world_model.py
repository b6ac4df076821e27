"""`occsora-sim train world-model`."""

from __future__ import annotations

from occsora_sim.commands.output import output_folder
from occsora_sim.device import check_device
from occsora_sim.training.occsora import WorldModelTraining as Options
from occsora_sim.training.occsora import train_world_model


def run(options: Options) -> None:
    """Train, and say where the weights are."""
    check_device(options.loop.device)
    output_folder(options.out)
    print(train_world_model(options))
