"""Imagination: what would happen for each of many plans, rolled out side by side in one batch of worlds.

An agent never sees a world. It may be handed a function that takes plans and answers with their scores; behind it
stands this module. It begins where the agent's own frames end, in a generated world with noise of its own, so it
knows no more of the future than the agent has seen; only the "oracle", for tests and upper bounds, branches the world
that is driven.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.shared_future import SharedFuture
from occsora_sim.envs.simulation import DriveSimulation
from occsora_sim.envs.state import DriveState
from occsora_sim.envs.worlds import check_world, make_world
from occsora_sim.errors import ActionError, ConfigurationError
from occsora_sim.scene_prompt import ScenePrompt
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.episode import Episodes
from occsora_sim.scoring.extended import begin_extended
from occsora_sim.vehicle import Vehicle
from occsora_sim.worlds.protocol import World, WorldState

TERMS = ("score", "nc", "dac", "ttc", "ep", "comfort", "progress", "seconds")


@dataclass(frozen=True, kw_only=True)
class Imagined:
    """How k plans of n episodes would go, judged from now on alone.

    Attributes:
        terms: (n, k) each: score (PDMS), nc, dac, ttc, ep, comfort, progress [m], seconds [s].
        reward: (n, k) sum of the rewards.
        terminated: (n, k) bool: the plan ends the episode (at-fault collision, off the road, or the goal).
        occupancy: (n, k, f, x, y, z) uint8, the imagined frames, each in its own ego frame; after an end the last is
            repeated. None unless asked for.

    """

    terms: dict[str, np.ndarray]
    reward: np.ndarray
    terminated: np.ndarray
    occupancy: np.ndarray | None = None

    @property
    def score(self) -> np.ndarray:
        """(n, k) PDMS."""
        return self.terms["score"]

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Imagined:
        """`function` applied to every array."""
        return Imagined(
            terms={name: function(value) for name, value in self.terms.items()},
            reward=function(self.reward),
            terminated=function(self.terminated),
            occupancy=None if self.occupancy is None else function(self.occupancy),
        )


class Imagine(Protocol):
    """What an agent that imagines is handed."""

    def __call__(
        self, plans: np.ndarray, *, frames: bool = False, shared: bool = False, room: float = 0.0,
        until: int | None = None,
    ) -> Imagined:  # fmt: skip
        """Try out `plans` (n, k, h, a): for each episode k sequences of h actions; manoeuvres are (n, k, h) numbers.

        `frames` asks for the imagined occupancy too. `shared`: one future for all plans of an episode, in which the
        others see the first plan driven (`envs.shared_future`); dozens of plans cost about as much as one. Its frames
        show just what is around the car. `room`: the car is imagined that much larger on every side [m], for what comes
        may be nearer than it was imagined. `until`: after so many actions of plans that share a future nobody else
        moves any more: whoever is ahead may stop.
        """
        ...


class Imagination:
    """Rolls plans out from the states of a simulation.

    Args:
        simulation: whose episodes are thought about. Its option `imagination` chooses the world; that of the
            generated one is loaded when first needed.

    """

    def __init__(self, simulation: DriveSimulation) -> None:
        self.real = simulation
        if not isinstance(simulation.config.imagination, str | None):
            check_world(simulation.config.imagination, "imagination")
        self._inner: DriveSimulation | None = None

    def __call__(
        self, state: DriveState, plans: np.ndarray, *, frames: bool = False, shared: bool = False,
        room: float = 0.0, until: int | None = None,
    ) -> Imagined:  # fmt: skip
        """What `plans` (n, k, h, a), or (n, k, h) manoeuvres, would bring to the n episodes of `state`; the options are
        those of `Imagine`.

        Raises:
            ActionError: wrong shape, or an action outside the space.
            ConfigurationError: the world to imagine in does not fit the simulation, `room` is negative, or
                `until` is given though no future is shared.

        """
        plans = np.asarray(plans)
        rows = len(state.origins)
        if plans.ndim != (3 if self.real.discrete else 4) or len(plans) != rows or 0 in plans.shape:
            ask = "(n, k, h)" if self.real.discrete else f"(n, k, h, {self.real.action_size})"
            raise ActionError(f"imagine: plans of shape {plans.shape}, expected {ask} with n = {rows}")
        if until is not None and not (shared and until >= 0):
            raise ConfigurationError(f"imagine: until {until} needs shared=True, and must be 0 or more")
        count = plans.shape[1]
        simulation = self._simulation()
        begun = self._begin(simulation, state)
        config = replace(simulation.config, vehicle=_grown(simulation.config.vehicle, room))
        if shared:
            world = SharedFuture(simulation.world, count, config.vehicle, until)
            branched = world.branch(begun)
            simulation = DriveSimulation(config, world, simulation.starts)
        else:
            simulation = DriveSimulation(config, simulation.world, simulation.starts)
            branched = simulation.select(begun, np.repeat(np.arange(rows), count).tolist())
        flat = plans.reshape(rows * count, *plans.shape[2:])
        result = _roll(simulation, branched, flat, frames, together=shared)
        return result.map(lambda value: value.reshape(rows, count, *value.shape[1:]))

    def _simulation(self) -> DriveSimulation:
        """The simulation of the world to imagine in."""
        if self._inner is None:
            config = self.real.config
            world = _world(config, self.real.world)
            if world.grid != self.real.world.grid:
                raise ConfigurationError(
                    f"imagination: its world's grid {world.grid.shape} is not the environment's "
                    f"{self.real.world.grid.shape}; give one of the same grid"
                )
            # Its episodes are those of the world driven, prompts included, so none is told the configuration's.
            config = replace(config, frames_per_decision=self.real.frames, place=None, vehicles=None)
            self._inner = DriveSimulation(config, world, self.real.starts)
        return self._inner

    def _begin(self, simulation: DriveSimulation, state: DriveState) -> DriveState:
        """`state` in the world to imagine in, with a score that begins now."""
        return replace(state, world=self._world_state(simulation, state), episodes=_from_now(state))

    def _world_state(self, simulation: DriveSimulation, state: DriveState) -> WorldState:
        if self.real.config.imagination == "oracle":
            return state.world
        routes = state.episodes.routes.points
        told = getattr(
            self.real.world, "takes_scene_prompts", False
        )  # what is imagined knows as much, no more
        users = (
            state.world.users
        )  # of what moves it knows where it was, as the observation `road_users` tells
        starts = [
            Start(
                occupancy=state.seen[row],
                ego_pose=state.seen_poses[row],
                route=routes[row],
                name=origin.name,
                prompt=origin.prompt if told else ScenePrompt(),
                users=None if users is None else users.select([row]),
            )
            for row, origin in enumerate(state.origins)
        ]
        # Noise that has nothing to do with that of the world driven, the same alone and in a batch.
        return simulation.world.reset(starts, [int(frames) for frames in state.episodes.frames])


def _world(config: DriveConfig, driven: World) -> World:
    """The world to imagine in."""
    from occsora_sim.worlds.diffusion import DiffusionWorld

    if config.imagination == "oracle":
        return driven
    if isinstance(config.imagination, str | None):
        world = (
            driven if isinstance(driven, DiffusionWorld) else make_world(replace(config, world="diffusion"))
        )
    else:
        world = config.imagination
    if config.imagination_steps is not None and isinstance(world, DiffusionWorld):
        return world.variant(steps=config.imagination_steps, tiles=1)  # what is near was seen
    return world


def _grown(vehicle: Vehicle, room: float) -> Vehicle:
    """The same car, larger by `room` on every side [m]; it drives as before."""
    if not room >= 0:
        raise ConfigurationError(f"imagine: room {room} must be 0 m or more")
    return replace(
        vehicle, length=vehicle.length + 2 * room, width=vehicle.width + 2 * room,
        rear_overhang=vehicle.rear_overhang + room,
    )  # fmt: skip


def _from_now(state: DriveState) -> Episodes:
    """The episodes' score as if they began now; the way driven until now still counts for the jerk."""
    episodes = state.episodes
    one, zero = torch.ones_like(episodes.nc), torch.zeros_like(episodes.nc)
    return replace(
        episodes,
        start=episodes.best,
        start_speed=state.motion[:, 0].to(episodes.start_speed),
        frames=zero,
        nc=one,
        dac=one,
        ttc=zero,
        comfort=zero,
        extended=None if episodes.extended is None else begin_extended(zero),
    )


