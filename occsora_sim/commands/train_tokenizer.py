"""`occsora-sim train tokenizer`."""

from __future__ import annotations

from occsora_sim.commands.training import train
from occsora_sim.training.occsora import TokenizerTraining as Options
from occsora_sim.training.occsora import train_tokenizer


def run(options: Options) -> None:
    """Train, and say where the weights are."""
    train(train_tokenizer, options)
