"""Which training a preset takes: the one place where the closed-loop presets and OccSora's own part ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from occsora_sim.models.occsora_world import OccSoraConfig
from occsora_sim.models.weights import read_config
from occsora_sim.models.world_model import WorldModelConfig
from occsora_sim.presets import preset
from occsora_sim.training import occsora, tokenizer, world_model
from occsora_sim.training.loop import LoopConfig
from occsora_sim.training.tokenizer import TokenizerTraining
from occsora_sim.training.world_model import WorldModelTraining


@dataclass(frozen=True, kw_only=True)
class Family:
    """How the presets of one family are trained.

    Attributes:
        tokenizer: trains the first stage; returns the path of the weights.
        world_model: trains the second.
        tokenizer_loop: how long and how, unless told otherwise.
        world_model_loop: likewise.

    """

    tokenizer: Callable[[TokenizerTraining], Path]
    world_model: Callable[[WorldModelTraining], Path]
    tokenizer_loop: LoopConfig
    world_model_loop: LoopConfig


FAMILIES: dict[type, Family] = {
    WorldModelConfig: Family(
        tokenizer=tokenizer.train_tokenizer,
        world_model=world_model.train_world_model,
        tokenizer_loop=TokenizerTraining().loop,
        world_model_loop=WorldModelTraining().loop,
    ),
    OccSoraConfig: Family(
        tokenizer=occsora.train_tokenizer,
        world_model=occsora.train_world_model,
        tokenizer_loop=occsora.TOKENIZER_LOOP,
        world_model_loop=occsora.DENOISER_LOOP,
    ),
}
"""By the type of a preset's configuration."""


def family(name: str) -> Family:
    """The family of the preset `name`.

    Raises:
        ConfigurationError: there is no such preset.

    """
    return FAMILIES[type(preset(name))]


def family_of_tokenizer(options: WorldModelTraining) -> Family:
    """The family of the preset asked for; of the weights that training begins from where none is.

    Raises:
        ConfigurationError: there is no such preset.
        CheckpointError: the tokenizer's weights are unusable.

    """
    if options.preset is not None:
        return family(options.preset)
    path, kind = options.begins_from
    return FAMILIES[type(read_config(path, kind=kind))]
