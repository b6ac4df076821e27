"""Agents: they see observations, never the world."""

from __future__ import annotations

from collections.abc import Callable

from occsora_sim.agents.constant_velocity import ConstantVelocity
from occsora_sim.agents.protocol import Agent
from occsora_sim.agents.route_follower import RouteFollower
from occsora_sim.errors import ConfigurationError

AGENTS: dict[str, Callable[[], Agent]] = {
    "constant-velocity": ConstantVelocity,
    "route-follower": RouteFollower,
}
"""The agents that come with the package, by name."""


def make_agent(name: str) -> Agent:
    """The agent of this name, for the action space "controls".

    Raises:
        ConfigurationError: there is none.

    """
    if name not in AGENTS:
        raise ConfigurationError(f"unknown agent {name!r}: choose one of {', '.join(AGENTS)}")
    return AGENTS[name]()


__all__ = ["AGENTS", "Agent", "ConstantVelocity", "RouteFollower", "make_agent"]
