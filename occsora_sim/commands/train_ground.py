"""`occsora-sim train ground`."""

from __future__ import annotations

from occsora_sim.commands.output import output_folder
from occsora_sim.device import check_device
from occsora_sim.training.ground.train import GroundTraining as Options
from occsora_sim.training.ground.train import train_ground


def run(options: Options) -> None:
    """Train, and say where the weights are."""
    check_device(options.loop.device)
    output_folder(options.out)
    print(train_ground(options))
