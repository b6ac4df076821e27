"""`occsora-sim train world-model`."""

from __future__ import annotations

from dataclasses import replace

from occsora_sim.commands.output import output_folder
from occsora_sim.device import check_device
from occsora_sim.training.families import family_of_tokenizer
from occsora_sim.training.world_model import WorldModelTraining as Options


def defaults(options: Options) -> Options:
    """What holds where nothing is said, for the preset asked for in `options` or its tokenizer's."""
    if options.preset is None and not options.begins_from[0].is_file():
        return Options()  # help is given all the same; `run` says what is missing
    return replace(Options(), loop=family_of_tokenizer(options).world_model_loop)


def run(options: Options) -> None:
    """Train, and say where the weights are."""
    check_device(options.loop.device)
    train = family_of_tokenizer(options).world_model
    output_folder(options.out)
    print(train(options))
