"""Presets of the closed-loop world model: functions from a name to a configuration."""

from __future__ import annotations

from collections.abc import Callable

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import OCC3D, Grid
from occsora_sim.models.compensated_tokenizer import CompensatedTokenizerConfig
from occsora_sim.models.world_model import WorldModelConfig


def small() -> WorldModelConfig:
    """The shipped default: the Occ3D grid on a laptop's CPU."""
    return WorldModelConfig(preset="small", grid=OCC3D)


def tiny() -> WorldModelConfig:
    """For tests: a coarse grid, seconds on a CPU."""
    return WorldModelConfig(
        preset="tiny",
        grid=Grid(shape=(48, 48, 16), voxel=0.8, lower=(-19.2, -19.2, -1.0)),
        motion_width=8,
        tokenizer=CompensatedTokenizerConfig(column=8, width=8, latent=4, columns_per_frame=512),
        hidden=32,
        depth=2,
        heads=2,
    )


PRESETS: dict[str, Callable[[], WorldModelConfig]] = {"small": small, "tiny": tiny}
"""Closed-loop presets by name."""


def preset(name: str) -> WorldModelConfig:
    """The configuration of the preset `name`.

    Raises:
        ConfigurationError: there is no such preset.

    """
    if name not in PRESETS:
        raise ConfigurationError(f"preset {name!r} is unknown; choose one of {', '.join(sorted(PRESETS))}")
    return PRESETS[name]()
