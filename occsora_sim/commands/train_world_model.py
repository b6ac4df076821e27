"""`occsora-sim train world-model`."""

from __future__ import annotations

from occsora_sim.commands.training import train
from occsora_sim.training.occsora import WorldModelTraining as Options
from occsora_sim.training.occsora import train_world_model


def run(options: Options) -> None:
    """Train, and say where the weights are."""
    train(train_world_model, options)
