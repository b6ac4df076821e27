"""`occsora-sim train traffic`."""

from __future__ import annotations

from occsora_sim.commands.training import train
from occsora_sim.training.traffic import TrafficTraining as Options
from occsora_sim.training.traffic import train_traffic


def run(options: Options) -> None:
    """Train, and say where the weights are."""
    train(train_traffic, options)
