"""The worlds by name, built only when asked for."""

from __future__ import annotations

from collections.abc import Callable

from occsora_sim.device import check_device
from occsora_sim.envs.config import DriveConfig
from occsora_sim.errors import ConfigurationError
from occsora_sim.quantities import written
from occsora_sim.worlds.protocol import World


def _diffusion(config: DriveConfig) -> World:
    from occsora_sim.worlds.diffusion import load_world

    given = {} if config.steps is None else {"steps": config.steps}
    return load_world(
        config.weights,
        device=config.device,
        vehicle=config.vehicle,
        tiles=config.tiles,
        ahead=config.ahead,
        **given,
    )


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
        ConfigurationError: no world has this name, it is no World, or the device cannot be used.

    """
    if not isinstance(config.world, str):
        return check_world(config.world, "world")
    if config.world not in WORLDS:
        raise ConfigurationError(
            f"world={written(config.world)}: choose one of {', '.join(WORLDS)}, or pass a World"
        )
    check_device(config.device)
    return WORLDS[config.world](config)


def check_world(given: World, option: str) -> World:
    """See that what was given for an option does what the World protocol asks for.

    Raises:
        ConfigurationError: it does not.

    """
    missing = [
        name for name in ("grid", "frames_per_chunk", "reset", "step", "select") if not hasattr(given, name)
    ]
    if missing:
        raise ConfigurationError(
            f"{option}={written(given)}: is no World, without {', '.join(missing)}; see worlds.protocol"
        )
    return given


def close_world(config: DriveConfig, world: World) -> None:
    """Let go of what a world that `make_world` made holds (processes, say); one that was given is its owner's."""
    close = getattr(world, "close", None)
    if isinstance(config.world, str) and close is not None:
        close()
