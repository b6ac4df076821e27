"""The options that every command which drives an agent shares, and the simulation that they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from occsora_sim.device import check_device
from occsora_sim.errors import ConfigurationError

if TYPE_CHECKING:
    from occsora_sim.agents import AnyAgent
    from occsora_sim.envs.config import DriveConfig
    from occsora_sim.envs.simulation import DriveSimulation
    from occsora_sim.scenes.start import Start


def check_least_future(seconds: float | None) -> None:
    """See that --least-future can be.

    Raises:
        ConfigurationError: it cannot.

    """
    if seconds is not None and not 0 <= seconds < math.inf:
        raise ConfigurationError(f"--least-future {seconds}: must be 0 or more seconds")


@dataclass(frozen=True, kw_only=True)
class DrivingOptions:
    """Which agent drives in which world.

    Attributes:
        agent: random, constant-velocity, idm (keeps its distance), route-follower (rules), learned (a small network,
            trained in the generated world), imagining-planner (tries plans out in it); the path of a policy that
            `train agent` wrote, or of a rollout.npz, whose actions are repeated; FILE.py:NAME or MODULE:NAME, a class
            or function of one's own (a function of one observation that answers the action; a class with reset and act
            or plan); or, with --trust, a model of Stable-Baselines3 (.zip).
        trust: read a .zip of Stable-Baselines3, whose pickles can run any code.
        world: diffusion (generated), traffic (live traffic) or replay (recorded town or street; the others do not
            react).
        weights: weights of the generated world; by default the shipped ones.
        steps: calls of the network for a tile of new ground in the generated world, by default 4.
        scenes: where episodes begin: a file, a folder, `traffic:A-B`, or `generate` (from nothing, in the
            generated world); by default the shipped scenes.
        place: kind of place that the generated world shall draw: grid, organic, arterial, roundabout or motorway; by
            default what the start suggests.
        vehicles: how many vehicles it shall keep in view; by default as they come.
        ego: in logs any vehicle that drives long enough, or the one that recorded them (recorder) alone.
        least_future: how long the recorded motion goes on after a beginning, at least [s]; by default 10 s, in a replay
            as long as an episode, and in a shorter log half of what it has.
        seconds: how long [s].
        seed: of the starts and of the world's randomness.
        device: cpu, cuda, cuda:1...

    """

    agent: str = "route-follower"
    trust: bool = False
    world: Literal["diffusion", "traffic", "replay"] = "diffusion"
    weights: Path | None = None
    steps: int | None = None
    scenes: str | None = None
    place: str | None = None
    vehicles: float | None = None
    ego: Literal["any", "recorder"] = "any"
    least_future: float | None = None
    seconds: float = 20.0
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ConfigurationError(f"--seconds {self.seconds}: must be above 0")
        check_least_future(self.least_future)
        if self.seed < 0:
            raise ConfigurationError(f"--seed {self.seed}: must be 0 or more")
        if self.steps is not None and self.steps < 1:
            raise ConfigurationError(f"--steps {self.steps}: must be 1 or more")
        if self.weights is not None and self.world != "diffusion":
            raise ConfigurationError(f"--weights are of the diffusion world; --world {self.world} has none")

    def open(self, starts: int) -> tuple[DriveSimulation, AnyAgent]:
        """The simulation, with `starts` beginnings drawn from the scenes, and the agent."""
        from occsora_sim.agents import make_agent
        from occsora_sim.agents.protocol import wanted_options
        from occsora_sim.envs.config import DriveConfig
        from occsora_sim.envs.simulation import DriveSimulation
        from occsora_sim.envs.starts import open_starts
        from occsora_sim.envs.worlds import make_world

        agent = make_agent(self.agent, trust=self.trust)
        check_device(self.device)
        config = DriveConfig(
            world=self.world,
            weights=None if self.weights is None else str(self.weights),
            steps=self.steps,
            scenes=self.scenes,
            place=self.place,
            vehicles=self.vehicles,
            starts=starts,
            ego=self.ego,
            least_future=self.least_future,
            seconds=self.seconds,
            device=self.device,
            seed=self.seed,
            **wanted_options(agent),  # type: ignore[arg-type]
        )
        world = make_world(config)
        return DriveSimulation(config, world, open_starts(config, world)), agent

    def reopen(self, config: DriveConfig, starts: Sequence[Start]) -> tuple[DriveSimulation, AnyAgent]:
        """The same simulation and agent in another process."""
        from occsora_sim.agents import make_agent
        from occsora_sim.envs.simulation import DriveSimulation
        from occsora_sim.envs.worlds import make_world

        return DriveSimulation(config, make_world(config), starts), make_agent(self.agent, trust=self.trust)
