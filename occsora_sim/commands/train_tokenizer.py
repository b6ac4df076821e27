"""`occsora-sim train tokenizer`."""

from __future__ import annotations

from dataclasses import replace

from occsora_sim.commands.output import output_folder
from occsora_sim.device import check_device
from occsora_sim.training.families import family
from occsora_sim.training.tokenizer import TokenizerTraining as Options


def defaults(options: Options) -> Options:
    """What holds where nothing is said, for the preset asked for in `options`."""
    return replace(Options(), loop=family(options.preset).tokenizer_loop)


def run(options: Options) -> None:
    """Train, and say where the weights are."""
    check_device(options.loop.device)
    output_folder(options.out)
    print(family(options.preset).tokenizer(options))
