"""`occsora-sim train tokenizer`."""

from __future__ import annotations

from occsora_sim.commands.output import output_folder
from occsora_sim.device import check_device
from occsora_sim.training.occsora import TokenizerTraining as Options
from occsora_sim.training.occsora import train_tokenizer


def run(options: Options) -> None:
    """Train, and say where the weights are."""
    check_device(options.loop.device)
    output_folder(options.out)
    print(train_tokenizer(options))
