"""`occsora-sim train encoder`."""

from __future__ import annotations

from occsora_sim.commands.training import train
from occsora_sim.training.encoder import EncoderTraining as Options
from occsora_sim.training.encoder import train_encoder


def run(options: Options) -> None:
    """Train, and say where the encoder is."""
    train(train_encoder, options)
