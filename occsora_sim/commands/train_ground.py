"""`occsora-sim train ground`."""

from __future__ import annotations

from occsora_sim.commands.training import train
from occsora_sim.training.ground.train import GroundTraining as Options
from occsora_sim.training.ground.train import train_ground


def run(options: Options) -> None:
    """Train, and say where the weights are."""
    train(train_ground, options)
