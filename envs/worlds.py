"""The worlds by name, built only when asked for."""

from __future__ import annotations

from collections.abc import Callable

from occsora_sim.envs.config import DriveConfig
from occsora_sim.errors import ConfigurationError
from occsora_sim.worlds.protocol import World


def _diffusion(config: DriveConfig) -> World:
    from occsora_sim.worlds.diffusion import load_world

    return load_world(config.weights, device=config.device)


def _replay(config: DriveConfig) -> World:
    from occsora_sim.worlds.replay import ReplayWorld

    return ReplayWorld(device=config.device)


WORLDS: dict[str, Callable[[DriveConfig], World]] = {"diffusion": _diffusion, "replay": _replay}


def make_world(config: DriveConfig) -> World:
    """The world that `config` names, or the one it holds.

    Raises:
        ConfigurationError: no world has this name.

    """
    if not isinstance(config.world, str):
        return config.world
    if config.world not in WORLDS:
        raise ConfigurationError(
            f"world={config.world!r}: choose one of {', '.join(WORLDS)}, or pass a World"
        )
    return WORLDS[config.world](config)
