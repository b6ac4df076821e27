"""The worlds by name, built only when asked for."""

from __future__ import annotations

from collections.abc import Callable

from occsora_sim.device import check_device
from occsora_sim.envs.config import DriveConfig
from occsora_sim.errors import ConfigurationError
from occsora_sim.worlds.protocol import World


def _diffusion(config: DriveConfig) -> World:
    from occsora_sim.worlds.diffusion import load_world

    given = {} if config.steps is None else {"steps": config.steps}
    return load_world(config.weights, device=config.device, **given)


def _replay(config: DriveConfig) -> World:
    from occsora_sim.worlds.replay import ReplayWorld

    return ReplayWorld(device=config.device)


def _traffic(config: DriveConfig) -> World:
    from occsora_sim.worlds.traffic import TrafficWorld

    return TrafficWorld(device=config.device, vehicle=config.vehicle)


WORLDS: dict[str, Callable[[DriveConfig], World]] = {
    "diffusion": _diffusion,
    "traffic": _traffic,
    "replay": _replay,
}


def make_world(config: DriveConfig) -> World:
    """The world that `config` names, or the one it holds.

    Raises:
        ConfigurationError: no world has this name, or the device cannot be used.

    """
    if not isinstance(config.world, str):
        return config.world
    if config.world not in WORLDS:
        raise ConfigurationError(
            f"world={config.world!r}: choose one of {', '.join(WORLDS)}, or pass a World"
        )
    check_device(config.device)
    return WORLDS[config.world](config)


def close_world(config: DriveConfig, world: World) -> None:
    """Let go of what a world that `make_world` made holds (processes, say); one that was given is its owner's."""
    close = getattr(world, "close", None)
    if isinstance(config.world, str) and close is not None:
        close()
