"""`occsora-sim train encoder`."""

from __future__ import annotations

from occsora_sim.commands.output import output_folder
from occsora_sim.device import check_device
from occsora_sim.training.encoder import EncoderTraining as Options
from occsora_sim.training.encoder import train_encoder


def run(options: Options) -> None:
    """Train, and say where the encoder is."""
    check_device(options.loop.device)
    output_folder(options.out)
    print(train_encoder(options))
