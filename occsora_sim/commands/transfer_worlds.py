"""The two worlds of `evaluate transfer`, and who drives in them; in this process or in another."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from occsora_sim.errors import SceneWarning

if TYPE_CHECKING:
    from occsora_sim.agents import AnyAgent
    from occsora_sim.commands.evaluate_transfer import Options
    from occsora_sim.envs.config import DriveConfig
    from occsora_sim.envs.simulation import DriveSimulation
    from occsora_sim.scenes.start import Start
    from occsora_sim.worlds.protocol import World

    Held = tuple[Mapping[str, AnyAgent], Mapping[str, DriveSimulation]]
    """The agents by name, and the worlds by name."""


def open_worlds(options: Options) -> dict[str, DriveSimulation]:
    """The simulation in the generated world and in the one that it is held against; the same starts in both."""
    from occsora_sim.envs.config import DriveConfig
    from occsora_sim.envs.starts import open_starts
    from occsora_sim.envs.worlds import make_world
    from occsora_sim.grid import FRAME_SECONDS
    from occsora_sim.worlds.replay import ReplayWorld

    config = DriveConfig(
        weights=None if options.weights is None else str(options.weights),
        steps=options.steps,
        scenes=options.scenes,
        starts=options.episodes,
        ego=options.ego,
        least_future=options.least_future,
        seconds=options.seconds,
        device=options.device,
        seed=options.seed,
    )
    generated = make_world(config)
    starts = open_starts(config, generated, replayed=options.against == "replay")
    other = world_against(options, config, generated)
    if isinstance(other, ReplayWorld):  # as long in the one as in the other
        chunk = generated.frames_per_chunk * FRAME_SECONDS
        left = other.seconds_left(other.reset(starts, [0] * len(starts)))
        shortest = max(chunk, float(left.min() / chunk + 1e-6) // 1 * chunk)
        if shortest < config.seconds:
            warnings.warn(
                f"episodes last {shortest:g} s, as the shortest of the recordings does; give --least-future "
                f"{config.seconds:g} to leave shorter ones out",
                SceneWarning,
                stacklevel=2,
            )
            config = replace(config, seconds=shortest)
    return paired(options, config, generated, other, starts)


def world_against(options: Options, config: DriveConfig, generated: World) -> World:
    """The world that the generated one is held against."""
    from occsora_sim.worlds.replay import ReplayWorld
    from occsora_sim.worlds.traffic import TrafficWorld

    form: dict[str, Any] = {
        "grid": generated.grid,
        "frames_per_chunk": generated.frames_per_chunk,
        "device": options.device,
    }
    if options.against == "traffic":
        return TrafficWorld(vehicle=config.vehicle, **form)
    return ReplayWorld(**form)


def paired(
    options: Options, config: DriveConfig, generated: World, other: World, starts: Sequence[Start]
) -> dict[str, DriveSimulation]:
    """The simulations in both worlds."""
    from occsora_sim.envs.simulation import DriveSimulation

    imagined = replace(config, imagination=generated)
    return {
        "diffusion": DriveSimulation(imagined, generated, starts),
        options.against: DriveSimulation(replace(imagined, world=options.against), other, starts),
    }


def reopen(options: Options, config: DriveConfig, starts: Sequence[Start]) -> Held:
    """The agents and the worlds in another process, as `open_worlds` has settled them."""
    from occsora_sim.envs.worlds import make_world

    generated = make_world(config)
    other = world_against(options, config, generated)
    return agents_of(options), paired(options, config, generated, other, starts)


def agents_of(options: Options) -> dict[str, AnyAgent]:
    """Who drives, by name."""
    from occsora_sim.agents import make_agent

    return {name: make_agent(name, trust=options.trust) for name in options.names}


def simulation_of(agent: AnyAgent, simulation: DriveSimulation) -> DriveSimulation:
    """The same simulation with what the agent wants to see and to answer."""
    from occsora_sim.agents.protocol import wanted_options
    from occsora_sim.envs.simulation import DriveSimulation

    config = replace(simulation.config, **wanted_options(agent))  # type: ignore[arg-type]
    return DriveSimulation(config, simulation.world, simulation.starts)