def _roll(
    simulation: DriveSimulation, state: DriveState, plans: np.ndarray, frames: bool, together: bool
) -> Imagined:
    """Roll b states on along b plans (b, h, ...); those that have ended cost nothing more, or where rows stay
    `together` are rolled on and not looked at. Arrays are (b, ...).
    """
    rows, steps = plans.shape[:2]
    terms = {name: np.zeros(rows) for name in TERMS}
    reward, terminated = np.zeros(rows), np.zeros(rows, dtype=bool)
    pictures: list[np.ndarray] = []
    live = np.arange(rows)
    for step in range(steps):
        held, at = (np.arange(rows), live) if together else (live, slice(None))
        state, outcome = simulation.step(state, simulation.check(plans[held, step], len(held)))
        reward[live] += outcome.reward.double().cpu().numpy()[at]
        summary = state.episodes.summary(simulation.config.score)
        for name in TERMS:
            terms[name][live] = summary[name].double().cpu().numpy()[at]
        over = outcome.terminated.cpu().numpy()[at]
        terminated[live] = over
        if frames:
            last = (
                pictures[-1][:, -1:]
                if pictures
                else np.zeros((rows, 1, *simulation.world.grid.shape), np.uint8)
            )
            picture = np.repeat(last, simulation.frames, axis=1)
            picture[live] = state.frames.cpu().numpy()[at]
            pictures.append(picture)
        if over.any() and step + 1 < steps:
            keep = np.flatnonzero(~over)
            live = live[keep]
            if not len(live):
                missing = steps - step - 1
                pictures += (
                    [pictures[-1][:, -1:].repeat(simulation.frames * missing, axis=1)] if frames else []
                )
                break
            if not together:
                state = simulation.select(state, keep.tolist())
    return Imagined(
        terms=terms,
        reward=reward,
        terminated=terminated,
        occupancy=np.concatenate(pictures, axis=1) if frames else None,
    )
